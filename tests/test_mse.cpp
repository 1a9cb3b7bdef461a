#include <cmath>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "ops/mse.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

Tensor mask_of(const std::vector<Variable>& v) { return v.size() > 2 ? v[2].value() : Tensor(); }
std::vector<Variable> square(const std::vector<Variable>& v) { return {mse(v[0], v[1].value(), mask_of(v))}; }
std::vector<Variable> absolute(const std::vector<Variable>& v) { return {mae(v[0], v[1].value(), mask_of(v))}; }
const CudaTest kTarget{.fixed = {1}}, kWideTarget{.fixed = {1}, .wide = {1}};

Tensor every_third(int64_t n) {
  Tensor mask = Tensor::zeros({n}, DType::u8);
  for (int64_t i = 0; i < n; i += 3) mask.data<uint8_t>()[i] = 1;
  return mask;
}

std::vector<Device> devices() {
  std::vector<Device> all = {kCpu};
  if (cuda::available()) all.push_back({DeviceType::cuda, 0});
  return all;
}

double loss_of(const Variable& v) { return double(v.value().to_vector<float>()[0]); }

}  // namespace

TEST(Mse, EqualsPyTorch) {
  expect_golden("losses", "mse", square);
  expect_golden("losses", "mae", absolute);
  expect_golden("losses", "mse_masked", square);
}

TEST(Mse, GradientsEqualFiniteDifferences) {
  const Tensor target = random_tensor({2, 5}, 2), mask = every_third(10).reshape({2, 5});
  const std::vector<Tensor> x = {random_tensor({2, 5}, 1)};
  for (const Tensor& m : {Tensor(), mask}) {
    expect_gradients(
        [&](const std::vector<Variable>& v) -> std::vector<Variable> { return {mse(v[0], target, m)}; }, x);
    expect_gradients(
        [&](const std::vector<Variable>& v) -> std::vector<Variable> { return {mae(v[0], target, m)}; }, x);
  }
}

TEST(Mse, CudaEqualsCpu) {
  for (const int64_t n : {0, 1, 31, 33, 2047, 2049, 5000}) {
    const std::vector<Tensor> x = {random_tensor({n}, 1), random_tensor({n}, 2)};
    for (const CudaTest& types : {kTarget, kWideTarget}) {
      expect_cuda_equals_cpu(square, x, types);
      expect_cuda_equals_cpu(absolute, x, types);
      expect_cuda_equals_cpu(square, {x[0], x[1], every_third(n)}, types);
      expect_cuda_equals_cpu(absolute, {x[0], x[1], every_third(n)}, types);
    }
  }
}

TEST(Mse, MaskedElementsMayBeNanAndOthersStayVisible) {
  const Tensor mask = every_third(9);
  for (const Device device : devices()) {
    for (const auto loss_function : {mse, mae}) {
      Tensor target = Tensor::zeros({9}), prediction = Tensor::full({9}, 2.0);
      for (int64_t i = 0; i < 9; ++i) {
        if (!mask.data<uint8_t>()[i]) target.data<float>()[i] = i % 2 ? NAN : INFINITY;
      }
      prediction.data<float>()[4] = NAN;  // masked too
      Variable x(prediction.to(device), true);
      const Variable loss = loss_function(x, target.to(device), mask.to(device));
      EXPECT_EQ(loss_of(loss), loss_function == mse ? 4.0 : 2.0);
      backward(loss);
      const std::vector<float> g = x.grad().to_vector<float>();
      for (size_t i = 0; i < 9; ++i)
        EXPECT_NEAR(double(g[i]), i % 3 ? 0.0 : loss_function == mse ? 4.0 / 3 : 1.0 / 3, 1e-6);
      target.data<float>()[3] = NAN;
      Variable y(prediction.to(device), true);
      const Variable bad = loss_function(y, target.to(device), mask.to(device));
      EXPECT_TRUE(std::isnan(loss_of(bad)));
      backward(bad);
      EXPECT_TRUE(std::isnan(y.grad().to_vector<float>()[3]));
    }
  }
}

TEST(Mse, SlopeOfAnExactPredictionIsZero) {
  for (const Device device : devices()) {
    Variable x(Tensor::from<float>({1, 2, 3}, {3}).to(device), true);
    backward(mae(x, Tensor::from<float>({1, 3, 2}, {3}).to(device)));
    const std::vector<float> g = x.grad().to_vector<float>();
    EXPECT_EQ(g[0], 0.0f);
    EXPECT_LT(g[1], 0.0f);
    EXPECT_GT(g[2], 0.0f);
  }
}

TEST(Mse, WithNothingCountedIsZero) {
  for (const Device device : devices()) {
    Variable x(random_tensor({4}, 1).to(DType::f32).to(device), true);
    const Variable loss = mse(x, Tensor::full({4}, NAN).to(device), Tensor::zeros({4}, DType::u8).to(device));
    EXPECT_EQ(loss_of(loss), 0.0);
    backward(loss);
    for (const float g : x.grad().to_vector<float>()) EXPECT_EQ(g, 0.0f);
  }
}

TEST(Mse, DoesNotDependOnTheThreadCount) {
  const int before = threads();
  std::vector<double> losses;
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    losses.push_back(loss_of(
        mse(Variable(random_tensor({100003}, 1).to(DType::f32)), random_tensor({100003}, 2).to(DType::f32))));
  }
  set_threads(before);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
}

TEST(Mse, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3}));
  expect_error(
      [&] {
        mse(x, Tensor::zeros({3, 2}));
      },
      "mse: prediction is f32 [2, 3] on cpu, target is f32 [3, 2] on cpu");
  expect_error([&] { mse(x, Tensor::zeros({2, 3}, DType::f64)); }, "target is f64 [2, 3] on cpu");
  expect_error([&] { mse(x, Tensor()); }, "target is undefined");
  expect_error(
      [&] {
        mae(x, Tensor::zeros({2, 3}), Tensor::zeros({2, 3}));
      },
      "mae: mask is f32 [2, 3] on cpu, expected u8 [2, 3] on cpu");
}
