#include "ops/mse.h"

#include <cmath>

#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> square(const std::vector<Variable>& v) { return {mse(v[0], v[1].value(), v.size() > 2 ? v[2].value() : Tensor())}; }
std::vector<Variable> absolute(const std::vector<Variable>& v) { return {mae(v[0], v[1].value(), v.size() > 2 ? v[2].value() : Tensor())}; }
const CudaTest kTarget{.fixed = {1}};

Tensor alternating(int64_t n) {
  Tensor mask = Tensor::zeros({n}, DType::u8);
  for (int64_t i = 0; i < n; i += 3) mask.data<uint8_t>()[i] = 1;
  return mask;
}

}  // namespace

TEST(Mse, EqualsPyTorch) {
  expect_golden("losses", "mse", square);
  expect_golden("losses", "mae", absolute);
  expect_golden("losses", "mse_masked", square);
}

TEST(Mse, GradientsEqualFiniteDifferences) {
  const Tensor target = random_tensor({2, 5}, 2);
  expect_gradients([&](const std::vector<Variable>& v) -> std::vector<Variable> { return {mse(v[0], target)}; }, {random_tensor({2, 5}, 1)});
  expect_gradients([&](const std::vector<Variable>& v) -> std::vector<Variable> { return {mae(v[0], target)}; }, {random_tensor({2, 5}, 1)});
}

TEST(Mse, CudaEqualsCpu) {
  for (const int64_t n : {0, 1, 31, 33, 2047, 2049, 5000}) {
    const std::vector<Tensor> x = {random_tensor({n}, 1), random_tensor({n}, 2)};
    expect_cuda_equals_cpu(square, x, kTarget);
    expect_cuda_equals_cpu(absolute, x, kTarget);
    expect_cuda_equals_cpu(square, {x[0], x[1], alternating(n)}, kTarget);
  }
}

TEST(Mse, MaskedTargetsMayBeNan) {
  Tensor target = random_tensor({9}, 2);
  const Tensor mask = alternating(9);
  for (int64_t i = 0; i < 9; ++i) {
    if (!mask.data<uint8_t>()[i]) target.data<double>()[i] = NAN;
  }
  Variable x(random_tensor({9}, 1), true);
  const Variable loss = mse(x, target, mask);
  EXPECT_TRUE(std::isfinite(loss.value().to_vector<double>()[0]));
  backward(loss);
  for (const double g : x.grad().to_vector<double>()) EXPECT_TRUE(std::isfinite(g));
}

TEST(Mse, WithNothingCountedIsZero) {
  Variable x(random_tensor({4}, 1), true);
  const Variable loss = mse(x, random_tensor({4}, 2), Tensor::zeros({4}, DType::u8));
  EXPECT_EQ(loss.value().to_vector<double>()[0], 0.0);
  backward(loss);
  for (const double g : x.grad().to_vector<double>()) EXPECT_EQ(g, 0.0);
}

TEST(Mse, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3}));
  expect_error([&] { mse(x, Tensor::zeros({3, 2})); }, "mse: prediction is f32 [2, 3] on cpu, target is f32 [3, 2]");
  expect_error([&] { mae(x, Tensor::zeros({2, 3}), Tensor::zeros({2, 3})); }, "mae: mask is f32 [2, 3]");
}
