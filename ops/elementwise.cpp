// add, mul, scale, reshape: checks, CPU loops and the tape.
#include "ops/elementwise.h"

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

constexpr int64_t kGrain = 1 << 15;

void check_same(const char* op, const Variable& a, const Variable& b) {
  require(a.shape() == b.shape() && a.dtype() == b.dtype() && a.device() == b.device(),
          "{}: first input is {}, second is {}; shape, type and device must agree", op, a.value().str(),
          b.value().str());
}

namespace cpu {

template <class F>
void map2(const char* op, const Tensor& a, const Tensor& b, Tensor& y, F f) {
  for_cpu_float(op, y.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* pa = a.data<T>();
    const T* pb = b.data<T>();
    T* py = y.data<T>();
    parallel_for(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) py[i] = f(pa[i], pb[i]);
    });
  });
}

void add(const Tensor& a, const Tensor& b, Tensor& y) {
  map2("add", a, b, y, [](auto u, auto v) { return u + v; });
}

void mul(const Tensor& a, const Tensor& b, Tensor& y) {
  map2("mul", a, b, y, [](auto u, auto v) { return u * v; });
}

void scale(const Tensor& x, double factor, Tensor& y) {
  map2("scale", x, x, y, [factor](auto u, auto) { return decltype(u)(factor) * u; });
}

}  // namespace cpu
}  // namespace

Variable add(const Variable& a, const Variable& b) {
  check_same("add", a, b);
  Tensor y = Tensor::empty_like(a.value());
  run(a.device(), cpu::add, cuda::add, a.value(), b.value(), y);
  return record("add", y, {a, b}, [](Grads& g) {
    g.give(0, g.out());
    g.give(1, g.out());
  });
}

Variable mul(const Variable& a, const Variable& b) {
  check_same("mul", a, b);
  Tensor y = Tensor::empty_like(a.value());
  run(a.device(), cpu::mul, cuda::mul, a.value(), b.value(), y);
  return record("mul", y, {a, b}, [a = a.value(), b = b.value()](Grads& g) {
    for (int i = 0; i < 2; ++i) {
      if (!g.wants(i)) continue;
      Tensor dx = g.write(i);
      run(a.device(), cpu::mul, cuda::mul, g.out(), i == 0 ? b : a, dx);
    }
  });
}

Variable scale(const Variable& x, double factor) {
  Tensor y = Tensor::empty_like(x.value());
  run(x.device(), cpu::scale, cuda::scale, x.value(), factor, y);
  return record("scale", y, {x}, [factor](Grads& g) {
    Tensor dx = g.write(0);
    run(dx.device(), cpu::scale, cuda::scale, g.out(), factor, dx);
  });
}

Variable reshape(const Variable& x, const Shape& shape) {
  return record("reshape", x.value().reshape(shape), {x},
                [before = x.shape()](Grads& g) { g.give(0, g.out().reshape(before)); });
}

}  // namespace modrwkv
