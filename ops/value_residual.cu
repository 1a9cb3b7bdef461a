// Value residual on CUDA.
#include "ops/value_residual.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// A thread owns W neighbouring elements: 16 bytes where all pointers and the count allow, else one. Read 3,
// write 1 element; 8 FLOPs. Bound by memory, hence no larger block than hides its latency.
template <class T, int W>
__global__ void value_residual_forward_kernel(const T* v, const T* v_first, const T* v_pre, T* y, int64_t n) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * W;
  if (i >= n) return;
  using P = Pack<T, W>;
  const P pv = simt::load_as<P>(v + i), pf = simt::load_as<P>(v_first + i), pp = simt::load_as<P>(v_pre + i);
  P py;
#pragma unroll
  for (int j = 0; j < W; ++j) {
    const float x = to_float(pv.v[j]);
    py.v[j] = from_float<T>(x + (to_float(pf.v[j]) - x) * sigmoid(to_float(pp.v[j])));
  }
  simt::store_as<P>(y + i, py);
}

// A thread owns W neighbouring elements. Read 2 elements, and 2 more for dv_pre, write those that are wanted;
// 12 FLOPs.
template <class T, int W>
__global__ void value_residual_backward_kernel(const T* dy, const T* v, const T* v_first, const T* v_pre, T* dv,
                                               T* dv_first, T* dv_pre, int64_t n) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * W;
  if (i >= n) return;
  using P = Pack<T, W>;
  const P pg = simt::load_as<P>(dy + i), pp = simt::load_as<P>(v_pre + i);
  float g[W], s[W];
#pragma unroll
  for (int j = 0; j < W; ++j) {
    g[j] = to_float(pg.v[j]);
    s[j] = sigmoid(to_float(pp.v[j]));
  }
  P out;
  if (dv_pre != nullptr) {
    const P pv = simt::load_as<P>(v + i), pf = simt::load_as<P>(v_first + i);
#pragma unroll
    for (int j = 0; j < W; ++j)
      out.v[j] = from_float<T>(g[j] * (to_float(pf.v[j]) - to_float(pv.v[j])) * s[j] * (1 - s[j]));
    simt::store_as<P>(dv_pre + i, out);
  }
  if (dv != nullptr) {
#pragma unroll
    for (int j = 0; j < W; ++j) out.v[j] = from_float<T>(g[j] * (1 - s[j]));
    simt::store_as<P>(dv + i, out);
  }
  if (dv_first != nullptr) {
#pragma unroll
    for (int j = 0; j < W; ++j) out.v[j] = from_float<T>(g[j] * s[j]);
    simt::store_as<P>(dv_first + i, out);
  }
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

bool all_aligned16(std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (!aligned16(p)) return false;
  }
  return true;
}

}  // namespace

void value_residual_forward(const Tensor& v, const Tensor& v_first, const Tensor& v_pre, Tensor& y) {
  const int64_t n = y.numel();
  if (n == 0) return;
  for_cuda_float("value_residual", y.dtype(), [&](auto t) {
    using T = decltype(t);
    constexpr int W = 16 / sizeof(T);
    if (n % W == 0 && all_aligned16({v.raw(), v_first.raw(), v_pre.raw(), y.raw()})) {
      simt::launch<value_residual_forward_kernel<T, W>>(
          {unsigned(ceil_div(n / W, kThreads)), kThreads, 0, current_stream()}, v.data<T>(), v_first.data<T>(),
          v_pre.data<T>(), y.data<T>(), n);
    } else {
      simt::launch<value_residual_forward_kernel<T, 1>>(
          {unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, v.data<T>(), v_first.data<T>(),
          v_pre.data<T>(), y.data<T>(), n);
    }
  });
}

void value_residual_backward(const Tensor& dy, const Tensor& v, const Tensor& v_first, const Tensor& v_pre,
                             Tensor& dv, Tensor& dv_first, Tensor& dv_pre) {
  const int64_t n = dy.numel();
  if (n == 0) return;
  for_cuda_float("value_residual", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    constexpr int W = 16 / sizeof(T);
    const T* pv = pointer<T>(v);
    const T* pf = pointer<T>(v_first);
    T* pdv = pointer<T>(dv);
    T* pdf = pointer<T>(dv_first);
    T* pdp = pointer<T>(dv_pre);
    if (n % W == 0 && all_aligned16({dy.raw(), pv, pf, v_pre.raw(), pdv, pdf, pdp})) {
      simt::launch<value_residual_backward_kernel<T, W>>(
          {unsigned(ceil_div(n / W, kThreads)), kThreads, 0, current_stream()}, dy.data<T>(), pv, pf,
          v_pre.data<T>(), pdv, pdf, pdp, n);
    } else {
      simt::launch<value_residual_backward_kernel<T, 1>>(
          {unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}, dy.data<T>(), pv, pf,
          v_pre.data<T>(), pdv, pdf, pdp, n);
    }
  });
}

}  // namespace modrwkv::cuda
