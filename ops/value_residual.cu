// Value residual on CUDA.
#include "ops/value_residual.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// A thread owns an element. Read 3, write 1; 8 FLOPs.
template <class T>
__global__ void value_residual_forward_kernel(const T* v, const T* v_first, const T* v_pre, T* y, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float x = to_float(v[i]);
  y[i] = from_float<T>(x + (to_float(v_first[i]) - x) * sigmoid(to_float(v_pre[i])));
}

// A thread owns an element. Read 4, write 3 (what is wanted); 12 FLOPs.
template <class T>
__global__ void value_residual_backward_kernel(const T* dy, const T* v, const T* v_first, const T* v_pre, T* dv, T* dv_first,
                                               T* dv_pre, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const float g = to_float(dy[i]), s = sigmoid(to_float(v_pre[i]));
  if (dv) dv[i] = from_float<T>(g * (1 - s));
  if (dv_first) dv_first[i] = from_float<T>(g * s);
  if (dv_pre) dv_pre[i] = from_float<T>(g * (to_float(v_first[i]) - to_float(v[i])) * s * (1 - s));
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

void value_residual_forward(const Tensor& v, const Tensor& v_first, const Tensor& v_pre, Tensor& y) {
  const int64_t n = y.numel();
  if (n == 0) return;
  for_cuda_float("value_residual", y.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<value_residual_forward_kernel<T>>({unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, v.data<T>(),
                                                   v_first.data<T>(), v_pre.data<T>(), y.data<T>(), n);
  });
}

void value_residual_backward(const Tensor& dy, const Tensor& v, const Tensor& v_first, const Tensor& v_pre, Tensor& dv,
                             Tensor& dv_first, Tensor& dv_pre) {
  const int64_t n = dy.numel();
  if (n == 0) return;
  for_cuda_float("value_residual", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<value_residual_backward_kernel<T>>({unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, dy.data<T>(),
                                                    pointer<T>(v), pointer<T>(v_first), v_pre.data<T>(), pointer<T>(dv),
                                                    pointer<T>(dv_first), pointer<T>(dv_pre), n);
  });
}

}  // namespace modrwkv::cuda
