#include <cmath>

#include "ops/instance_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> norm(const std::vector<Variable>& v) {
  const InstanceNorm n = instance_norm(v[0]);
  return {n.y, n.mean, n.std};
}
std::vector<Variable> only_y(const std::vector<Variable>& v) { return {instance_norm(v[0]).y}; }
std::vector<Variable> only_mean(const std::vector<Variable>& v) { return {instance_norm(v[0]).mean}; }
std::vector<Variable> only_std(const std::vector<Variable>& v) { return {instance_norm(v[0]).std}; }
std::vector<Variable> back(const std::vector<Variable>& v) { return {denormalise(v[0], v[1], v[2])}; }
std::vector<Variable> with(const std::vector<Variable>& v) { return {normalise_with(v[0], v[1], v[2])}; }

// As the forecaster uses them: statistics of v[0], a forecast v[1] in its units, a target v[2].
std::vector<Variable> window(const std::vector<Variable>& v) {
  const InstanceNorm n = instance_norm(v[0]);
  return {denormalise(v[1], n.mean, n.std), normalise_with(v[2], n.mean.detach(), n.std.detach())};
}

Tensor positive(const Shape& shape, uint64_t seed) {
  Tensor t = random_tensor(shape, seed);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<double>()[i] = 1.5 + t.data<double>()[i];
  return t;
}

}  // namespace

TEST(InstanceNorm, EqualsPyTorch) {
  expect_golden("instance_norm", "norm", norm);
  expect_golden("instance_norm", "only_y", only_y);
  expect_golden("instance_norm", "denormalise", back);
  expect_golden("instance_norm", "normalise_with", with);
}

TEST(InstanceNorm, GradientsEqualFiniteDifferences) {
  for (const VariableFunction& fn : {VariableFunction(norm), VariableFunction(only_y),
                                     VariableFunction(only_mean), VariableFunction(only_std)}) {
    expect_gradients(fn, {random_tensor({3, 7}, 1)});
  }
  expect_gradients(back, {random_tensor({3, 5}, 1), random_tensor({3}, 2), positive({3}, 3)});
  expect_gradients([](const std::vector<Variable>& v) { return std::vector<Variable>{window(v)[0]}; },
                   {random_tensor({3, 7}, 1), random_tensor({3, 5}, 2), random_tensor({3, 5}, 3)});
  const Variable mean(random_tensor({3}, 2)), std(positive({3}, 3));
  expect_gradients(
      [&](const std::vector<Variable>& v) { return std::vector<Variable>{normalise_with(v[0], mean, std)}; },
      {random_tensor({3, 5}, 3)});
}

TEST(InstanceNorm, CudaEqualsCpu) {
  for (const int64_t L : {3, 31, 32, 33, 1025}) {
    const Tensor x = random_tensor({5, L}, uint64_t(L));
    for (const VariableFunction& fn : {VariableFunction(norm), VariableFunction(only_y),
                                       VariableFunction(only_mean), VariableFunction(only_std)}) {
      expect_cuda_equals_cpu(fn, {x});
    }
    expect_cuda_equals_cpu(window, {x, random_tensor({5, L}, 2), random_tensor({5, L}, 3)});
    const std::vector<Tensor> v = {x, random_tensor({5}, 2), positive({5}, 3)};
    expect_cuda_equals_cpu(back, v, {.wide = {1, 2}});
    expect_cuda_equals_cpu(with, v, {.fixed = {1, 2}, .wide = {1, 2}});
    for (size_t i = 0; i < 3; ++i) expect_cuda_equals_cpu(back, v, {.fixed = {i}, .wide = {1, 2}});
  }
  // The gradient of a row of one or two values is zero but for the eps: only the forward can be compared.
  expect_cuda_equals_cpu(norm, {random_tensor({5, 1}, 1)}, {.fixed = {0}});
  expect_cuda_equals_cpu(norm, {random_tensor({5, 2}, 1)}, {.fixed = {0}});
}

TEST(InstanceNorm, AcceptsNoRowsAndNoHorizon) {
  expect_cuda_equals_cpu(norm, {random_tensor({0, 8}, 1)});
  expect_cuda_equals_cpu(window,
                         {random_tensor({0, 8}, 1), random_tensor({0, 3}, 2), random_tensor({0, 3}, 3)});
  expect_cuda_equals_cpu(window,
                         {random_tensor({2, 8}, 1), random_tensor({2, 0}, 2), random_tensor({2, 0}, 3)});
}

TEST(InstanceNorm, RowsHaveMeanZeroAndVarianceOne) {
  const Tensor y = instance_norm(Variable(random_tensor({4, 336}, 1, 10))).y.value();
  for (int64_t r = 0; r < 4; ++r) {
    double sum = 0, square = 0;
    for (int64_t i = 0; i < 336; ++i) {
      const double v = y.data<double>()[r * 336 + i];
      sum += v;
      square += v * v;
    }
    EXPECT_NEAR(sum / 336, 0, 1e-13);
    EXPECT_NEAR(square / 336, 1, 1e-5);  // the 1e-5 inside the root
  }
}

TEST(InstanceNorm, DenormaliseInvertsIt) {
  const Variable x(random_tensor({3, 50}, 1, 7));
  const InstanceNorm n = instance_norm(x);
  EXPECT_LE(relative_error(denormalise(n.y, n.mean, n.std).value(), x.value()), 1e-15);
  EXPECT_LE(relative_error(normalise_with(x, n.mean, n.std).value(), n.y.value()), 1e-15);
}

TEST(InstanceNorm, AConstantRowBecomesZero) {
  const InstanceNorm n = instance_norm(Variable(Tensor::full({2, 64}, 3)));
  for (const float v : n.y.value().to_vector<float>()) EXPECT_EQ(v, 0);
  for (const float v : n.std.value().to_vector<float>()) EXPECT_NEAR(v, std::sqrt(1e-5), 1e-9);
  const InstanceNorm one = instance_norm(Variable(Tensor::full({2, 1}, 5)));
  EXPECT_EQ(one.mean.value().to_vector<float>()[1], 5);
}

TEST(InstanceNorm, StatisticsOfBf16AreF32) {
  const Tensor x = random_tensor({2, 3}, 1).to(DType::f32).to(DType::bf16);
  expect_error(
      [&] {
        normalise_with(Variable(x), Variable(Tensor::zeros({2}, DType::f64)), Variable(Tensor::zeros({2})));
      },
      "mean is f64 [2] on cpu, expected f32 [2]");
  expect_error([&] { instance_norm(Variable(x)); },
               "instance_norm: element type is bf16, expected f32 or f64 on the CPU");
}

TEST(InstanceNorm, RefusesWrongInputsByName) {
  const Variable y(Tensor::zeros({2, 6})), m(Tensor::zeros({2})), three(Tensor::zeros({3}));
  expect_error([&] { instance_norm(m); }, "instance_norm: input is f32 [2] on cpu, expected [B, L]");
  expect_error([&] { instance_norm(Variable(Tensor::zeros({2, 0}))); }, "instance_norm: input is f32 [2, 0]");
  expect_error([&] { denormalise(y, three, m); },
               "denormalise: input is f32 [2, 6] on cpu, mean is f32 [3] on cpu");
  expect_error([&] { normalise_with(y, m, three); },
               "normalise_with: input is f32 [2, 6] on cpu, std is f32 [3] on cpu");
  expect_error([&] { denormalise(m, m, m); }, "denormalise: input is f32 [2] on cpu, expected [B, H]");
  expect_error(
      [&] {
        instance_norm(Variable(Tensor::zeros({2, 6}, DType::i32)));
      },
      "instance_norm: element type is i32");
}
