// RMS norm: CPU code, checks and the tape.
#include "tests/example/rms_norm.h"

#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

int64_t grain(int64_t row_size) { return 1 + (1 << 14) / (row_size + 1); }

namespace cpu {

void rms_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& r) {
  const int64_t n = x.size(-1);
  for_cpu_float("rms_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(r.numel(), grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* px = x.data<T>() + row * n;
        T* py = y.data<T>() + row * n;
        T square = 0;
        for (int64_t i = 0; i < n; ++i) square += px[i] * px[i];
        const T s = T(1) / std::sqrt(square / T(n) + T(eps));
        for (int64_t i = 0; i < n; ++i) py[i] = px[i] * s;
        r.data<T>()[row] = s;
      }
    });
  });
}

// With h = x r:  dx = r (dy - h mean(dy h)).
void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& r, Tensor& dx) {
  const int64_t n = x.size(-1);
  for_cpu_float("rms_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(r.numel(), grain(n), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* px = x.data<T>() + row * n;
        const T* pdy = dy.data<T>() + row * n;
        T* pdx = dx.data<T>() + row * n;
        const T s = r.data<T>()[row];
        T sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += pdy[i] * px[i] * s;
        const T mean = sum / T(n);
        for (int64_t i = 0; i < n; ++i) pdx[i] = s * (pdy[i] - px[i] * s * mean);
      }
    });
  });
}

}  // namespace cpu
}  // namespace

Variable rms_norm(const Variable& x, double eps) {
  require(x.shape().rank() >= 1, "rms_norm: input is {}, expected [.., C]", x.value().str());
  const int64_t n = x.shape()[-1], rows = n == 0 ? 0 : x.value().numel() / n;
  Tensor y = Tensor::empty_like(x.value());
  Tensor r = Tensor::empty({rows}, x.dtype() == DType::bf16 ? DType::f32 : x.dtype(), x.device());
  run(x.device(), cpu::rms_norm_forward, cuda::rms_norm_forward, x.value(), eps, y, r);
  return record("rms_norm", y, {x}, [x = x.value(), r](Grads& g) {
    Tensor dx = g.write(0);
    run(x.device(), cpu::rms_norm_backward, cuda::rms_norm_backward, g.out(), x, r, dx);
  });
}

}  // namespace modrwkv
