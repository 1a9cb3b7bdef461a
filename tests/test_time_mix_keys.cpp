#include <cmath>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "ops/time_mix_keys.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

VariableFunction keys(int64_t heads) {
  return [heads](const std::vector<Variable>& v) { return time_mix_keys(v[0], v[1], v[2], v[3], heads); };
}

std::vector<Tensor> inputs(int64_t rows, int64_t C, uint64_t seed) {
  return {random_tensor({1, rows, C}, seed), random_tensor({1, rows, C}, seed + 1, 3.0),
          random_tensor({C}, seed + 2), random_tensor({C}, seed + 3)};
}

// The same bits whatever the number of threads.
void expect_same_for_all_threads(const VariableFunction& fn, const std::vector<Tensor>& inputs) {
  std::vector<std::vector<float>> first;
  const int before = threads();
  for (const int count : {1, 3}) {
    set_threads(count);
    std::vector<Variable> leaves, outputs;
    for (const Tensor& t : inputs) leaves.emplace_back(t.to(DType::f32), true);
    outputs = fn(leaves);
    std::vector<Tensor> dout;
    for (const Variable& y : outputs) dout.push_back(random_tensor(y.shape(), 99).to(DType::f32));
    backward(outputs, dout);
    std::vector<std::vector<float>> all;
    for (const Variable& y : outputs) all.push_back(y.value().to_vector<float>());
    for (const Variable& x : leaves) all.push_back(x.grad().to_vector<float>());
    if (count == 1) first = all;
    EXPECT_EQ(all, first) << count << " threads";
  }
  set_threads(before);
}

}  // namespace

TEST(TimeMixKeys, EqualsPyTorch) {
  expect_golden("time_mix", "keys", keys(2));
  expect_golden("time_mix", "keys64", keys(1));
}

TEST(TimeMixKeys, GradientsEqualFiniteDifferences) { expect_gradients(keys(2), inputs(3, 6, 1)); }

TEST(TimeMixKeys, CudaEqualsCpu) {
  for (const int64_t n : {1, 8, 31, 33, 64}) expect_cuda_equals_cpu(keys(3), inputs(5, 3 * n, uint64_t(n)));
  expect_cuda_equals_cpu(keys(2), inputs(40, 16, 3));
  expect_cuda_equals_cpu(keys(2), inputs(133, 16, 5));  // more tokens than one partial sum holds
  expect_cuda_equals_cpu(keys(1), inputs(0, 8, 4));
  expect_cuda_equals_cpu(keys(2), inputs(3, 0, 4));
}

TEST(TimeMixKeys, CudaEqualsCpuForLongHeads) {
  for (const int64_t n : {1023, 1025, 4096}) expect_cuda_equals_cpu(keys(1), inputs(3, n, uint64_t(n)));
  expect_cuda_equals_cpu(keys(2), inputs(11, 2 * 900, 6));  // fewer warps, several tokens each
}

TEST(TimeMixKeys, UnalignedTensorsOnCuda) {
  expect_cuda_equals_cpu(keys(2), inputs(5, 32, 14), {.unaligned = true});
}

TEST(TimeMixKeys, GradientsThatAreNotWanted) {
  CudaTest options;
  for (const auto& fixed : {std::vector<size_t>{2, 3}, {2}, {3}, {0, 1}, {0, 2, 3}, {1}}) {
    options.fixed = fixed;
    expect_cuda_equals_cpu(keys(2), inputs(9, 12, 7), options);
  }
}

TEST(TimeMixKeys, GradientOfOneOutputAlone) {
  for (size_t i = 0; i < 3; ++i) {
    const auto one = [i](const std::vector<Variable>& v) -> std::vector<Variable> { return {keys(2)(v)[i]}; };
    expect_gradients(one, inputs(2, 6, 8));
    expect_cuda_equals_cpu(one, inputs(5, 12, 8));
  }
}

TEST(TimeMixKeys, DoesNotDependOnThreads) { expect_same_for_all_threads(keys(3), inputs(200, 48, 9)); }

// kk does not change when a head's keys are scaled, so its gradient has no part along the keys.
TEST(TimeMixKeys, GradientOfDirectionIsOrthogonalToKeys) {
  const std::vector<Tensor> x = inputs(3, 16, 10);
  const Variable k0(x[0], true), a_pre(x[1]), k_k(x[2]), k_a(x[3]);
  const std::vector<Variable> out = time_mix_keys(k0, a_pre, k_k, k_a, 2);
  backward({out[1], out[2]}, {random_tensor({1, 3, 16}, 11), random_tensor({1, 3, 16}, 12)});
  const Tensor gradient = k0.grad();
  for (int64_t head = 0; head < 6; ++head) {
    double along = 0, size = 0;
    for (int64_t i = head * 8; i < (head + 1) * 8; ++i) {
      along += gradient.data<double>()[i] * x[0].data<double>()[i];
      size += std::fabs(gradient.data<double>()[i] * x[0].data<double>()[i]);
    }
    EXPECT_LT(std::fabs(along), 1e-13 * size);
    EXPECT_GT(size, 0.01);
  }
}

