// Mean square and mean absolute error on CUDA.
#include "ops/mse.h"

#include "ops/kernel_util.h"
#include "ops/loss_mean.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 8;
constexpr int64_t kPart = kThreads * kPerThread;  // elements of a block's sum

// A block owns kPart elements and leaves their sum and count for loss_mean. Read 2 elements and the mask's
// byte, 3 FLOPs an element; 16 loads of a thread are independent. Forecasts are small tensors: one element a
// load keeps any size legal.
template <class T, class U>
__global__ void distance_forward_kernel(Distance d, const T* x, const U* y, const uint8_t* mask, float* sums,
                                        int32_t* counts, int64_t n) {
  const int64_t first = blockIdx.x * kPart + threadIdx.x;
  float sum = 0;
  int count = 0;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const int64_t i = first + k * kThreads;
    if (i >= n || (mask && mask[i] == 0)) continue;
    const float e = to_float(x[i]) - to_float(y[i]);
    sum += d == Distance::square ? e * e : fabsf(e);
    ++count;
  }
  sum = simt::block_sum(sum);
  count = simt::block_sum(count);
  if (threadIdx.x != 0) return;
  sums[blockIdx.x] = sum;
  counts[blockIdx.x] = count;
}

// A thread owns an element. Read 2 elements and the mask's byte, write 1; 3 FLOPs. 256 threads: no shared
// memory, few registers, any size fills an SM.
template <class T, class U>
__global__ void distance_backward_kernel(Distance d, const float* dloss, const float* inverse_count, const T* x,
                                         const U* y, const uint8_t* mask, T* dx, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  float slope = 0;
  if (mask == nullptr || mask[i] != 0) {
    const float e = to_float(x[i]) - to_float(y[i]);
    slope = d == Distance::square ? 2 * e : e > 0 ? 1.0f : e < 0 ? -1.0f : e;  // 0 for 0, NaN for NaN
    slope *= dloss[0] * inverse_count[0];
  }
  dx[i] = from_float<T>(slope);
}

const uint8_t* bytes_of(const Tensor& mask) { return mask.defined() ? mask.data<uint8_t>() : nullptr; }

// Calls launch(element of the prediction, element of the target).
template <class Launch>
void for_types(const Tensor& prediction, const Tensor& target, Launch&& launch) {
  for_cuda_float("mse", prediction.dtype(), [&](auto t) {
    if (target.dtype() == DType::f32) {
      launch(t, float{});
    } else {
      launch(t, t);
    }
  });
}

}  // namespace

void distance_forward(Distance d, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                      Tensor& loss, Tensor& inverse_count) {
  const int64_t n = prediction.numel(), parts = ceil_div(n, kPart);
  const MemoryScope scope(MemoryTag::workspace);
  Tensor sums = Tensor::empty({parts}, DType::f32, loss.device()),
         counts = Tensor::empty({parts}, DType::i32, loss.device());
  if (parts > 0) {
    for_types(prediction, target, [&](auto t, auto u) {
      using T = decltype(t);
      using U = decltype(u);
      simt::launch<distance_forward_kernel<T, U>>({unsigned(parts), kThreads, 0, current_stream()}, d,
                                                  prediction.data<T>(), target.data<U>(), bytes_of(mask),
                                                  sums.data<float>(), counts.data<int32_t>(), n);
    });
  }
  loss_mean(sums, counts, loss, inverse_count);
}

void distance_backward(Distance d, const Tensor& dloss, const Tensor& prediction, const Tensor& target,
                       const Tensor& mask, const Tensor& inverse_count, Tensor& dprediction) {
  const int64_t n = prediction.numel();
  if (n == 0) return;
  for_types(prediction, target, [&](auto t, auto u) {
    using T = decltype(t);
    using U = decltype(u);
    simt::launch<distance_backward_kernel<T, U>>(
        {unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, d, dloss.data<float>(),
        inverse_count.data<float>(), prediction.data<T>(), target.data<U>(), bytes_of(mask),
        dprediction.data<T>(), n);
  });
}

}  // namespace modrwkv::cuda
