#include "ops/elementwise.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {
std::vector<Variable> do_add(const std::vector<Variable>& v) { return {add(v[0], v[1])}; }
std::vector<Variable> do_mul(const std::vector<Variable>& v) { return {mul(v[0], v[1])}; }
std::vector<Variable> do_square(const std::vector<Variable>& v) { return {mul(v[0], v[0])}; }
std::vector<Variable> do_scale(const std::vector<Variable>& v) { return {scale(v[0], -1.75)}; }
}  // namespace

TEST(Elementwise, EqualsPyTorch) {
  expect_golden("elementwise", "add", do_add);
  expect_golden("elementwise", "mul", do_mul);
  expect_golden("elementwise", "square_by_mul", do_square);
  expect_golden("elementwise", "scale", do_scale);
}

TEST(Elementwise, GradientsEqualFiniteDifferences) {
  const std::vector<Tensor> two = {random_tensor({3, 5}, 1), random_tensor({3, 5}, 2)};
  expect_gradients(do_add, two);
  expect_gradients(do_mul, two);
  expect_gradients(do_scale, {random_tensor({4}, 3)});
}

TEST(Elementwise, CudaEqualsCpu) {
  for (const int64_t n : {0, 1, 31, 33, 1023, 1025}) {
    const std::vector<Tensor> two = {random_tensor({n}, 1), random_tensor({n}, 2)};
    expect_cuda_equals_cpu(do_add, two);
    expect_cuda_equals_cpu(do_mul, two);
    expect_cuda_equals_cpu(do_scale, {two[0]});
  }
}

TEST(Elementwise, UnalignedInputsTakeTheScalarPath) {
  const CudaTest unaligned{.unaligned = true};
  const std::vector<Tensor> two = {random_tensor({70}, 1), random_tensor({70}, 2)};
  expect_cuda_equals_cpu(do_add, two, unaligned);
  expect_cuda_equals_cpu(do_mul, two, unaligned);
  expect_cuda_equals_cpu(do_scale, {two[0]}, unaligned);
}

TEST(Elementwise, RefusesDifferentShapes) {
  expect_error(
      [] {
        add(Variable(Tensor::zeros({2, 3})), Variable(Tensor::zeros({3, 2})));
      },
      "add: first input is f32 [2, 3] on cpu, second is f32 [3, 2] on cpu");
  expect_error([] { mul(Variable(Tensor::zeros({2})), Variable(Tensor::zeros({2}, DType::f64))); },
               "mul: first input");
}
