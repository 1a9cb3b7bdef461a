#include <cmath>
#include <limits>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "ops/cross_entropy.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> op(const std::vector<Variable>& v) { return {cross_entropy(v[0], v[1].value())}; }

Tensor labels(const Shape& shape, int64_t V, uint64_t seed) {  // every fourth row does not count
  const Tensor r = random_tensor(shape, seed);
  Tensor t = Tensor::empty(shape, DType::i32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<int32_t>()[i] = i % 4 == 3 ? -100 : int32_t((r.data<double>()[i] * 0.5 + 0.5) * double(V));
  }
  return t;
}

std::vector<Device> devices() {
  std::vector<Device> all = {kCpu};
  if (cuda::available()) all.push_back({DeviceType::cuda, 0});
  return all;
}

}  // namespace

TEST(CrossEntropy, EqualsPyTorch) { expect_golden("losses", "cross_entropy", op); }

TEST(CrossEntropy, GradientsEqualFiniteDifferences) {
  expect_gradients(op, {random_tensor({5, 6}, 1, 3.0), labels({5}, 6, 2)});
  expect_gradients(op, {random_tensor({2, 3, 17}, 3, 3.0), labels({2, 3}, 17, 4)});
  expect_gradients(op, {random_tensor({5}, 5), labels({}, 5, 6)});
}

TEST(CrossEntropy, CudaEqualsCpu) {
  for (const int64_t V : {1, 2, 31, 33, 64, 1023, 1024, 1025, 3000, 5001}) {
    expect_cuda_equals_cpu(op, {random_tensor({6, V}, uint64_t(V), 5.0), labels({6}, V, 3)});
  }
  expect_cuda_equals_cpu(op, {random_tensor({300, 8}, 4), labels({300}, 8, 5)});
  expect_cuda_equals_cpu(
      op, {random_tensor({2049, 3}, 4), labels({2049}, 3, 5)});  // more rows than the last block has threads
  expect_cuda_equals_cpu(op, {random_tensor({2, 3, 40}, 4), labels({2, 3}, 40, 5)});
  expect_cuda_equals_cpu(op, {random_tensor({0, 8}, 4), labels({0}, 8, 5)});
}

TEST(CrossEntropy, UnalignedViewsTakeTheScalarPath) {
  const auto tail = [](const std::vector<Variable>& v) -> std::vector<Variable> {
    return {cross_entropy(Variable(v[0].value().reshape({-1}).slice(1, 49).reshape({2, 24})), v[1].value())};
  };
  expect_cuda_equals_cpu(tail, {random_tensor({7, 7}, 1), labels({2}, 24, 2)});
}

TEST(CrossEntropy, OfEqualLogitsIsTheLogOfTheirNumber) {
  for (const Device device : devices()) {
    for (const double level : {0.0, 1e4, -1e4, 3e38}) {  // huge logits do not overflow
      const Variable x(Tensor::full({3, 10}, level).to(device));
      const Variable loss = cross_entropy(x, labels({3}, 10, 1).to(device));
      EXPECT_NEAR(double(loss.value().to_vector<float>()[0]), std::log(10.0), 1e-6) << level;
    }
  }
}

TEST(CrossEntropy, MaskedClassesDoNotCount) {  // logits of -inf, also at the row's start
  const float inf = std::numeric_limits<float>::infinity();
  for (const Device device : devices()) {
    Variable x(
        Tensor::from<float>({-inf, 1, 1, -inf, -inf, -inf, -inf, -inf, 1, 1, 2, -inf}, {1, 12}).to(device),
        true);
    const Variable loss = cross_entropy(x, Tensor::from<int32_t>({8}, {1}).to(device));
    EXPECT_NEAR(double(loss.value().to_vector<float>()[0]), std::log(4 + std::exp(1.0)), 1e-6);
    backward(loss);
    const std::vector<float> g = x.grad().to_vector<float>();
    EXPECT_EQ(g[0], 0.0f);
    EXPECT_NEAR(double(g[1]), 1 / (4 + std::exp(1.0)), 1e-6);
    EXPECT_NEAR(double(g[8]), 1 / (4 + std::exp(1.0)) - 1, 1e-6);
  }
}

TEST(CrossEntropy, NanLogitsStayVisible) {
  for (const Device device : devices()) {
    for (const int64_t V : {6, 2000}) {
      Tensor x = Tensor::zeros({2, V});
      x.data<float>()[V - 1] = NAN;
      const Variable loss =
          cross_entropy(Variable(x.to(device)), Tensor::from<int32_t>({0, 1}, {2}).to(device));
      EXPECT_TRUE(std::isnan(loss.value().to_vector<float>()[0])) << V;
      Variable ignored(x.to(device), true);  // but not those of rows that do not count
      const Variable fine = cross_entropy(ignored, Tensor::from<int32_t>({-1, 1}, {2}).to(device));
      EXPECT_NEAR(double(fine.value().to_vector<float>()[0]), std::log(double(V)), 1e-5);
      backward(fine);
      for (const float g : ignored.grad().to_vector<float>()) EXPECT_TRUE(std::isfinite(g));
    }
  }
}

TEST(CrossEntropy, WithNothingCountedIsZero) {
  for (const Device device : devices()) {
    Variable x(random_tensor({2, 3}, 1).to(DType::f32).to(device), true);
    const Variable loss = cross_entropy(x, Tensor::from<int32_t>({-1, -100}, {2}).to(device));
    EXPECT_EQ(loss.value().to_vector<float>()[0], 0.0f);
    backward(loss);
    for (const float g : x.grad().to_vector<float>()) EXPECT_EQ(g, 0.0f);
  }
}

TEST(CrossEntropy, DoesNotDependOnTheThreadCount) {
  const int before = threads();
  std::vector<float> losses;
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    const Variable x(random_tensor({501, 37}, 1, 4.0).to(DType::f32));
    losses.push_back(cross_entropy(x, labels({501}, 37, 2)).value().to_vector<float>()[0]);
  }
  set_threads(before);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
}

TEST(CrossEntropy, AClassThatDoesNotExistIsNanOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  Variable x(Tensor::zeros({3, 4}).to(device), true);
  const Variable loss = cross_entropy(x, Tensor::from<int32_t>({0, 4, 3}, {3}).to(device));
  EXPECT_TRUE(std::isnan(loss.value().to_vector<float>()[0]));
  backward(loss);
  const std::vector<float> g = x.grad().to_vector<float>();
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(std::isnan(g[i]), i / 4 == 1) << i;
}

TEST(CrossEntropy, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3}));
  expect_error(
      [&] {
        cross_entropy(x, Tensor::from<int32_t>({0, 3}, {2}));
      },
      "cross_entropy: label 3 in row 1, the logits have 3 classes");
  expect_error([&] { cross_entropy(x, Tensor::from<int32_t>({0}, {1})); },
               "cross_entropy: logits are f32 [2, 3] on cpu, labels i32 [1] on cpu, expected i32 [2] on cpu");
  expect_error([&] { cross_entropy(x, Tensor::zeros({2})); }, "labels f32 [2] on cpu, expected i32 [2]");
  expect_error([&] { cross_entropy(x, Tensor()); }, "labels undefined");
  expect_error(
      [] {
        cross_entropy(Variable(Tensor::zeros({2, 3}, DType::i32)), Tensor::from<int32_t>({0, 1}, {2}));
      },
      "cross_entropy: element type is i32");
}
