// Value residual: CPU code, checks and the tape.
#include "ops/value_residual.h"

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"
#include "core/vmath.h"

namespace modrwkv {
namespace {

constexpr int64_t kGrain = 1 << 14;

namespace cpu {

void value_residual_forward(const Tensor& v, const Tensor& v_first, const Tensor& v_pre, Tensor& y) {
  for_cpu_float("value_residual", y.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* pv = v.data<T>();
    const T* pf = v_first.data<T>();
    const T* pp = v_pre.data<T>();
    T* py = y.data<T>();
    parallel_for(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) py[i] = pv[i] + (pf[i] - pv[i]) * vmath::sigmoid(pp[i]);
    });
  });
}

// With s = sigmoid(v_pre): dv = dy (1 - s), dv_first = dy s, dv_pre = dy (v_first - v) s (1 - s).
void value_residual_backward(const Tensor& dy, const Tensor& v, const Tensor& v_first, const Tensor& v_pre,
                             Tensor& dv, Tensor& dv_first, Tensor& dv_pre) {
  for_cpu_float("value_residual", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    constexpr int64_t block = 512;  // sigmoids at a time, kept in L1 for the three loops
    const T* g = dy.data<T>();
    const T* pp = v_pre.data<T>();
    parallel_for((dy.numel() + block - 1) / block, kGrain / block, [&](int64_t first, int64_t last) {
      T s[block];
      for (int64_t k = first; k < last; ++k) {
        const int64_t begin = k * block, n = std::min(block, dy.numel() - begin);
        for (int64_t i = 0; i < n; ++i) s[i] = vmath::sigmoid(pp[begin + i]);
        if (dv.defined()) {
          T* to = dv.data<T>() + begin;
          for (int64_t i = 0; i < n; ++i) to[i] = g[begin + i] * (T(1) - s[i]);
        }
        if (dv_first.defined()) {
          T* to = dv_first.data<T>() + begin;
          for (int64_t i = 0; i < n; ++i) to[i] = g[begin + i] * s[i];
        }
        if (dv_pre.defined()) {
          T* to = dv_pre.data<T>() + begin;
          const T* pv = v.data<T>() + begin;
          const T* pf = v_first.data<T>() + begin;
          for (int64_t i = 0; i < n; ++i) to[i] = g[begin + i] * (pf[i] - pv[i]) * s[i] * (T(1) - s[i]);
        }
      }
    });
  });
}

}  // namespace cpu
}  // namespace

Variable value_residual(const Variable& v, const Variable& v_first, const Variable& v_pre) {
  for (const Variable* other : {&v_first, &v_pre}) {
    require(other->shape() == v.shape() && other->dtype() == v.dtype() && other->device() == v.device(),
            "value_residual: v is {}, {} is {}; shape, type and device must agree", v.value().str(),
            other == &v_first ? "v_first" : "v_pre", other->value().str());
  }
  Tensor y = Tensor::empty_like(v.value());
  run(v.device(), cpu::value_residual_forward, cuda::value_residual_forward, v.value(), v_first.value(),
      v_pre.value(), y);
  const bool learns = v_pre.requires_grad();
  return record("value_residual", y, {v, v_first, v_pre},
                [v = learns ? v.value() : Tensor(), v_first = learns ? v_first.value() : Tensor(),
                 v_pre = v_pre.value()](Grads& g) {
                  Tensor dv = g.wants(0) ? g.write(0) : Tensor(), dv_first = g.wants(1) ? g.write(1) : Tensor();
                  Tensor dv_pre = g.wants(2) ? g.write(2) : Tensor();
                  run(v_pre.device(), cpu::value_residual_backward, cuda::value_residual_backward, g.out(), v,
                      v_first, v_pre, dv, dv_first, dv_pre);
                });
}

}  // namespace modrwkv
