#include "ops/layer_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> norm(const std::vector<Variable>& v) { return {layer_norm(v[0], v[1], v[2], 1e-5)}; }
std::vector<Variable> norm3(const std::vector<Variable>& v) {
  return {group_norm(v[0], 3, v[1], v[2], 6.4e-4)};
}

std::vector<Tensor> inputs(const Shape& x, uint64_t seed) {
  return {random_tensor(x, seed), random_tensor({x[-1]}, seed + 1), random_tensor({x[-1]}, seed + 2)};
}

}  // namespace

TEST(LayerNorm, EqualsPyTorch) {
  for (const char* name : {"layer_norm_3x33", "layer_norm_5x64"}) expect_golden("layer_norm", name, norm);
  expect_golden("layer_norm", "group_norm", norm3);
}

TEST(LayerNorm, GradientsEqualFiniteDifferences) {
  expect_gradients(norm, inputs({3, 7}, 1));
  expect_gradients(norm3, inputs({2, 2, 9}, 2));
}

TEST(LayerNorm, CudaEqualsCpu) {
  for (const int64_t n : {2, 31, 32, 33, 129}) expect_cuda_equals_cpu(norm, inputs({5, n}, uint64_t(n)));
  expect_cuda_equals_cpu(norm, inputs({131, 40}, 7));  // more rows than one partial sum holds
  expect_cuda_equals_cpu(norm3, inputs({2, 35, 96}, 8));
}

TEST(LayerNorm, AcceptsNoRows) { expect_cuda_equals_cpu(norm, inputs({0, 8}, 1)); }

TEST(LayerNorm, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 6})), w(Tensor::zeros({6})), short_w(Tensor::zeros({5}));
  expect_error([&] { layer_norm(x, short_w, w); }, "layer_norm: input is f32 [2, 6] on cpu, weight is f32 [5]");
  expect_error([&] { layer_norm(x, w, Variable(Tensor::zeros({6}, DType::f64))); }, "bias is f64 [6]");
  expect_error([&] { group_norm(x, 4, w, w, 1e-5); },
               "group_norm: input f32 [2, 6] on cpu cannot be cut into 4 groups");
  expect_error([&] { layer_norm(Variable(Tensor::zeros({2, 6}, DType::i32)), w, w); }, "layer_norm");
}
