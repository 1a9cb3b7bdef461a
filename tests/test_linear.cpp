#include "ops/linear.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {
std::vector<Variable> out_in(const std::vector<Variable>& v) {
  return {linear(v[0], v[1], v.size() > 2 ? v[2] : Variable())};
}
std::vector<Variable> in_out(const std::vector<Variable>& v) {
  return {linear(v[0], v[1], v[2], WeightLayout::in_out)};
}
}  // namespace

TEST(Linear, EqualsPyTorch) {
  expect_golden("linear", "out_in", out_in);
  expect_golden("linear", "in_out", in_out);
  expect_golden("linear", "no_bias", out_in);
}

TEST(Linear, GradientsEqualFiniteDifferences) {
  expect_gradients(out_in, {random_tensor({2, 3, 4}, 1), random_tensor({5, 4}, 2), random_tensor({5}, 3)});
  expect_gradients(in_out, {random_tensor({3, 4}, 1), random_tensor({4, 2}, 2), random_tensor({2}, 3)});
}

TEST(Linear, CudaEqualsCpu) {
  expect_cuda_equals_cpu(out_in,
                         {random_tensor({3, 41, 24}, 1), random_tensor({40, 24}, 2), random_tensor({40}, 3)});
  expect_cuda_equals_cpu(in_out,
                         {random_tensor({2, 5, 16}, 1), random_tensor({16, 8}, 2), random_tensor({8}, 3)});
  expect_cuda_equals_cpu(out_in, {random_tensor({1, 8}, 1), random_tensor({8, 8}, 2)});
}

TEST(Linear, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 6}));
  expect_error(
      [&] {
        linear(x, Variable(Tensor::zeros({4, 5})));
      },
      "linear: input is f32 [2, 6] on cpu, weight [4, 5] is stored [out, in]");
  expect_error(
      [&] {
        linear(x, Variable(Tensor::zeros({6, 4}, DType::f64)), {}, WeightLayout::in_out);
      },
      "weight is f64");
  expect_error(
      [&] {
        linear(x, Variable(Tensor::zeros({4, 6})), Variable(Tensor::zeros({3})));
      },
      "expected 4 values");
}
