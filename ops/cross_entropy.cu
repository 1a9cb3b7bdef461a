// Cross entropy on CUDA.
#include "ops/cross_entropy.h"

#include <cfloat>

#include "ops/kernel_util.h"
#include "ops/loss_mean.h"

namespace modrwkv::cuda {
namespace {

constexpr int64_t kWarpRow = 1024;  // up to this many classes a warp owns a row, else a block
constexpr int kWarps = 4;           // rows of a block where a warp owns a row
constexpr int kBlock = 512;         // threads of a row where a block owns it

// Row, place in the row and reductions of the `Threads` (32 or a whole block) that own a row.
template <int Threads>
struct RowOwner {
  static constexpr bool kWarp = Threads == 32;
  __device__ static int64_t row() {
    return kWarp ? int64_t(blockIdx.x) * kWarps + threadIdx.x / 32 : int64_t(blockIdx.x);
  }
  __device__ static int rank() { return kWarp ? threadIdx.x % 32 : threadIdx.x; }
  __device__ static float sum(float v SIMT_AT) {
    if constexpr (kWarp) {
      return simt::warp_sum(v SIMT_HERE);
    } else {
      return simt::block_sum(v SIMT_HERE);
    }
  }
  __device__ static float max(float v SIMT_AT) {
    if constexpr (kWarp) {
      return simt::warp_max(v SIMT_HERE);
    } else {
      return simt::block_max(v SIMT_HERE);
    }
  }
};

// A row is read once: each thread keeps the maximum of what it saw and the sum of exponentials relative to it
// (the sum is rescaled once a pack of W), the owners of the row then agree on the maximum. Starting at -FLT_MAX
// instead of -inf keeps rows that begin with -inf (masked classes) free of inf - inf. Read n elements, write 12
// bytes a row; about 4 FLOPs and 1 exponential an element (2 in the scalar form). A row of up to 1024 is a few
// loads for a warp; longer rows are left to 512 threads: at V 65536 that is 16 loads of 16 bytes each in bf16,
// and four rows fill an SM.
template <class T, int W, int Threads>
__global__ void cross_entropy_forward_kernel(const T* logits, const int32_t* labels, float* lse,
                                             float* row_loss, int32_t* counted, int64_t rows, int64_t n) {
  using Owner = RowOwner<Threads>;
  const int64_t row = Owner::row();
  if (row >= rows) return;  // whole warps, or the whole block
  const T* x = logits + row * n;
  float top = -FLT_MAX, sum = 0;
  for (int64_t i = int64_t(Owner::rank()) * W; i < n; i += Threads * W) {
    const auto p = simt::load_as<Pack<T, W>>(x + i);
    float local = top;
#pragma unroll
    for (int j = 0; j < W; ++j) local = fmaxf(local, to_float(p.v[j]));
    sum *= expf(top - local);
#pragma unroll
    for (int j = 0; j < W; ++j) sum += expf(to_float(p.v[j]) - local);  // keeps NaN
    top = local;
  }
  const float row_top = Owner::max(top);
  const float row_sum = Owner::sum(sum * expf(top - row_top));
  if (Owner::rank() != 0) return;
  const float tail = logf(row_sum);
  const int32_t label = labels[row];
  lse[row] = row_top + tail;
  counted[row] = label >= 0;
  row_loss[row] = label < 0 ? 0.0f : label < n ? row_top - to_float(x[label]) + tail : NAN;
}

// Same owners. Read and write n elements (write only where the row does not count); 4 FLOPs and 1 exponential
// an element.
template <class T, int W, int Threads>
__global__ void cross_entropy_backward_kernel(const float* dloss, const T* logits, const int32_t* labels,
                                              const float* lse, const float* inverse_count, T* dlogits,
                                              int64_t rows, int64_t n) {
  using Owner = RowOwner<Threads>;
  const int64_t row = Owner::row();
  if (row >= rows) return;
  const T* x = logits + row * n;
  T* dx = dlogits + row * n;
  const int32_t label = labels[row];
  const float l = lse[row];
  const float scale = label < 0 ? 0.0f : label < n ? dloss[0] * inverse_count[0] : NAN;
  for (int64_t i = int64_t(Owner::rank()) * W; i < n; i += Threads * W) {
    Pack<T, W> q;
    if (label < 0) {  // also where the row holds NaN
#pragma unroll
      for (int j = 0; j < W; ++j) q.v[j] = from_float<T>(0.0f);
    } else {
      const auto p = simt::load_as<Pack<T, W>>(x + i);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        q.v[j] = from_float<T>((expf(to_float(p.v[j]) - l) - (i + j == label ? 1.0f : 0.0f)) * scale);
      }
    }
    simt::store_as<Pack<T, W>>(dx + i, q);
  }
}

// Calls launch(Pack width, threads of a row): 16-byte packs where every row starts on a 16-byte border.
template <class T, class Launch>
void choose(int64_t n, bool aligned, Launch&& launch) {
  constexpr int wide = 16 / sizeof(T);
  using Wide = std::integral_constant<int, wide>;
  using Narrow = std::integral_constant<int, 1>;
  using Warp = std::integral_constant<int, 32>;
  using Block = std::integral_constant<int, kBlock>;
  const bool packs = aligned && n % wide == 0, warp = n <= kWarpRow;
  if (packs && warp) return launch(Wide{}, Warp{});
  if (packs) return launch(Wide{}, Block{});
  if (warp) return launch(Narrow{}, Warp{});
  launch(Narrow{}, Block{});
}

simt::dims grid_for(int64_t rows, int threads) {
  if (threads == 32) return {unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()};
  return {unsigned(rows), unsigned(threads), 0, current_stream()};
}

}  // namespace

