#include "ops/adamw.h"

#include <cmath>

#include "core/cuda/runtime.h"
#include "core/hdf5.h"
#include "ops/grad_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

struct State {
  Tensor master, m, v, ema, weights;
};

// The ten steps of the golden, on one type and device.
State ten_steps(DType type, Device device, bool bf16_weights) {
  const FileReader golden("tests/goldens/losses.h5");
  const Tensor start = golden.read("/adamw.start").to(type).to(device), gradients = golden.read("/adamw.gradients"), norms = golden.read("/adamw.norms");
  State s{start.clone(), Tensor::zeros({192}, type, device), Tensor::zeros({192}, type, device), start.clone(), Tensor()};
  if (bf16_weights) s.weights = Tensor::empty({192}, DType::bf16, device);
  const Tensor groups = Tensor::from<uint8_t>({0, 1, 2}, {3}).to(device);
  for (int64_t step = 1; step <= 10; ++step) {
    const Tensor g = gradients.slice(step - 1, step).reshape({192}).to(type).to(device);
    const double norm = grad_norm(g, &groups);
    EXPECT_NEAR(norm, norms.data<double>()[step - 1], 1e-6 * norm);
    adamw(s.master, s.m, s.v, g, groups, {{1e-2, 0.9, 0.99, 1e-8, 0.1}, {1e-2, 0.9, 0.99, 1e-8, 0}, {2e-2, 0.9, 0.99, 1e-18, 0}}, step,
          clip_factor(norm, 5.0), bf16_weights ? &s.weights : nullptr, &s.ema, 0.9);
  }
  return s;
}

}  // namespace

TEST(AdamW, EqualsPyTorch) {
  const FileReader golden("tests/goldens/losses.h5");
  const Tensor end = golden.read("/adamw.end"), average = golden.read("/adamw.average");
  const State exact = ten_steps(DType::f64, kCpu, false);
  EXPECT_LT(relative_error(exact.master, end), 1e-14);
  EXPECT_LT(relative_error(exact.ema, average), 1e-14);
  const State plain = ten_steps(DType::f32, kCpu, false);
  EXPECT_LT(relative_error(plain.master, end), 1e-6);
  EXPECT_EQ(plain.master.data<float>()[2 * 64 + 5], 0.0f);  // no gradient, no step: 0 / (0 + 1e-18)
  if (!cuda::available()) return;
  const Device device{DeviceType::cuda, 0};
  for (const std::string& order : cuda::thread_orders()) {
    cuda::set_thread_order(order);
    const State s = ten_steps(DType::f32, device, true);
    EXPECT_LT(relative_error(s.master, end), 1e-6) << order;
    EXPECT_LT(relative_error(s.ema, average), 1e-6) << order;
    EXPECT_EQ(relative_error(s.weights, s.master.to(DType::bf16)), 0.0) << order;
  }
  cuda::set_thread_order(cuda::thread_orders().front());
}

TEST(AdamW, LeavesFrozenBlocksAlone) {
  std::vector<Device> devices = {kCpu};
  if (cuda::available()) devices.push_back({DeviceType::cuda, 0});
  for (const Device device : devices) {
    Tensor master = Tensor::full({192}, 1.0, DType::f32, device), m = Tensor::zeros({192}, DType::f32, device), v = m.clone(), ema = m.clone();
    const Tensor grad = Tensor::full({192}, 2.0, DType::f32, device), groups = Tensor::from<uint8_t>({0, 255, 0}, {3}).to(device);
    adamw(master, m, v, grad, groups, {{0.1, 0.9, 0.99, 1e-8, 0}}, 1, 1.0, nullptr, &ema, 0.5);
    const std::vector<float> p = master.to_vector<float>(), e = ema.to_vector<float>();
    for (size_t i = 0; i < 192; ++i) {
      EXPECT_NEAR(double(p[i]), i / 64 == 1 ? 1.0 : 0.9, 1e-6);
      EXPECT_NEAR(double(e[i]), i / 64 == 1 ? 0.0 : 0.45, 1e-6);
    }
    EXPECT_NEAR(grad_norm(grad, &groups), std::sqrt(128 * 4.0), 1e-4);
  }
}

TEST(GradNorm, SeesEveryElementOfAnySize) {
  std::vector<Device> devices = {kCpu};
  if (cuda::available()) devices.push_back({DeviceType::cuda, 0});
  for (const Device device : devices) {
    for (const int64_t n : {0, 1, 63, 65, 8191, 8193, 20000}) {
      const Tensor g = random_tensor({n}, 1);
      double square = 0;
      for (const double x : g.to_vector<double>()) square += x * x;
      EXPECT_NEAR(grad_norm(g.to(DType::f32).to(device)), std::sqrt(square), 1e-5 * std::sqrt(square)) << n;
    }
    Tensor bad = Tensor::zeros({100});
    bad.data<float>()[99] = NAN;
    EXPECT_TRUE(std::isnan(grad_norm(bad.to(device))));
    bad.data<float>()[99] = INFINITY;
    EXPECT_TRUE(std::isinf(grad_norm(bad.to(device))));
  }
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 0.25, 1e-6);
}

TEST(AdamW, RefusesWrongInputsByName) {
  Tensor p = Tensor::zeros({128}), q = Tensor::zeros({64}), groups = Tensor::zeros({2}, DType::u8);
  expect_error([&] { adamw(p, q, p, p, groups, {{}}, 1, 1, nullptr, nullptr, 0); }, "adamw: master is f32 [128] on cpu, m is f32 [64]");
  expect_error([&] { adamw(q, q, q, q, groups, {{}}, 1, 1, nullptr, nullptr, 0); }, "adamw: 64 elements in blocks of 64");
  expect_error([&] { adamw(p, p, p, p, groups, {{}}, 0, 1, nullptr, nullptr, 0); }, "step 0");
}
