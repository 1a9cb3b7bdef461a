// RMS norm on CUDA.
#include "tests/example/rms_norm.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kWarps =
    4;  // rows of a block; a row needs no shared memory, so small blocks fill an SM just as well

// One warp owns a row and reads it twice, the second time from L1. Read and write n elements, write 4 bytes a
// row; 3 FLOPs an element.
template <class T>
__global__ void rms_norm_forward_kernel(const T* x, T* y, float* r, int64_t rows, int n, float eps) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const T* px = x + row * n;
  float square = 0;
  for (int i = lane; i < n; i += 32) square += to_float(px[i]) * to_float(px[i]);
  const float s = 1.0f / sqrtf(simt::warp_sum(square) / n + eps);
  for (int i = lane; i < n; i += 32) y[row * n + i] = from_float<T>(to_float(px[i]) * s);
  if (lane == 0) r[row] = s;
}

// One warp owns a row. Read 2 n elements (twice, the second time from L1) and 4 bytes, write n; 8 FLOPs an
// element.
template <class T>
__global__ void rms_norm_backward_kernel(const T* dy, const T* x, const float* r, T* dx, int64_t rows, int n) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  const T* px = x + row * n;
  const T* pdy = dy + row * n;
  const float s = r[row];
  float sum = 0;
  for (int i = lane; i < n; i += 32) sum += to_float(pdy[i]) * to_float(px[i]) * s;
  const float mean = simt::warp_sum(sum) / n;
  for (int i = lane; i < n; i += 32) {
    dx[row * n + i] = from_float<T>(s * (to_float(pdy[i]) - to_float(px[i]) * s * mean));
  }
}

simt::dims grid_of(int64_t rows) {
  return {unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()};
}

}  // namespace

void rms_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& r) {
  if (r.numel() == 0) return;
  for_cuda_float("rms_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<rms_norm_forward_kernel<T>>(grid_of(r.numel()), x.data<T>(), y.data<T>(), r.data<float>(),
                                             r.numel(), int(x.size(-1)), float(eps));
  });
}

void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& r, Tensor& dx) {
  if (r.numel() == 0) return;
  for_cuda_float("rms_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<rms_norm_backward_kernel<T>>(grid_of(r.numel()), dy.data<T>(), x.data<T>(), r.data<float>(),
                                              dx.data<T>(), r.numel(), int(x.size(-1)));
  });
}

}  // namespace modrwkv::cuda
