#include <cmath>
#include <map>

#include "autograd/variable.h"
#include "core/error.h"
#include "core/memory.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

// Small ops of the tests' own, so that the engine is tested without the real ones.
Variable times(const Variable& x, double factor) {
  Tensor y = Tensor::empty_like(x.value());
  for (int64_t i = 0; i < y.numel(); ++i) y.data<double>()[i] = factor * x.value().data<double>()[i];
  return record("times", y, {x}, [factor](Grads& g) {
    const Tensor dy = g.out();
    Tensor dx = g.write(0);
    for (int64_t i = 0; i < dx.numel(); ++i) dx.data<double>()[i] = factor * dy.data<double>()[i];
  });
}

Variable plus(const Variable& a, const Variable& b) {
  Tensor y = a.value().clone();
  y.add(b.value());
  return record("plus", y, {a, b}, [](Grads& g) {
    g.give(0, g.out());
    g.give(1, g.out());
  });
}

Variable product(const Variable& a, const Variable& b) {
  Tensor y = Tensor::empty_like(a.value());
  const auto multiply = [](const Tensor& u, const Tensor& v, Tensor& w) {
    for (int64_t i = 0; i < w.numel(); ++i) w.data<double>()[i] = u.data<double>()[i] * v.data<double>()[i];
  };
  multiply(a.value(), b.value(), y);
  return record("product", y, {a, b}, [multiply, a = a.value(), b = b.value()](Grads& g) {
    for (int i = 0; i < 2; ++i) {
      if (!g.wants(i)) continue;
      Tensor d = g.write(i);
      multiply(g.out(), i == 0 ? b : a, d);
    }
  });
}

// (2x, 3x): two outputs
std::vector<Variable> pair_of(const Variable& x) {
  const Tensor a = times(x.detach(), 2).value(), b = times(x.detach(), 3).value();
  return record("pair", {a, b}, {x}, [](Grads& g) {
    Tensor d = g.write(0);
    for (int64_t i = 0; i < d.numel(); ++i) {
      d.data<double>()[i] = 2 * g.out(0).data<double>()[i] + 3 * g.out(1).data<double>()[i];
    }
  });
}

Variable leaf(double value) { return Variable(Tensor::full({1}, value, DType::f64), true); }
double item(const Tensor& t) { return t.to_vector<double>()[0]; }

}  // namespace

TEST(Autograd, AddsUpGradientsOfSeveralUses) {
  Variable x = leaf(3);
  const Variable y = plus(product(x, x), plus(times(x, 5), x));  // x^2 + 6x
  backward(y);
  EXPECT_EQ(item(x.grad()), 12);
  backward(plus(x, x));  // on top of what is there
  EXPECT_EQ(item(x.grad()), 14);
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, AliasedGradientsAreNotWrittenTwice) {
  // plus() hands its own gradient to both inputs; adding to one must not change the other.
  Variable a = leaf(1), b = leaf(2);
  const Variable s = plus(a, b);
  backward(plus(plus(s, times(a, 10)), s));
  EXPECT_EQ(item(a.grad()), 12);
  EXPECT_EQ(item(b.grad()), 2);
}

TEST(Autograd, SeveralOutputs) {
  Variable x = leaf(1);
  const std::vector<Variable> p = pair_of(x);
  backward(p[1]);  // nothing arrives at the first output
  EXPECT_EQ(item(x.grad()), 3);
  Variable z = leaf(1);
  const std::vector<Variable> q = pair_of(z);
  backward({q[0], q[1]}, {Tensor::full({1}, 10, DType::f64), Tensor::full({1}, 100, DType::f64)});
  EXPECT_EQ(item(z.grad()), 320);
}

TEST(Autograd, AMillionNodesOverflowNoStack) {
  Variable x = leaf(1);
  {
    Variable y = x;
    for (int i = 0; i < 1000000; ++i) y = times(y, i % 2 ? 2.0 : 0.5);
    backward(y);
    EXPECT_EQ(item(x.grad()), 1);
  }
  Variable z = leaf(1);  // destruction without backward
  for (int i = 0; i < 1000000; ++i) z = times(z, 1.0);
  z = Variable();
}

TEST(Autograd, NoGradAndDetachCutTheHistory) {
  Variable x = leaf(2);
  {
    const NoGrad scope;
    EXPECT_FALSE(times(x, 3).requires_grad());
  }
  const Variable y = product(times(x, 3).detach(), x);
  backward(y);
  EXPECT_EQ(item(x.grad()), 6);
  EXPECT_TRUE(times(x, 1).requires_grad());
}

