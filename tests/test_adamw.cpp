#include <cmath>

#include "core/cuda/runtime.h"
#include "core/hdf5.h"
#include "ops/adamw.h"
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

struct State {
  Tensor master, m, v, ema, weights;
};

State state_of(const Tensor& start) {
  State s{start.clone(), Tensor::empty_like(start), Tensor::empty_like(start), start.clone(),
          Tensor::empty(start.shape(), DType::bf16, start.device())};
  s.m.fill(0);
  s.v.fill(0);
  s.weights.fill(0);
  return s;
}

// The ten steps of the golden, on one type and device.
State ten_steps(DType type, Device device) {
  const FileReader golden("tests/goldens/losses.h5");
  const Tensor gradients = golden.read("/adamw.gradients"), norms = golden.read("/adamw.norms");
  const Tensor groups = Tensor::from<uint8_t>({0, 1, 2}, {3}).to(device);
  State s = state_of(golden.read("/adamw.start").to(type).to(device));
  for (int64_t step = 1; step <= 10; ++step) {
    const Tensor g = gradients.slice(step - 1, step).reshape({192}).to(type).to(device);
    const double norm = grad_norm(g, &groups), expected = norms.data<double>()[step - 1];
    EXPECT_NEAR(norm, expected, (type == DType::f64 ? 1e-14 : 1e-7) * expected);
    adamw(s.master, s.m, s.v, g, groups,
          {{1e-2, 0.9, 0.99, 1e-8, 0.1}, {1e-2, 0.9, 0.99, 1e-8, 0}, {2e-2, 0.9, 0.99, 1e-18, 0}}, step,
          clip_factor(norm, 5.0), &s.weights, &s.ema, 0.9);
  }
  return s;
}

// A few steps on many blocks of three groups and frozen ones, gradients of very different sizes, on one device.
State several_steps(int64_t blocks, DType type, Device device) {
  const int64_t n = 64 * blocks;
  std::vector<uint8_t> group(static_cast<size_t>(blocks));
  for (int64_t i = 0; i < blocks; ++i) group[size_t(i)] = i % 5 == 3 ? 255 : uint8_t(i % 3);
  const Tensor groups = Tensor::from(group, {blocks}).to(device);
  State s = state_of(random_tensor({n}, 1).to(DType::f32).to(type).to(device));
  for (int64_t step = 1; step <= 3; ++step) {
    Tensor g = random_tensor({n}, uint64_t(step) + 10).to(DType::f32);
    for (int64_t i = 0; i < n; ++i) g.data<float>()[i] *= std::exp2(float(i % 41) - 30);
    adamw(s.master, s.m, s.v, g.to(type).to(device), groups,
          {{1e-2, 0.9, 0.99, 1e-8, 0.1}, {1e-3, 0.5, 0.75, 1e-3, 1e-3}, {2e-2, 0.9, 0.999, 1e-18, 0}}, step,
          0.7, &s.weights, &s.ema, 0.9);
  }
  return s;
}

// f32 rounds each of some 10 operations a step once; RMS, relative.
constexpr double kTenSteps = 5e-7;

}  // namespace

TEST(AdamW, EqualsPyTorch) {
  const FileReader golden("tests/goldens/losses.h5");
  const Tensor end = golden.read("/adamw.end"), average = golden.read("/adamw.average");
  const State exact = ten_steps(DType::f64, kCpu);
  EXPECT_LT(relative_error(exact.master, end), 1e-14);
  EXPECT_LT(relative_error(exact.ema, average), 1e-14);
  const auto compare = [&](const State& s, const std::string& where) {
    EXPECT_LT(relative_error(s.master, end), kTenSteps) << where;
    EXPECT_LT(relative_error(s.ema, average), kTenSteps) << where;
    EXPECT_EQ(relative_error(s.weights, s.master.to(DType::bf16)), 0.0) << where;
    EXPECT_EQ(s.master.to_vector<float>()[2 * 64 + 5], 0.0f) << where;  // no gradient, no step: 0 / (0 + 1e-18)
  };
  compare(ten_steps(DType::f32, kCpu), "cpu");
  if (!cuda::available()) return;
  for (const std::string& order : cuda::thread_orders()) {
    cuda::set_thread_order(order);
    compare(ten_steps(DType::f32, {DeviceType::cuda, 0}), order);
  }
  cuda::set_thread_order(cuda::thread_orders().front());
}