void cross_entropy_forward(const Tensor& logits, const Tensor& labels, Tensor& lse, Tensor& loss,
                           Tensor& inverse_count) {
  const int64_t rows = lse.numel(), n = logits.size(-1);
  const MemoryScope scope(MemoryTag::workspace);
  Tensor row_loss = Tensor::empty_like(lse), counted = Tensor::empty({rows}, DType::i32, lse.device());
  if (rows > 0) {
    for_cuda_float("cross_entropy", logits.dtype(), [&](auto t) {
      using T = decltype(t);
      choose<T>(n, aligned16(logits.raw()), [&](auto width, auto threads) {
        constexpr int W = decltype(width)::value, Threads = decltype(threads)::value;
        simt::launch<cross_entropy_forward_kernel<T, W, Threads>>(
            grid_for(rows, Threads), logits.data<T>(), labels.data<int32_t>(), lse.data<float>(),
            row_loss.data<float>(), counted.data<int32_t>(), rows, n);
      });
    });
  }
  loss_mean(row_loss, counted, loss, inverse_count);
}

void cross_entropy_backward(const Tensor& dloss, const Tensor& logits, const Tensor& labels, const Tensor& lse,
                            const Tensor& inverse_count, Tensor& dlogits) {
  const int64_t rows = lse.numel(), n = logits.size(-1);
  if (rows == 0) return;
  for_cuda_float("cross_entropy", logits.dtype(), [&](auto t) {
    using T = decltype(t);
    choose<T>(n, aligned16(logits.raw()) && aligned16(dlogits.raw()), [&](auto width, auto threads) {
      constexpr int W = decltype(width)::value, Threads = decltype(threads)::value;
      simt::launch<cross_entropy_backward_kernel<T, W, Threads>>(
          grid_for(rows, Threads), dloss.data<float>(), logits.data<T>(), labels.data<int32_t>(),
          lse.data<float>(), inverse_count.data<float>(), dlogits.data<T>(), rows, n);
    });
  });
}

}  // namespace modrwkv::cuda
