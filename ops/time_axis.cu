// Copies between time axes on CUDA.
#include "ops/time_axis.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

// A thread owns W neighbouring elements of one step of `to`, W = 16 bytes where all rows allow. n elements of a
// sample are written, from its element `first` on; element e comes from element e - shift of the sample in
// `from`, or is zero. Read and write 1 element (only write the zeros), no FLOPs. 256 threads: nothing is
// shared, any size fills an SM.
template <class T, int W>
__global__ void copy_time_kernel(const T* from, T* to, int64_t B, int64_t first, int64_t n, int64_t shift,
                                 int64_t sample_from, int64_t sample_to) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, packs = n / W;
  if (i >= B * packs) return;
  const int64_t b = i / packs, e = first + (i % packs) * W, source = e - shift;
  Pack<T, W> value;
  if (source >= 0 && source < sample_from) {
    value = simt::load_as<Pack<T, W>>(from + b * sample_from + source);
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j) value.v[j] = from_float<T>(0.0f);
  }
  simt::store_as<Pack<T, W>>(to + b * sample_to + e, value);
}

}  // namespace

void copy_time(const Tensor& from, int64_t offset, Tensor& to, int64_t begin, int64_t end) {
  const int64_t B = to.size(0), C = to.size(2), n = (end - begin) * C;
  if (B * n == 0) return;
  constexpr int threads = 256;
  for_cuda_float("time_axis", to.dtype(), [&](auto zero) {
    using T = decltype(zero);
    constexpr int W = 16 / sizeof(T);
    const bool wide = C % W == 0 && aligned16(from.raw()) && aligned16(to.raw());
    const unsigned grid = unsigned(ceil_div(B * (wide ? n / W : n), threads));
    if (wide) {
      simt::launch<copy_time_kernel<T, W>>({grid, threads, 0, current_stream()}, from.data<T>(), to.data<T>(),
                                           B, begin * C, n, offset * C, from.size(1) * C, to.size(1) * C);
    } else {
      simt::launch<copy_time_kernel<T, 1>>({grid, threads, 0, current_stream()}, from.data<T>(), to.data<T>(),
                                           B, begin * C, n, offset * C, from.size(1) * C, to.size(1) * C);
    }
  });
}

}  // namespace modrwkv::cuda
