#include "ops/time_mix_keys.h"

#include <cmath>

#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

VariableFunction keys(int64_t heads) {
  return [heads](const std::vector<Variable>& v) { return time_mix_keys(v[0], v[1], v[2], v[3], heads); };
}

std::vector<Tensor> inputs(int64_t rows, int64_t C, uint64_t seed) {
  return {random_tensor({1, rows, C}, seed), random_tensor({1, rows, C}, seed + 1, 3.0), random_tensor({C}, seed + 2), random_tensor({C}, seed + 3)};
}

}  // namespace

TEST(TimeMixKeys, EqualsPyTorch) {
  expect_golden("time_mix", "keys", keys(2));
  expect_golden("time_mix", "keys64", keys(1));
}

TEST(TimeMixKeys, GradientsEqualFiniteDifferences) { expect_gradients(keys(2), inputs(3, 6, 1)); }

TEST(TimeMixKeys, CudaEqualsCpu) {
  for (const int64_t n : {1, 8, 31, 33, 64}) expect_cuda_equals_cpu(keys(3), inputs(5, 3 * n, uint64_t(n)));
  expect_cuda_equals_cpu(keys(2), inputs(40, 16, 3));  // more tokens than one partial sum holds
  expect_cuda_equals_cpu(keys(1), inputs(0, 8, 4));
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

// A key of zero has no direction: kk is 0 and the gradient of the normalisation is 1 / 1e-12, as for a norm that is clamped.
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
  expect_error([&] { time_mix_keys(x, x, p, p, 4); }, "time_mix_keys: k0 f32 [1, 2, 6] on cpu cannot be cut into 4 heads");
  expect_error([&] { time_mix_keys(x, p, p, p, 2); }, "a_pre is f32 [6]");
  expect_error([&] { time_mix_keys(x, x, p, Variable(Tensor::zeros({5})), 2); }, "k_a is f32 [5]");
}
