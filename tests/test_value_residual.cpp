#include "ops/value_residual.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {
std::vector<Variable> op(const std::vector<Variable>& v) { return {value_residual(v[0], v[1], v[2])}; }
std::vector<Tensor> inputs(int64_t n) {
  return {random_tensor({1, 1, n}, 1), random_tensor({1, 1, n}, 2), random_tensor({1, 1, n}, 3, 4.0)};
}
}  // namespace

TEST(ValueResidual, EqualsPyTorch) { expect_golden("time_mix", "value_residual", op); }

TEST(ValueResidual, GradientsEqualFiniteDifferences) { expect_gradients(op, inputs(7)); }

TEST(ValueResidual, CudaEqualsCpu) {
  for (const int64_t n : {0, 1, 31, 33, 1023, 1025}) expect_cuda_equals_cpu(op, inputs(n));
  for (const int64_t n : {4, 8, 1024, 2056}) expect_cuda_equals_cpu(op, inputs(n));  // 16 bytes at a time
}

TEST(ValueResidual, GradientsThatAreNotWanted) {
  CudaTest options;
  for (const auto& fixed : {std::vector<size_t>{0}, {1}, {2}, {0, 1}, {0, 2}, {1, 2}}) {
    options.fixed = fixed;
    expect_cuda_equals_cpu(op, inputs(16), options);
  }
}

TEST(ValueResidual, UnalignedTensorsOnCuda) { expect_cuda_equals_cpu(op, inputs(64), {.unaligned = true}); }

TEST(ValueResidual, IsAnInterpolation) {
  const Variable v(Tensor::full({3}, 2.0)), first(Tensor::full({3}, 5.0));
  const auto at = [&](double pre) {
    return value_residual(v, first, Variable(Tensor::full({3}, pre))).value().to_vector<float>()[0];
  };
  EXPECT_EQ(at(-200), 2.0f);
  EXPECT_EQ(at(200), 5.0f);
  EXPECT_EQ(at(0), 3.5f);
}

TEST(ValueResidual, ExtremeGatesOnCuda) {
  std::vector<Tensor> x = inputs(16);
  x[2] = random_tensor({1, 1, 16}, 3, 300.0);  // sigmoid is 0 or 1 in fp32
  expect_cuda_equals_cpu(op, x);
}

TEST(ValueResidual, RefusesDifferentShapes) {
  const Variable x(Tensor::zeros({2, 3}));
  expect_error([&] { value_residual(x, x, Variable(Tensor::zeros({3, 2}))); }, "value_residual");
}
