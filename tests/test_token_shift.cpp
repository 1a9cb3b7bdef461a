#include "ops/token_shift.h"

#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

// Inputs: x, previous or undefined, `count` mixes, then reset if there is one more.
VariableFunction shift(size_t count) {
  return [count](const std::vector<Variable>& v) {
    return token_shift(v[0], v[1], {v.begin() + 2, v.begin() + 2 + int64_t(count)}, v.size() > count + 2 ? v.back().value() : Tensor());
  };
}

std::vector<Tensor> inputs(int64_t B, int64_t T, int64_t C, size_t count, uint64_t seed, bool previous = true) {
  std::vector<Tensor> x = {random_tensor({B, T, C}, seed), previous ? random_tensor({B, C}, seed + 1) : Tensor()};
  for (size_t i = 0; i < count; ++i) x.push_back(random_tensor({C}, seed + 2 + i));
  return x;
}

Tensor resets(int64_t B, int64_t T, const std::vector<int64_t>& places) {
  Tensor t = Tensor::zeros({B, T}, DType::u8);
  for (const int64_t p : places) t.data<uint8_t>()[p] = 1;
  return t;
}

}  // namespace

TEST(TokenShift, EqualsPyTorch) {
  expect_golden("time_mix", "shift6", shift(6));
  expect_golden("time_mix", "shift1_reset", shift(1));
}

TEST(TokenShift, GradientsEqualFiniteDifferences) {
  expect_gradients(shift(6), inputs(2, 3, 4, 6, 1));
  std::vector<Tensor> x = inputs(2, 4, 3, 2, 2);
  x.push_back(resets(2, 4, {0, 2, 7}));
  expect_gradients(shift(2), x);
  expect_gradients(shift(1), inputs(1, 1, 3, 1, 3, false));
}

TEST(TokenShift, CudaEqualsCpu) {
  for (const int64_t C : {1, 31, 33, 129}) expect_cuda_equals_cpu(shift(6), inputs(2, 5, C, 6, uint64_t(C)));
  for (size_t n = 1; n <= 5; ++n) expect_cuda_equals_cpu(shift(n), inputs(1, 3, 8, n, n));
  expect_cuda_equals_cpu(shift(1), inputs(2, 70, 5, 1, 4, false));  // more rows than one partial sum holds
  std::vector<Tensor> x = inputs(3, 4, 6, 6, 5);
  x.push_back(resets(3, 4, {0, 3, 5, 11}));
  expect_cuda_equals_cpu(shift(6), x);
}

TEST(TokenShift, AcceptsEmptyInputs) {
  expect_cuda_equals_cpu(shift(1), inputs(2, 0, 4, 1, 1));
  expect_cuda_equals_cpu(shift(6), inputs(0, 3, 4, 6, 1));
}

TEST(TokenShift, GradientOfOneOutputAlone) {
  const auto third = [](const std::vector<Variable>& v) -> std::vector<Variable> { return {shift(6)(v)[2]}; };
  expect_gradients(third, inputs(1, 3, 2, 6, 9));
  expect_cuda_equals_cpu(third, inputs(2, 3, 5, 6, 9));
}

TEST(TokenShift, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3, 4})), mix(Tensor::zeros({4}));
  expect_error([&] { token_shift(Variable(Tensor::zeros({3, 4})), {}, {mix}); }, "token_shift: input is f32 [3, 4]");
  expect_error([&] { token_shift(x, mix, {mix}); }, "previous is f32 [4]");
  expect_error([&] { token_shift(x, {}, {Variable(Tensor::zeros({5}))}); }, "mix 0 is f32 [5]");
  expect_error([&] { token_shift(x, {}, std::vector<Variable>(7, mix)); }, "7 mixes");
  expect_error([&] { token_shift(x, {}, {mix}, Tensor::zeros({2, 4}, DType::u8)); }, "reset is u8 [2, 4]");
}
