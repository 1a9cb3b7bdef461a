#include "core/parallel.h"
#include "ops/token_shift.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

// Inputs: x, previous or undefined, `count` mixes, then reset if there is one more.
VariableFunction shift(size_t count) {
  return [count](const std::vector<Variable>& v) {
    return token_shift(v[0], v[1], {v.begin() + 2, v.begin() + 2 + int64_t(count)},
                       v.size() > count + 2 ? v.back().value() : Tensor());
  };
}

std::vector<Tensor> inputs(int64_t B, int64_t T, int64_t C, size_t count, uint64_t seed, bool previous = true) {
  std::vector<Tensor> x = {random_tensor({B, T, C}, seed),
                           previous ? random_tensor({B, C}, seed + 1) : Tensor()};
  for (size_t i = 0; i < count; ++i) x.push_back(random_tensor({C}, seed + 2 + i));
  return x;
}

Tensor resets(int64_t B, int64_t T, const std::vector<int64_t>& places) {
  Tensor t = Tensor::zeros({B, T}, DType::u8);
  for (const int64_t p : places) t.data<uint8_t>()[p] = 1;
  return t;
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

Tensor value(const std::vector<double>& v, const Shape& shape) { return Tensor::from(v, shape); }

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
  for (size_t n = 1; n <= 5; ++n) {
    for (const int64_t C : {7, 8}) expect_cuda_equals_cpu(shift(n), inputs(1, 3, C, n, n));
  }
  expect_cuda_equals_cpu(shift(1), inputs(2, 70, 5, 1, 4, false));  // more rows than one partial sum holds
  std::vector<Tensor> x = inputs(3, 4, 6, 6, 5);
  x.push_back(resets(3, 4, {0, 3, 5, 11}));
  expect_cuda_equals_cpu(shift(6), x);
}

// Widths at which 16 bytes, 8 bytes or one element are moved at a time, and more channels and rows than a block
// has.
TEST(TokenShift, CudaEqualsCpuInPacks) {
  for (const int64_t C : {4, 8, 12, 136, 1025}) {
    std::vector<Tensor> x = inputs(2, 3, C, 6, uint64_t(C));
    x.push_back(resets(2, 3, {1, 3}));
    expect_cuda_equals_cpu(shift(6), x);
  }
  std::vector<Tensor> x = inputs(2, 67, 136, 1, 6);
  x.push_back(resets(2, 67, {8, 63, 64, 67, 72}));
  expect_cuda_equals_cpu(shift(1), x);
  expect_cuda_equals_cpu(shift(2), inputs(70, 1, 8, 2, 7));
}

TEST(TokenShift, UnalignedTensorsOnCuda) {
  std::vector<Tensor> x = inputs(2, 5, 16, 2, 8);
  x.push_back(resets(2, 5, {2}));
  expect_cuda_equals_cpu(shift(2), x, {.unaligned = true});
}

// A frozen backbone: no gradient of the mixes; a first layer: none of x.
TEST(TokenShift, GradientsThatAreNotWanted) {
  CudaTest options;
  for (const auto& fixed : {std::vector<size_t>{2, 3, 4, 5, 6, 7}, {0, 1}, {0}, {1, 2, 5}}) {
    options.fixed = fixed;
    expect_cuda_equals_cpu(shift(6), inputs(2, 5, 8, 6, 9), options);
  }
}

TEST(TokenShift, KnownValues) {
  const Variable x(value({1, 2, 3, 4, 5, 6}, {1, 3, 2})), previous(value({10, 20}, {1, 2}));
  const Variable keep(value({0, 0}, {2})), shifted(value({1, 1}, {1, 1, 2})), half(value({0.5, 0.5}, {2}));
  const std::vector<Variable> y = token_shift(x, previous, {keep, shifted, half});
  EXPECT_EQ(y[0].value().to_vector<double>(), (std::vector<double>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(y[1].value().to_vector<double>(), (std::vector<double>{10, 20, 1, 2, 3, 4}));
  EXPECT_EQ(y[2].value().to_vector<double>(), (std::vector<double>{5.5, 11, 2, 3, 4, 5}));
  const auto after_reset = [&](int64_t t) {
    return token_shift(x, previous, {shifted}, resets(1, 3, {t}))[0].value().to_vector<double>();
  };
  EXPECT_EQ(after_reset(0), (std::vector<double>{0, 0, 1, 2, 3, 4}));  // beats `previous`
  EXPECT_EQ(after_reset(2), (std::vector<double>{10, 20, 1, 2, 0, 0}));
  EXPECT_EQ(token_shift(x, {}, {shifted})[0].value().to_vector<double>(),
            (std::vector<double>{0, 0, 1, 2, 3, 4}));
}

// A sequence in two pieces, the last row of the first handed on, equals the whole.
TEST(TokenShift, TwoPiecesEqualTheWhole) {
  const std::vector<Tensor> x = inputs(1, 7, 5, 1, 10);
  const auto rows = [&](int64_t begin, int64_t end) {
    return x[0].reshape({7, 5}).slice(begin, end).reshape({1, end - begin, 5});
  };
  const Variable mix(x[2]);
  const Tensor whole = token_shift(Variable(x[0]), Variable(x[1]), {mix})[0].value();
  std::vector<double> pieces =
      token_shift(Variable(rows(0, 4)), Variable(x[1]), {mix})[0].value().to_vector<double>();
  const std::vector<double> second =
      token_shift(Variable(rows(4, 7)), Variable(rows(3, 4).reshape({1, 5})), {mix})[0]
          .value()
          .to_vector<double>();
  pieces.insert(pieces.end(), second.begin(), second.end());
  EXPECT_EQ(pieces, whole.to_vector<double>());
}

TEST(TokenShift, DoesNotDependOnThreads) { expect_same_for_all_threads(shift(6), inputs(3, 70, 48, 6, 11)); }

TEST(TokenShift, AcceptsEmptyInputs) {
  expect_cuda_equals_cpu(shift(1), inputs(2, 0, 4, 1, 1));
  expect_cuda_equals_cpu(shift(6), inputs(0, 3, 4, 6, 1));
  expect_cuda_equals_cpu(shift(2), inputs(2, 3, 0, 2, 1));
}

TEST(TokenShift, GradientOfOneOutputAlone) {
  const auto third = [](const std::vector<Variable>& v) -> std::vector<Variable> { return {shift(6)(v)[2]}; };
  expect_gradients(third, inputs(1, 3, 2, 6, 9));
  expect_cuda_equals_cpu(third, inputs(2, 3, 5, 6, 9));
}

TEST(TokenShift, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3, 4})), mix(Tensor::zeros({4}));
  expect_error(
      [&] {
        token_shift(Variable(Tensor::zeros({3, 4})), {}, {mix});
      },
      "token_shift: input is f32 [3, 4]");
  expect_error([&] { token_shift(x, mix, {mix}); }, "previous is f32 [4]");
  expect_error([&] { token_shift(x, {}, {Variable(Tensor::zeros({5}))}); }, "mix 0 is f32 [5]");
  expect_error([&] { token_shift(x, {}, std::vector<Variable>(7, mix)); }, "7 mixes");
  expect_error([&] { token_shift(x, {}, {mix}, Tensor::zeros({2, 4}, DType::u8)); }, "reset is u8 [2, 4]");
}
