#include <cmath>

#include "core/parallel.h"
#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "ops/time_mix_output.h"
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

TEST(TimeMixOutput, EqualsPyTorch) {
  expect_golden("time_mix", "output", op);
  expect_golden("time_mix", "output64", op);
}

TEST(TimeMixOutput, GradientsEqualFiniteDifferences) { expect_gradients(op, inputs(1, 3, 2, 4, 1)); }

TEST(TimeMixOutput, CudaEqualsCpu) {
  for (const int64_t N : {8, 31, 33, 64}) expect_cuda_equals_cpu(op, inputs(2, 3, 2, N, uint64_t(N)));
  expect_cuda_equals_cpu(op, inputs(2, 19, 1, 16, 3));
  expect_cuda_equals_cpu(op, inputs(3, 45, 2, 6, 5));  // more tokens than one partial sum holds
  expect_cuda_equals_cpu(op, inputs(1, 0, 2, 8, 4));
  expect_cuda_equals_cpu(op, inputs(0, 3, 2, 8, 4));
  expect_cuda_equals_cpu(op, inputs(1, 1, 1, 2, 6));
}

TEST(TimeMixOutput, CudaEqualsCpuForLongHeads) {
  for (const int64_t N : {1023, 1025, 4096}) expect_cuda_equals_cpu(op, inputs(1, 3, 1, N, uint64_t(N)));
  expect_cuda_equals_cpu(op, inputs(1, 11, 2, 600, 7));  // fewer warps, several tokens each
}

TEST(TimeMixOutput, UnalignedTensorsOnCuda) {
  expect_cuda_equals_cpu(op, inputs(1, 5, 2, 16, 13), {.unaligned = true});
}

TEST(TimeMixOutput, GradientsThatAreNotWanted) {
  CudaTest options;
  for (const auto& fixed :
       {std::vector<size_t>{5, 6, 7}, {5}, {6}, {7}, {0, 1, 2, 3, 4}, {0}, {1, 3, 6}, {2, 4, 5, 6, 7}}) {
    options.fixed = fixed;
    expect_cuda_equals_cpu(op, inputs(1, 9, 2, 6, 8), options);
  }
}

TEST(TimeMixOutput, DoesNotDependOnThreads) { expect_same_for_all_threads(op, inputs(2, 100, 3, 16, 9)); }

// Equal values have no variance: eps alone keeps the division finite.
TEST(TimeMixOutput, ConstantHeads) {
  std::vector<Tensor> x = inputs(1, 3, 2, 8, 10);
  x[0].fill(0.75);
  expect_cuda_equals_cpu(op, x);
  x[5].fill(0);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t);
  const Tensor out = op(v)[0].value();
  for (int64_t i = 0; i < out.numel(); ++i) {
    EXPECT_DOUBLE_EQ(out.data<double>()[i], x[7].data<double>()[i % 16] * x[4].data<double>()[i]);
  }
}

TEST(TimeMixOutput, HugeAndTinyValues) {
  for (const double scale : {1e-12, 1e12}) {
    std::vector<Tensor> x = inputs(1, 3, 2, 8, 11);
    for (int64_t i = 0; i < x[0].numel(); ++i) x[0].data<double>()[i] *= scale;
    expect_cuda_equals_cpu(op, x);
  }
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

// With weight = bias = 0 and g = 1 it is the bonus: (sum over a head of r k r_k) v.
TEST(TimeMixOutput, BonusAlone) {
  std::vector<Tensor> x = inputs(1, 2, 2, 4, 12);
  x[4].fill(1);
  x[6].fill(0);
  x[7].fill(0);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t);
  const Tensor out = op(v)[0].value();
  for (int64_t i = 0; i < 16; ++i) {
    double bonus = 0;
    for (int64_t j = i / 4 * 4; j < i / 4 * 4 + 4; ++j) {
      bonus += x[1].data<double>()[j] * x[2].data<double>()[j] * x[5].data<double>()[j % 8];
    }
    EXPECT_NEAR(out.data<double>()[i], bonus * x[3].data<double>()[i], 1e-15);
  }
}

TEST(TimeMixOutput, RefusesWrongInputsByName) {
  std::vector<Variable> v;
  for (const Tensor& t : inputs(1, 2, 2, 4, 1)) v.emplace_back(t);
  v[6] = Variable(Tensor::zeros({7}, DType::f64));
  expect_error([&] { op(v); }, "time_mix_output: y is f64 [1, 2, 8] on cpu, weight is f64 [7]");
  v[6] = v[7];
  v[5] = Variable(Tensor::zeros({3, 4}, DType::f64));
  expect_error([&] { op(v); }, "r_k is f64 [3, 4]");
  v[5] = Variable(Tensor::zeros({2, 4}, DType::f32));
  expect_error([&] { op(v); }, "r_k is f32 [2, 4]");
}