TEST(AdamW, CudaEqualsCpu) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  for (const int64_t blocks : {0, 1, 15, 16, 17, 50}) {
    const State exact = several_steps(blocks, DType::f64, kCpu),
                plain = several_steps(blocks, DType::f32, kCpu);
    for (const std::string& order : cuda::thread_orders()) {
      cuda::set_thread_order(order);
      const State s = several_steps(blocks, DType::f32, {DeviceType::cuda, 0});
      const auto compare = [&](const Tensor& a, const Tensor& p, const Tensor& b) {
        EXPECT_LE(relative_error(a, b), 2 * relative_error(p, b) + 2 * 0x1p-23)
            << blocks << " blocks, " << order;
      };
      compare(s.master, plain.master, exact.master);
      compare(s.m, plain.m, exact.m);
      compare(s.v, plain.v, exact.v);
      compare(s.ema, plain.ema, exact.ema);
      for (const auto& [weights, master] :
           {std::pair{s.weights, s.master}, std::pair{plain.weights, plain.master}}) {
        const std::vector<float> w = weights.to(DType::f32).to_vector<float>(), p = master.to_vector<float>();
        for (size_t i = 0; i < w.size(); ++i)
          EXPECT_EQ(w[i], i / 64 % 5 == 3 ? 0.0f : to_float(to_bf16(p[i]))) << i;
      }
    }
    cuda::set_thread_order(cuda::thread_orders().front());
  }
}

TEST(AdamW, FirstStepGoesTheLearningRateAgainstTheSign) {  // m / (1 - b1) = g and v / (1 - b2) = g^2
  for (const Device device : devices()) {
    for (const double size : {1e-12, 1e-3, 1e12}) {
      State s = state_of(Tensor::full({64}, 1.0).to(device));
      Tensor g = Tensor::full({64}, size);
      g.data<float>()[7] = float(-size);
      adamw(s.master, s.m, s.v, g.to(device), Tensor::zeros({1}, DType::u8).to(device),
            {{0.125, 0.9, 0.99, 1e-18, 0}}, 1, 1.0);
      const std::vector<float> p = s.master.to_vector<float>();
      EXPECT_NEAR(double(p[0]), 0.875, 1e-6) << size;
      EXPECT_NEAR(double(p[7]), 1.125, 1e-6) << size;
    }
  }
}

TEST(AdamW, DecayActsOnTheWeightAloneAlsoWhenItIsSmall) {
  for (const Device device : devices()) {
    State s = state_of(Tensor::full({64}, 1.0).to(device));
    const Tensor none = Tensor::zeros({64}).to(device), group = Tensor::zeros({1}, DType::u8).to(device);
    for (int step = 1; step <= 100; ++step)
      adamw(s.master, s.m, s.v, none, group, {{1e-4, 0.9, 0.99, 1e-8, 1e-2}}, step, 1.0);
    // Each step takes 1e-6, rounded to a multiple of eps / 2: 1.0133e-6.
    EXPECT_NEAR(double(s.master.to_vector<float>()[0]), 1 - 1e-4, 2e-6);
    State fine = state_of(Tensor::full({64}, 1.0, DType::f64));
    adamw(fine.master, fine.m, fine.v, Tensor::zeros({64}, DType::f64), Tensor::zeros({1}, DType::u8),
          {{1e-6, 0.9, 0.99, 1e-8, 1e-4}}, 1, 1.0);
    EXPECT_DOUBLE_EQ(1 - fine.master.data<double>()[0], 1 - (1 - 1e-10));
  }
}

