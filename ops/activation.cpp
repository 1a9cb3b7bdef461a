// Activations: checks, CPU loops and the tape.
#include "ops/activation.h"

#include <cmath>

#include "core/error.h"
#include "core/parallel.h"
#include "core/vmath.h"

namespace modrwkv {
namespace {

constexpr int64_t kGrain = 1 << 13;  // an element costs about as much as four plain additions

const char* name(Activation kind) {
  switch (kind) {
    case Activation::relu:
      return "relu";
    case Activation::relu_squared:
      return "relu_squared";
    case Activation::sigmoid:
      return "sigmoid";
    case Activation::tanh:
      return "tanh";
    case Activation::silu:
      return "silu";
  }
  return "activation";
}

bool saves_input(Activation kind) { return kind == Activation::silu; }

namespace cpu {

// y[i] = f(a[i], b[i])
template <class T, class F>
void loop(const Tensor& a, const Tensor& b, Tensor& y, F f) {
  const T* pa = a.data<T>();
  const T* pb = b.data<T>();
  T* py = y.data<T>();
  parallel_for(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) py[i] = f(pa[i], pb[i]);
  });
}

// Comparisons are spelled so that NaN takes the branch that keeps it.
void activation_forward(Activation kind, const Tensor& x, Tensor& y) {
  for_cpu_float(name(kind), x.dtype(), [&](auto t) {
    using T = decltype(t);
    switch (kind) {
      case Activation::relu:
        return loop<T>(x, x, y, [](T u, T) { return u < 0 ? T(0) : u; });
      case Activation::relu_squared:
        return loop<T>(x, x, y, [](T u, T) { return u < 0 ? T(0) : u * u; });
      case Activation::sigmoid:
        return loop<T>(x, x, y, [](T u, T) { return vmath::sigmoid(u); });
      case Activation::tanh:
        return loop<T>(x, x, y, [](T u, T) { return vmath::tanh(u); });
      case Activation::silu:
        return loop<T>(x, x, y, [](T u, T) { return u * vmath::sigmoid(u); });
    }
  });
}

void activation_backward(Activation kind, const Tensor& dy, const Tensor& saved, Tensor& dx) {
  for_cpu_float(name(kind), dy.dtype(), [&](auto t) {
    using T = decltype(t);
    switch (kind) {
      case Activation::relu:
        return loop<T>(dy, saved, dx, [](T g, T y) { return y <= 0 ? T(0) : g; });
      case Activation::relu_squared:
        return loop<T>(dy, saved, dx, [](T g, T y) { return 2 * std::sqrt(y) * g; });
      case Activation::sigmoid:
        return loop<T>(dy, saved, dx, [](T g, T y) { return g * y * (1 - y); });
      case Activation::tanh:
        return loop<T>(dy, saved, dx, [](T g, T y) { return g * (1 - y * y); });
      case Activation::silu:
        return loop<T>(dy, saved, dx, [](T g, T x) {
          const T s = vmath::sigmoid(x);
          return g * s * (1 + x * (1 - s));
        });
    }
  });
}

void gated_tanh_forward(const Tensor& filter, const Tensor& gate, Tensor& y) {
  for_cpu_float("gated_tanh", y.dtype(), [&](auto t) {
    using T = decltype(t);
    loop<T>(filter, gate, y, [](T f, T g) { return vmath::tanh(f) * vmath::sigmoid(g); });
  });
}

void gated_tanh_backward(const Tensor& dy, const Tensor& filter, const Tensor& gate, Tensor& dfilter,
                         Tensor& dgate) {
  for_cpu_float("gated_tanh", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* g = dy.data<T>();
    const T* f = filter.data<T>();
    const T* s = gate.data<T>();
    T* df = dfilter.defined() ? dfilter.data<T>() : nullptr;
    T* ds = dgate.defined() ? dgate.data<T>() : nullptr;
    parallel_for(dy.numel(), kGrain, [&](int64_t begin, int64_t end) {
      if (df != nullptr && ds != nullptr) {
        for (int64_t i = begin; i < end; ++i) {
          const T u = vmath::tanh(f[i]), v = vmath::sigmoid(s[i]);
          df[i] = g[i] * v * (1 - u * u);
          ds[i] = g[i] * u * v * (1 - v);
        }
        return;
      }
      for (int64_t i = begin; i < end; ++i) {
        const T u = vmath::tanh(f[i]), v = vmath::sigmoid(s[i]);
        if (df != nullptr) df[i] = g[i] * v * (1 - u * u);
        if (ds != nullptr) ds[i] = g[i] * u * v * (1 - v);
      }
    });
  });
}

}  // namespace cpu

Variable activate(Activation kind, const Variable& x) {
  Tensor y = Tensor::empty_like(x.value());
  run(x.device(), cpu::activation_forward, cuda::activation_forward, kind, x.value(), y);
  return record(name(kind), y, {x}, [kind, saved = saves_input(kind) ? x.value() : y](Grads& g) {
    Tensor dx = g.write(0);
    run(dx.device(), cpu::activation_backward, cuda::activation_backward, kind, g.out(), saved, dx);
  });
}

}  // namespace

Variable relu(const Variable& x) { return activate(Activation::relu, x); }
Variable relu_squared(const Variable& x) { return activate(Activation::relu_squared, x); }
Variable sigmoid(const Variable& x) { return activate(Activation::sigmoid, x); }
Variable tanh(const Variable& x) { return activate(Activation::tanh, x); }
Variable silu(const Variable& x) { return activate(Activation::silu, x); }

Variable gated_tanh(const Variable& filter, const Variable& gate) {
  require(filter.shape() == gate.shape() && filter.dtype() == gate.dtype() && filter.device() == gate.device(),
          "gated_tanh: filter is {}, gate is {}; shape, type and device must agree", filter.value().str(),
          gate.value().str());
  Tensor y = Tensor::empty_like(filter.value());
  run(y.device(), cpu::gated_tanh_forward, cuda::gated_tanh_forward, filter.value(), gate.value(), y);
  return record("gated_tanh", y, {filter, gate}, [filter = filter.value(), gate = gate.value()](Grads& g) {
    Tensor dfilter = g.wants(0) ? g.write(0) : Tensor(), dgate = g.wants(1) ? g.write(1) : Tensor();
    run(filter.device(), cpu::gated_tanh_backward, cuda::gated_tanh_backward, g.out(), filter, gate, dfilter,
        dgate);
  });
}

}  // namespace modrwkv
