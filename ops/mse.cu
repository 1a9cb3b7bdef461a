// Mean square and mean absolute error on CUDA.
#include "ops/mse.h"

#include "ops/kernel_util.h"
#include "ops/loss_mean.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 8;  // elements of a thread: a block sums 2048, so that few partial sums are left

// A block owns 2048 elements and leaves their sum and count. Read 2 elements (and a byte of the mask), 3 FLOPs an element.
template <class T>
__global__ void mse_forward_kernel(Distance d, const T* x, const T* y, const uint8_t* mask, float* sums, int32_t* counts,
                                   int64_t n) {
  float sum = 0, count = 0;
  const int64_t first = int64_t(blockIdx.x) * kThreads * kPerThread + threadIdx.x;
  for (int k = 0; k < kPerThread; ++k) {
    const int64_t i = first + k * kThreads;
    if (i >= n || (mask && mask[i] == 0)) continue;
    const float e = to_float(x[i]) - to_float(y[i]);
    sum += d == Distance::square ? e * e : fabsf(e);
    count += 1;
  }
  sum = simt::block_sum(sum);
  count = simt::block_sum(count);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = sum;
  counts[blockIdx.x] = int32_t(count);
}

// A thread owns an element. Read 2, write 1; 3 FLOPs.
template <class T>
__global__ void mse_backward_kernel(Distance d, const float* dloss, const float* inverse_count, const T* x, const T* y,
                                    const uint8_t* mask, T* dx, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float e = to_float(x[i]) - to_float(y[i]);
  const float slope = d == Distance::square ? 2 * e : e > 0 ? 1.0f : e < 0 ? -1.0f : e;
  const bool counts = mask == nullptr || mask[i] != 0;
  dx[i] = from_float<T>(counts ? dloss[0] * inverse_count[0] * slope : 0.0f);
}

const uint8_t* bytes_of(const Tensor& mask) { return mask.defined() ? mask.data<uint8_t>() : nullptr; }

}  // namespace

void mse_forward(Distance d, const Tensor& prediction, const Tensor& target, const Tensor& mask, Tensor& loss,
                 Tensor& inverse_count) {
  const int64_t n = prediction.numel(), parts = ceil_div(n, int64_t(kThreads) * kPerThread);
  const MemoryScope scope(MemoryTag::workspace);
  Tensor sums = Tensor::empty({parts}, DType::f32, prediction.device()), counts = Tensor::empty({parts}, DType::i32, prediction.device());
  if (parts > 0) {
    for_cuda_float("mse", prediction.dtype(), [&](auto t) {
      using T = decltype(t);
      simt::launch<mse_forward_kernel<T>>({unsigned(parts), kThreads, 0, current_stream()}, d, prediction.data<T>(),
                                          target.data<T>(), bytes_of(mask), sums.data<float>(), counts.data<int32_t>(), n);
    });
  }
  loss_mean(sums, counts, loss, inverse_count);
}

void mse_backward(Distance d, const Tensor& dloss, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                  const Tensor& inverse_count, Tensor& dprediction) {
  const int64_t n = prediction.numel();
  if (n == 0) return;
  for_cuda_float("mse", prediction.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<mse_backward_kernel<T>>({unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, d, dloss.data<float>(),
                                         inverse_count.data<float>(), prediction.data<T>(), target.data<T>(), bytes_of(mask),
                                         dprediction.data<T>(), n);
  });
}

}  // namespace modrwkv::cuda