TEST(AdamW, LeavesFrozenBlocksAlone) {
  for (const Device device : devices()) {
    State s = state_of(Tensor::full({192}, 1.0).to(device));
    const Tensor grad = Tensor::full({192}, 2.0).to(device),
                 groups = Tensor::from<uint8_t>({0, 255, 0}, {3}).to(device);
    adamw(s.master, s.m, s.v, grad, groups, {{0.1, 0.9, 0.99, 1e-8, 0}}, 1, 1.0, &s.weights, &s.ema, 0.5);
    const std::vector<float> p = s.master.to_vector<float>(), e = s.ema.to_vector<float>(),
                             m = s.m.to_vector<float>(), v = s.v.to_vector<float>(),
                             w = s.weights.to(DType::f32).to_vector<float>();
    for (size_t i = 0; i < 192; ++i) {
      const bool frozen = i / 64 == 1;
      EXPECT_NEAR(double(p[i]), frozen ? 1.0 : 0.9, 1e-6);
      EXPECT_NEAR(double(e[i]), frozen ? 1.0 : 0.95, 1e-6);
      EXPECT_NEAR(double(m[i]), frozen ? 0.0 : 0.2, 1e-6);
      EXPECT_NEAR(double(v[i]), frozen ? 0.0 : 0.04, 1e-6);
      EXPECT_EQ(w[i] == 0.0f, frozen);
    }
  }
}

TEST(AdamW, AGroupThatDoesNotExistIsNanOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  for (const uint8_t group : {1, 7, 8, 254}) {
    State s = state_of(Tensor::full({128}, 1.0).to(device));
    const Tensor groups = Tensor::from<uint8_t>({group, 0}, {2}).to(device);
    adamw(s.master, s.m, s.v, s.ema, groups, {{0.1, 0.9, 0.99, 1e-8, 0}}, 1, 1.0);
    const std::vector<float> p = s.master.to_vector<float>();
    EXPECT_TRUE(std::isnan(p[63]));
    EXPECT_FALSE(std::isnan(p[64]));
  }
}

TEST(AdamW, RefusesWrongInputsByName) {
  Tensor p = Tensor::zeros({128}), q = Tensor::zeros({64}), odd = Tensor::zeros({96}),
         groups = Tensor::zeros({2}, DType::u8);
  const std::vector<AdamWGroup> one = {{}};
  expect_error([&] { adamw(p, q, p, p, groups, one, 1, 1); },
               "adamw: master is f32 [128] on cpu, m is f32 [64] on cpu");
  expect_error([&] { adamw(p, p, p, p, groups, one, 1, 1, nullptr, &q); }, "ema is f32 [64] on cpu");
  expect_error([&] { adamw(p, p, p, Tensor::zeros({128}, DType::f64), groups, one, 1, 1); },
               "grad is f64 [128]");
  expect_error(
      [&] { adamw(q, q, q, q, groups, one, 1, 1); },
      "adamw: master is f32 [64] on cpu, groups of its blocks of 64 are u8 [2] on cpu, expected u8 [1]");
  expect_error([&] { adamw(odd, odd, odd, odd, groups, one, 1, 1); }, "master is f32 [96]");
  expect_error([&] { adamw(p, p, p, p, groups, one, 1, 1, &q); }, "weights are f32 [64] on cpu, expected bf16");
  expect_error([&] { adamw(p, p, p, p, groups, one, 0, 1); }, "adamw: step 0, the first one is 1");
  expect_error([&] { adamw(p, p, p, p, groups, {}, 1, 1); }, "adamw: 0 groups, expected 1 to 8");
  groups.data<uint8_t>()[1] = 3;
  expect_error([&] { adamw(p, p, p, p, groups, one, 1, 1); }, "adamw: block 1 is in group 3, there are 1");
}