// Below a norm of 1e-12 kk = z / 1e-12 is linear in the keys; above 1e-12 tiny and huge keys are unit vectors
// like any others.
TEST(TimeMixKeys, TinyAndHugeKeys) {
  std::vector<Tensor> x = inputs(4, 16, 13);
  const Tensor plain = keys(2)({Variable(x[0]), Variable(x[1]), Variable(x[2]), Variable(x[3])})[1].value();
  for (const double scale : {1e-14, 1e-9, 1e12}) {
    std::vector<Tensor> y = x;
    y[0] = x[0].clone();
    for (int64_t i = 0; i < y[0].numel(); ++i) y[0].data<double>()[i] *= scale;
    expect_cuda_equals_cpu(keys(2), y);
    const Variable k0(y[0], true);
    const Variable a_vec = keys(2)({k0, Variable(y[1]), Variable(y[2]), Variable(y[3])})[1];
    if (scale > 1e-14) {
      EXPECT_LT(relative_error(a_vec.value(), plain), 1e-14);
      continue;
    }
    backward({a_vec}, {Tensor::full({1, 4, 16}, 1.0, DType::f64)});
    for (int64_t i = 0; i < 64; ++i) {
      const double slope = -1e12 * y[2].data<double>()[i % 16];
      EXPECT_NEAR(k0.grad().data<double>()[i] / slope, 1.0, 1e-14);
      EXPECT_NEAR(a_vec.value().data<double>()[i] / (slope * y[0].data<double>()[i]), 1.0, 1e-14);
    }
  }
}

// A NaN must not be hidden by the floor of the norm.
TEST(TimeMixKeys, NanReachesItsWholeHead) {
  std::vector<Device> devices = {kCpu};
  if (cuda::available()) devices.push_back({DeviceType::cuda, 0});
  Tensor k0 = Tensor::full({1, 1, 4}, 1.0), ones = Tensor::full({4}, 1.0);
  k0.data<float>()[1] = std::nanf("");
  for (const Device device : devices) {
    const Variable x(k0.to(device)), one(ones.to(device));
    const std::vector<float> a = time_mix_keys(x, x, one, one, 2)[1].value().to_vector<float>();
    EXPECT_TRUE(std::isnan(a[0]) && std::isnan(a[1])) << to_string(device);
    EXPECT_TRUE(std::isfinite(a[2]) && std::isfinite(a[3])) << to_string(device);
  }
}

TEST(TimeMixKeys, KeysAreUnitVectors) {
  const std::vector<Tensor> x = inputs(4, 32, 5);
  const std::vector<Variable> out = keys(2)({Variable(x[0]), Variable(x[1]), Variable(x[2]), Variable(x[3])});
  const double* a = out[1].value().data<double>();
  for (int64_t head = 0; head < 8; ++head) {
    double square = 0;
    for (int64_t i = head * 16; i < (head + 1) * 16; ++i) square += a[i] * a[i];
    EXPECT_NEAR(square, 1.0, 1e-14);
  }
}

// A key of zero has no direction: kk is 0 and the gradient of the normalisation is 1 / 1e-12, as for a norm
// that is clamped.
TEST(TimeMixKeys, ZeroKeysStayFinite) {
  {
    Variable k0(Tensor::zeros({1, 2, 8}, DType::f64), true), a(Tensor::zeros({1, 2, 8}, DType::f64), true);
    const Variable ones(Tensor::full({8}, 1.0, DType::f64));
    const std::vector<Variable> out = time_mix_keys(k0, a, ones, ones, 1);
    backward({out[1]}, {Tensor::full({1, 2, 8}, 1.0, DType::f64)});
    for (const double y : out[1].value().to_vector<double>()) EXPECT_EQ(y, 0.0);
    for (const double d : k0.grad().to_vector<double>()) EXPECT_DOUBLE_EQ(d, -1e12);
  }
  std::vector<Tensor> x = inputs(3, 16, 6);
  x[0].fill(0);
  expect_cuda_equals_cpu(keys(2), x);
}

TEST(TimeMixKeys, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({1, 2, 6})), p(Tensor::zeros({6}));
  expect_error([&] { time_mix_keys(x, x, p, p, 4); },
               "time_mix_keys: k0 f32 [1, 2, 6] on cpu cannot be cut into 4 heads");
  expect_error([&] { time_mix_keys(x, p, p, p, 2); }, "a_pre is f32 [6]");
  expect_error([&] { time_mix_keys(x, x, p, Variable(Tensor::zeros({5})), 2); }, "k_a is f32 [5]");
}
