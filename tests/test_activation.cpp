#include <cmath>
#include <limits>

#include "core/cuda/runtime.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

using Unary = Variable (*)(const Variable&);

struct Case {
  const char* name;
  Unary op;
};
const std::vector<Case> kUnary = {{"relu", relu},
                                  {"relu_squared", relu_squared},
                                  {"sigmoid", sigmoid},
                                  {"tanh", modrwkv::tanh},
                                  {"silu", silu}};

VariableFunction of(Unary op) {
  return [op](const std::vector<Variable>& v) -> std::vector<Variable> { return {op(v[0])}; };
}
std::vector<Variable> gated(const std::vector<Variable>& v) { return {gated_tanh(v[0], v[1])}; }

// A copy one element behind a 16-byte boundary.
Tensor unaligned(const Tensor& t) {
  Tensor view =
      Tensor::empty({t.numel() + 1}, t.dtype(), t.device()).slice(1, t.numel() + 1).reshape(t.shape());
  view.copy_from(t);
  return view;
}

}  // namespace

TEST(Activation, EqualsPyTorch) {
  for (const Case& c : kUnary) expect_golden("activation", c.name, of(c.op));
  expect_golden("activation", "gated_tanh", gated);
}

TEST(Activation, GradientsEqualFiniteDifferences) {
  for (const Case& c : kUnary) {
    SCOPED_TRACE(c.name);
    expect_gradients(of(c.op), {random_tensor({3, 7}, 1, 3)});
  }
  expect_gradients(gated, {random_tensor({3, 7}, 1, 2), random_tensor({3, 7}, 2, 2)});
}

TEST(Activation, CudaEqualsCpu) {
  for (const int64_t n : {0, 1, 31, 33, 1023, 1025}) {
    const Tensor x = random_tensor({n}, 1, 2), gate = random_tensor({n}, 2, 2);
    for (const Case& c : kUnary) {
      SCOPED_TRACE(std::string(c.name) + " " + std::to_string(n));
      // The derivative is computed from the rounded y: near 1 the rounding of y is several of that of 1 - y.
      const bool saturates = c.op == sigmoid || c.op == modrwkv::tanh;
      expect_cuda_equals_cpu(of(c.op), {x}, {.roundings = saturates ? 2.0 : 1.0});
    }
    expect_cuda_equals_cpu(gated, {x, gate});
    expect_cuda_equals_cpu(gated, {x, gate}, {.fixed = {0}});
    expect_cuda_equals_cpu(gated, {x, gate}, {.fixed = {1}});
  }
}

TEST(Activation, UnalignedInputsTakeTheScalarPath) {
  const Tensor x = random_tensor({70}, 1, 2), gate = random_tensor({70}, 2, 2);
  for (const Case& c : kUnary) {
    SCOPED_TRACE(c.name);
    expect_cuda_equals_cpu(of(c.op), {x}, {.unaligned = true, .roundings = 2});
  }
  expect_cuda_equals_cpu(gated, {x, gate}, {.unaligned = true});
}

TEST(Activation, UnalignedTensorsGiveTheSame) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  for (const DType type : {DType::f32, DType::bf16}) {
    const auto run = [&](uint64_t odd) {
      const auto make = [&](uint64_t seed) {
        const Tensor t = random_tensor({70}, seed).to(type).to(Device{DeviceType::cuda, 0});
        return seed == odd ? unaligned(t) : t;
      };
      const Variable filter(make(1), true), gate(make(2), true);
      const Variable y = gated_tanh(filter, gate);
      backward({y}, {make(3)});
      return std::vector<Tensor>{y.value(), filter.grad(), gate.grad(), silu(filter).value()};
    };
    const std::vector<Tensor> even = run(0);
    for (const uint64_t which : {1, 2, 3}) {
      const std::vector<Tensor> odd = run(which);
      for (size_t i = 0; i < even.size(); ++i) EXPECT_EQ(relative_error(odd[i], even[i]), 0) << which << i;
    }
  }
}

