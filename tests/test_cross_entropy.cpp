#include "ops/cross_entropy.h"

#include <cmath>
#include <limits>

#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> op(const std::vector<Variable>& v) { return {cross_entropy(v[0], v[1].value())}; }

Tensor labels(int64_t rows, int64_t V, uint64_t seed) {  // every fourth row does not count
  const Tensor r = random_tensor({rows}, seed);
  Tensor t = Tensor::empty({rows}, DType::i32);
  for (int64_t i = 0; i < rows; ++i) t.data<int32_t>()[i] = i % 4 == 3 ? -100 : int32_t((r.data<double>()[i] * 0.5 + 0.5) * double(V));
  return t;
}

}  // namespace

TEST(CrossEntropy, EqualsPyTorch) { expect_golden("losses", "cross_entropy", op); }

TEST(CrossEntropy, GradientsEqualFiniteDifferences) { expect_gradients(op, {random_tensor({5, 6}, 1, 3.0), labels(5, 6, 2)}); }

TEST(CrossEntropy, CudaEqualsCpu) {
  for (const int64_t V : {1, 2, 31, 33, 64, 1023, 1025, 3000}) {
    expect_cuda_equals_cpu(op, {random_tensor({6, V}, uint64_t(V), 5.0), labels(6, V, 3)});
  }
  expect_cuda_equals_cpu(op, {random_tensor({300, 8}, 4), labels(300, 8, 5)});
  expect_cuda_equals_cpu(op, {random_tensor({0, 8}, 4), labels(0, 8, 5)});
}

TEST(CrossEntropy, OfEqualLogitsIsTheLogOfTheirNumber) {
  for (const double level : {0.0, 1e4, -1e4}) {  // huge logits do not overflow
    const Variable loss = cross_entropy(Variable(Tensor::full({3, 10}, level)), labels(3, 10, 1));
    EXPECT_NEAR(double(loss.value().to_vector<float>()[0]), std::log(10.0), 1e-6);
  }
}

TEST(CrossEntropy, WithNothingCountedIsZero) {
  Variable x(random_tensor({2, 3}, 1), true);
  const Variable loss = cross_entropy(x, Tensor::from<int32_t>({-1, -100}, {2}));
  EXPECT_EQ(loss.value().to_vector<double>()[0], 0.0);
  backward(loss);
  for (const double g : x.grad().to_vector<double>()) EXPECT_EQ(g, 0.0);
}

TEST(CrossEntropy, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 3}));
  expect_error([&] { cross_entropy(x, Tensor::from<int32_t>({0, 3}, {2})); }, "cross_entropy");
  expect_error([&] { cross_entropy(x, Tensor::from<int32_t>({0}, {1})); }, "cross_entropy");
  expect_error([&] { cross_entropy(x, Tensor::zeros({2})); }, "cross_entropy");
}
