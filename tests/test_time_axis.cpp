#include "core/cuda/runtime.h"
#include "ops/time_axis.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> concat(const std::vector<Variable>& v) { return {concat_time(v)}; }
VariableFunction slice(int64_t begin, int64_t end) {
  return
      [=](const std::vector<Variable>& v) -> std::vector<Variable> { return {slice_time(v[0], begin, end)}; };
}
std::vector<Variable> doubled(const std::vector<Variable>& v) { return {concat_time({v[0], v[1], v[0]})}; }

// A copy one element behind a 16-byte boundary.
Tensor unaligned(const Tensor& t) {
  Tensor view =
      Tensor::empty({t.numel() + 1}, t.dtype(), t.device()).slice(1, t.numel() + 1).reshape(t.shape());
  view.copy_from(t);
  return view;
}

}  // namespace

TEST(TimeAxis, EqualsPyTorch) {
  expect_golden("time_axis", "concat", concat);
  expect_golden("time_axis", "concat_twice_the_same", doubled);
  expect_golden("time_axis", "slice", slice(2, 5));
  expect_golden("time_axis", "last", slice(6, 7));
}

TEST(TimeAxis, GradientsEqualFiniteDifferences) {
  expect_gradients(concat,
                   {random_tensor({2, 3, 2}, 1), random_tensor({2, 1, 2}, 2), random_tensor({2, 0, 2}, 3)});
  for (const auto& [begin, end] : {std::pair{0, 5}, {0, 2}, {2, 5}, {1, 4}, {3, 3}}) {
    expect_gradients(slice(begin, end), {random_tensor({2, 5, 3}, 1)});
  }
}

TEST(TimeAxis, CudaEqualsCpu) {
  for (const int64_t C : {1, 8, 31, 33, 64}) {
    const std::vector<Tensor> parts = {random_tensor({3, 5, C}, 1), random_tensor({3, 1, C}, 2),
                                       random_tensor({3, 0, C}, 3), random_tensor({3, 33, C}, 4)};
    expect_cuda_equals_cpu(concat, parts);
    for (const auto& [begin, end] : {std::pair{0, 33}, {0, 1}, {32, 33}, {5, 20}, {7, 7}}) {
      expect_cuda_equals_cpu(slice(begin, end), {parts[3]});
    }
  }
  expect_cuda_equals_cpu(concat, {random_tensor({0, 4, 8}, 1), random_tensor({0, 2, 8}, 2)});
  expect_cuda_equals_cpu(slice(0, 1025), {random_tensor({1, 1026, 1}, 1)});
}

TEST(TimeAxis, UnalignedTensorsGiveTheSame) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor t = random_tensor({2, 4, 8}, 1).to(type).to(Device{DeviceType::cuda, 0});
    const auto run = [&](const Tensor& value) {
      const Variable x(value, true);
      const Variable y = concat_time({slice_time(x, 1, 3), x});
      backward({y}, {Tensor::full(y.shape(), 1, type, value.device())});
      return std::vector<Tensor>{y.value(), x.grad()};
    };
    const std::vector<Tensor> even = run(t), odd = run(unaligned(t));
    for (size_t i = 0; i < even.size(); ++i) EXPECT_EQ(relative_error(odd[i], even[i]), 0) << i;
  }
}

TEST(TimeAxis, SlicesOfAConcatenationAreItsParts) {
  const Tensor a = random_tensor({3, 2, 5}, 1), b = random_tensor({3, 4, 5}, 2);
  const Variable joined = concat_time({Variable(a), Variable(b)});
  EXPECT_EQ(relative_error(slice_time(joined, 0, 2).value(), a), 0);
  EXPECT_EQ(relative_error(slice_time(joined, 2, 6).value(), b), 0);
}

TEST(TimeAxis, OnlyWantedGradientsAreMade) {
  const Variable a(random_tensor({1, 2, 2}, 1)), b(random_tensor({1, 3, 2}, 2), true);
  const Tensor dy = random_tensor({1, 5, 2}, 3);
  backward({concat_time({a, b})}, {dy});
  EXPECT_EQ(relative_error(b.grad(), slice_time(Variable(dy), 2, 5).value()), 0);
  EXPECT_FALSE(a.grad().defined());
}

TEST(TimeAxis, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 6, 3})), flat(Tensor::zeros({2, 6})), wide(Tensor::zeros({2, 6, 4}));
  expect_error([&] { concat_time({}); }, "concat_time: no inputs");
  expect_error(
      [&] {
        concat_time({x, wide});
      },
      "concat_time: input 0 is f32 [2, 6, 3] on cpu, input 1 is f32 [2, 6, 4] on cpu");
  expect_error([&] { concat_time({x, Variable(Tensor::zeros({2, 6, 3}, DType::f64))}); }, "input 1 is f64");
  expect_error(
      [&] {
        concat_time({x, flat});
      },
      "concat_time: input 1 is f32 [2, 6] on cpu, expected [B, T, C]");
  expect_error([&] { concat_time({x, Variable()}); }, "concat_time: input 1 is undefined");
  expect_error([&] { slice_time(x, 3, 7); }, "slice_time: steps [3, 7) of input f32 [2, 6, 3]");
  expect_error([&] { slice_time(x, 3, 2); }, "slice_time: steps [3, 2)");
  expect_error([&] { slice_time(x, -1, 2); }, "slice_time: steps [-1, 2)");
  expect_error([&] { slice_time(flat, 0, 1); }, "slice_time: input is f32 [2, 6] on cpu, expected [B, T, C]");
  expect_error(
      [&] {
        slice_time(Variable(Tensor::zeros({1, 2, 3}, DType::u8)), 0, 1);
      },
      "time_axis: element type is u8");
}
