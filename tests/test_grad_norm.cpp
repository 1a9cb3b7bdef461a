#include <cmath>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "ops/grad_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Device> devices() {
  std::vector<Device> all = {kCpu};
  if (cuda::available()) all.push_back({DeviceType::cuda, 0});
  return all;
}

Tensor groups_of(int64_t n) {  // every third block is frozen
  Tensor groups = Tensor::zeros({(n + 63) / 64}, DType::u8);
  for (int64_t i = 1; i < groups.numel(); i += 3) groups.data<uint8_t>()[i] = 255;
  return groups;
}

double norm_of(const Tensor& g, const Tensor& groups) {
  double square = 0;
  for (int64_t i = 0; i < g.numel(); ++i) {
    const double x = double(g.data<float>()[i]);
    if (groups.data<uint8_t>()[i / 64] != 255) square += x * x;
  }
  return std::sqrt(square);
}

}  // namespace

TEST(GradNorm, SeesEveryElementOfAnySize) {
  for (const Device device : devices()) {
    for (const int64_t n : {0, 1, 3, 63, 64, 65, 1023, 1025, 8191, 8192, 8193, 20000, 70000}) {
      const Tensor g = random_tensor({n}, 1).to(DType::f32), groups = groups_of(n),
                   on_device = groups.to(device);
      const double expected = norm_of(g, groups), all = norm_of(g, Tensor::zeros({(n + 63) / 64}, DType::u8));
      EXPECT_NEAR(grad_norm(g.to(device), &on_device), expected, 1e-13 * expected) << n;
      EXPECT_NEAR(grad_norm(g.to(device)), all, 1e-13 * all) << n;
    }
  }
  for (const Device device : devices()) {  // more parts than the last block has threads
    const int64_t n = (int64_t(1) << 23) + 8193;
    EXPECT_NEAR(grad_norm(Tensor::full({n}, 0.5).to(device)), 0.5 * std::sqrt(double(n)), 1e-9);
  }
  const Tensor exact = random_tensor({200}, 2);
  double square = 0;
  for (const double x : exact.to_vector<double>()) square += x * x;
  EXPECT_NEAR(grad_norm(exact), std::sqrt(square), 1e-14);
}

TEST(GradNorm, IsNotFiniteWhereAnElementIsNot) {
  for (const Device device : devices()) {
    for (const int64_t at : {0, 64, 9998, 9999}) {
      Tensor g = Tensor::zeros({10000}), groups = Tensor::zeros({157}, DType::u8);
      g.data<float>()[at] = NAN;
      EXPECT_TRUE(std::isnan(grad_norm(g.to(device)))) << at;
      g.data<float>()[at] = -INFINITY;
      EXPECT_TRUE(std::isinf(grad_norm(g.to(device)))) << at;
      groups.data<uint8_t>()[at / 64] = 255;  // frozen: not looked at
      const Tensor on_device = groups.to(device);
      EXPECT_EQ(grad_norm(g.to(device), &on_device), 0.0) << at;
    }
  }
}

TEST(GradNorm, NeitherOverflowsNorUnderflows) {
  for (const Device device : devices()) {
    EXPECT_NEAR(grad_norm(Tensor::full({400}, 1e30).to(device)), 2e31, 1e25);
    EXPECT_NEAR(grad_norm(Tensor::full({400}, 1e-30).to(device)), 2e-29, 1e-35);
  }
}

TEST(GradNorm, DoesNotDependOnTheThreadCount) {
  const int before = threads();
  std::vector<double> norms;
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    norms.push_back(grad_norm(random_tensor({200001}, 1).to(DType::f32)));
  }
  set_threads(before);
  EXPECT_EQ(norms[0], norms[1]);
  EXPECT_EQ(norms[0], norms[2]);
}

TEST(GradNorm, ClipFactorIsThatOfPyTorch) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_factor(0.0, 1.0), 1.0);
  EXPECT_DOUBLE_EQ(clip_factor(4.0, 1.0), 1.0 / 4.000001);
  EXPECT_LT(clip_factor(1.0, 1.0), 1.0);  // 1 / (1 + 1e-6)
  EXPECT_TRUE(std::isnan(clip_factor(NAN, 1.0)));
  EXPECT_EQ(clip_factor(INFINITY, 1.0), 0.0);
}

TEST(GradNorm, RefusesWrongInputsByName) {
  const Tensor g = Tensor::zeros({100}), short_groups = Tensor::zeros({1}, DType::u8),
               wrong = Tensor::zeros({2});
  expect_error(
      [&] { grad_norm(g, &short_groups); },
      "grad_norm: gradient is f32 [100] on cpu, groups of its blocks of 64 are u8 [1] on cpu, expected u8 [2]");
  expect_error([&] { grad_norm(g, &wrong); }, "are f32 [2] on cpu");
  expect_error([] { grad_norm(Tensor::zeros({4}, DType::i32)); }, "grad_norm: element type is i32");
  if (!cuda::available()) return;
  const Tensor odd = Tensor::zeros({100}, DType::f32, {DeviceType::cuda, 0}).slice(1, 65);
  expect_error([&] { grad_norm(odd); },
               "grad_norm: gradient f32 [64] on cuda:0 does not start on a 16-byte border");
}
