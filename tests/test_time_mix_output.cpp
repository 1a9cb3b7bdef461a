#include "ops/time_mix_output.h"

#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> op(const std::vector<Variable>& v) {
  return {time_mix_output(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], 1e-5 * double(v[5].size(1)))};
}

std::vector<Tensor> inputs(int64_t B, int64_t T, int64_t H, int64_t N, uint64_t seed) {
  std::vector<Tensor> x;
  for (uint64_t i = 0; i < 5; ++i) x.push_back(random_tensor({B, T, H * N}, seed + i));
  x.push_back(random_tensor({H, N}, seed + 5));
  x.push_back(random_tensor({H * N}, seed + 6));
  x.push_back(random_tensor({H * N}, seed + 7));
  return x;
}

}  // namespace

TEST(TimeMixOutput, EqualsPyTorch) {
  expect_golden("time_mix", "output", op);
  expect_golden("time_mix", "output64", op);
}

TEST(TimeMixOutput, GradientsEqualFiniteDifferences) { expect_gradients(op, inputs(1, 3, 2, 4, 1)); }

TEST(TimeMixOutput, CudaEqualsCpu) {
  for (const int64_t N : {8, 31, 33, 64}) expect_cuda_equals_cpu(op, inputs(2, 3, 2, N, uint64_t(N)));
  expect_cuda_equals_cpu(op, inputs(2, 19, 1, 16, 3));  // more tokens than one partial sum holds
  expect_cuda_equals_cpu(op, inputs(1, 0, 2, 8, 4));
}

// Without bonus and gate it is a group norm.
TEST(TimeMixOutput, WithoutBonusAndGateIsAGroupNorm) {
  std::vector<Tensor> x = inputs(2, 4, 3, 8, 5);
  x[4].fill(1);
  x[5].fill(0);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t);
  const Variable expected = group_norm(v[0], 3, v[6], v[7], 8e-5);
  EXPECT_LT(relative_error(op(v)[0].value(), expected.value()), 1e-14);
}

TEST(TimeMixOutput, RefusesWrongInputsByName) {
  std::vector<Variable> v;
  for (const Tensor& t : inputs(1, 2, 2, 4, 1)) v.emplace_back(t);
  v[6] = Variable(Tensor::zeros({7}, DType::f64));
  expect_error([&] { op(v); }, "time_mix_output: y is f64 [1, 2, 8] on cpu, weight is f64 [7]");
}