TEST(Activation, NanPassesThroughAndInfinitiesKeepTheirMeaning) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const auto compare = [&](const Tensor& x) {
    // expected at NaN, inf, -inf, 200, -200, 0
    const std::vector<std::pair<Unary, std::vector<float>>> expected = {
        {relu, {nan, inf, 0, 200, 0, 0}},
        {relu_squared, {nan, inf, 0, 40000, 0, 0}},
        {sigmoid, {nan, 1, 0, 1, 0, 0.5f}},
        {modrwkv::tanh, {nan, 1, -1, 1, -1, 0}},
        {silu, {nan, inf, nan, 200, 0, 0}}};
    for (const auto& [op, values] : expected) {
      const Variable leaf(x, true);
      const Variable y = op(leaf);
      backward({y}, {Tensor::full(y.shape(), 1, y.dtype(), y.device())});
      const std::vector<float> got = y.value().to(kCpu).to(DType::f32).to_vector<float>();
      const std::vector<float> slope = leaf.grad().to(kCpu).to(DType::f32).to_vector<float>();
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(values[i])) {
          EXPECT_TRUE(std::isnan(got[i])) << i;
        } else {
          EXPECT_EQ(got[i], values[i]) << i;
        }
        EXPECT_TRUE(std::isfinite(slope[i]) || i < 3) << i;
      }
      EXPECT_TRUE(std::isnan(slope[0]) || op == relu);
    }
  };
  const Tensor x = Tensor::from<float>({nan, inf, -inf, 200, -200, 0}, {6});
  compare(x);
  compare(x.to(DType::f64));
  const Tensor many = Tensor::full({40}, nan);  // in the vectorised part of the loops
  for (const Case& c : kUnary) {
    for (const float v : c.op(Variable(many)).value().to_vector<float>()) EXPECT_TRUE(std::isnan(v)) << c.name;
  }
}

TEST(Activation, CudaKeepsNanAndInfinities) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const Device device{DeviceType::cuda, 0};
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor x = Tensor::from<float>({nan, inf, -inf, 200, -200}, {5}).to(type);
    for (const Case& c : kUnary) {
      const std::vector<float> here = c.op(Variable(x.to(DType::f32))).value().to_vector<float>();
      const std::vector<float> there =
          c.op(Variable(x.to(device))).value().to(kCpu).to(DType::f32).to_vector<float>();
      for (size_t i = 0; i < here.size(); ++i) {
        if (std::isnan(here[i])) {
          EXPECT_TRUE(std::isnan(there[i])) << c.name << i;
        } else {
          EXPECT_EQ(Tensor::from<float>({here[i]}, {1}).to(type).to(DType::f32).to_vector<float>()[0], there[i])
              << c.name << i;
        }
      }
    }
  }
}

TEST(Activation, ObeyTheirIdentities) {
  const Variable x(random_tensor({257}, 5, 4)), gate(random_tensor({257}, 6, 4));
  const Tensor s = sigmoid(x).value();
  EXPECT_LE(relative_error(silu(x).value(), mul(x, Variable(s)).value()), 1e-15);
  EXPECT_LE(relative_error(gated_tanh(x, gate).value(), mul(modrwkv::tanh(x), sigmoid(gate)).value()), 1e-15);
  EXPECT_LE(relative_error(relu_squared(x).value(), mul(relu(x), x).value()), 1e-15);
  const Variable twice = sigmoid(scale(x, 2));  // tanh(x) = 2 sigmoid(2 x) - 1
  const Variable minus_one(Tensor::full({257}, -1, DType::f64));
  EXPECT_LE(relative_error(modrwkv::tanh(x).value(), add(scale(twice, 2), minus_one).value()), 1e-14);
  EXPECT_LE(relative_error(add(relu(x), scale(relu(scale(x, -1)), -1)).value(), x.value()),
            0);  // x = relu(x) - relu(-x)
}

TEST(Activation, SingleGradientsOfGatedTanhEqualTheJointOnes) {
  const Tensor f = random_tensor({50}, 1), s = random_tensor({50}, 2);
  const auto run = [&](bool first, bool second) {
    const Variable a(f, first), b(s, second);
    const Variable y = gated_tanh(a, b);
    backward({y}, {Tensor::full({50}, 1, DType::f64)});
    return std::pair{a.grad(), b.grad()};
  };
  const auto both = run(true, true), left = run(true, false), right = run(false, true);
  EXPECT_LE(relative_error(left.first, both.first), 1e-15);
  EXPECT_LE(relative_error(right.second, both.second), 1e-15);
  EXPECT_FALSE(left.second.defined());
  EXPECT_FALSE(right.first.defined());
}

TEST(Activation, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 6})), whole(Tensor::zeros({2}, DType::i32));
  for (const Case& c : kUnary)
    expect_error([&] { c.op(whole); }, std::string(c.name) + ": element type is i32");
  expect_error(
      [&] {
        gated_tanh(x, Variable(Tensor::zeros({6, 2})));
      },
      "gated_tanh: filter is f32 [2, 6] on cpu, gate is f32 [6, 2] on cpu");
  expect_error([&] { gated_tanh(x, Variable(Tensor::zeros({2, 6}, DType::f64))); }, "gate is f64 [2, 6]");
}