TEST(Autograd, AGraphUsedTwiceNeedsRetain) {
  Variable x = leaf(2);
  const Variable y = product(x, x);
  backward(y, true);
  backward(y);
  EXPECT_EQ(item(x.grad()), 8);
  expect_error([&] { backward(y); }, "the graph of product was freed by an earlier backward");
}

TEST(Autograd, BackwardFreesSavedTensors) {
  Variable x(Tensor::full({100000}, 1, DType::f64), true);
  const int64_t before = memory_use(DeviceType::cpu).current;
  Variable y = product(x, x);
  for (int i = 0; i < 20; ++i) y = product(y, x);
  backward({y}, {Tensor::full({100000}, 1, DType::f64)});
  x.zero_grad();
  EXPECT_LE(memory_use(DeviceType::cpu).current - before,
            2 * 800000);  // y itself, and one gradient that it keeps alive
}

TEST(Autograd, RefusesWhatHasNoGradient) {
  expect_error([] { backward(Variable(Tensor::full({1}, 1, DType::f64))); }, "does not depend on anything");
  Variable x(Tensor::full({2}, 1, DType::f64), true);
  expect_error([&] { backward(times(x, 2)); }, "a gradient must be given");
  expect_error([&] { backward({times(x, 2)}, {Tensor::full({3}, 1, DType::f64)}); }, "its gradient f64 [3]");
}

TEST(Autograd, GradientBuffersAreWrittenInPlace) {
  Variable x = leaf(3);
  Tensor buffer = Tensor::full({1}, 777, DType::f64);  // old content does not count
  x.set_grad_buffer(buffer);
  backward(plus(product(x, x), times(x, 1)));
  EXPECT_EQ(item(buffer), 7);
  backward(times(x, 2));
  EXPECT_EQ(item(buffer), 9);
  x.zero_grad();
  backward(times(x, 4));
  EXPECT_EQ(item(buffer), 4);
}

TEST(Autograd, HooksFireOnceWhenAGradientIsComplete) {
  Variable x = leaf(3), unused = leaf(1);
  int calls = 0;
  double seen = 0;
  x.on_grad_ready([&] {
    ++calls;
    seen = item(x.grad());
  });
  unused.on_grad_ready([&] { calls += 100; });
  backward(plus(product(x, x), plus(times(x, 5), x)));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(seen, 12);
}

TEST(Checkpoint, GivesTheSameGradientsAndShowsParametersOnce) {
  for (const bool buffers : {false, true}) {
    Variable x = leaf(3), w = leaf(5);
    if (buffers) w.set_grad_buffer(Tensor::full({1}, 777, DType::f64));
    int hook_calls = 0, runs = 0;
    w.on_grad_ready([&] { ++hook_calls; });
    const auto block = [&](const std::vector<Variable>& in) -> std::vector<Variable> {
      ++runs;
      return {plus(product(product(in[0], w), w), in[0])};  // x w^2 + x
    };
    const Variable y = checkpoint(block, {times(x, 2)}, {w})[0];
    backward(plus(y, times(w, 10)));
    EXPECT_EQ(runs, 2);
    EXPECT_EQ(hook_calls, 1);
    EXPECT_EQ(item(x.grad()), 2 * 26);
    EXPECT_EQ(item(w.grad()), 2 * 6 * 5 + 10);
  }
}

TEST(Checkpoint, KeepsNoIntermediates) {
  Variable x(Tensor::full({100000}, 1, DType::f64), true);
  const int64_t before = memory_use(DeviceType::cpu).current;
  const auto deep = [](const std::vector<Variable>& in) -> std::vector<Variable> {
    Variable y = in[0];
    for (int i = 0; i < 10; ++i) y = product(y, in[0]);
    return {y};
  };
  const std::vector<Variable> y = checkpoint(deep, {x}, {});
  EXPECT_LE(memory_use(DeviceType::cpu).current - before, 800000);
  backward(y, {Tensor::full({100000}, 1, DType::f64)});
  EXPECT_EQ(item(x.grad().slice(0, 1)), 11);
}

TEST(GradCheck, FindsAWrongGradient) {
  const auto right = [](const std::vector<Variable>& v) -> std::vector<Variable> {
    return {product(v[0], v[1])};
  };
  const auto wrong = [](const std::vector<Variable>& v) -> std::vector<Variable> {
    return {record("wrong", product(v[0].detach(), v[1].detach()).value(), {v[0], v[1]}, [](Grads& g) {
      g.give(0, g.out());
      g.give(1, g.out());
    })};
  };
  const std::vector<Variable> in = {Variable(random_tensor({4}, 1), true),
                                    Variable(random_tensor({4}, 2), true)};
  EXPECT_TRUE(gradcheck(right, in).ok);
  EXPECT_FALSE(gradcheck(wrong, in).ok);
}
