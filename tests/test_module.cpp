#include <cmath>

#include "models/init.h"
#include "models/module.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

class Leaf : public Module {
 public:
  Leaf() {
    add_parameter("weight", weight, Tensor::full({2, 3}, 1.5));
    add_parameter("bias", bias, Tensor::zeros({2}));
  }
  Variable weight, bias;
};

class Tree : public Module {
 public:
  Tree() {
    add_module("b.", second);
    add_module("a.", first);
  }
  Leaf first, second;
};

}  // namespace

TEST(Module, WalksParametersByName) {
  Tree tree;
  std::vector<std::string> names;
  for (const Parameter& p : tree.parameters()) names.push_back(p.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a.bias", "a.weight", "b.bias", "b.weight"}));
  EXPECT_EQ(tree.parameter_count(), 16);
  tree.to(kCpu, DType::f64);
  EXPECT_EQ(tree.second.weight.dtype(), DType::f64);
}

TEST(Module, LoadsWhatItNamed) {
  Tree from, to;
  Tensor weight = from.first.weight.value();
  weight.fill(7);
  to.load(from.named_tensors(), "x.h5");
  EXPECT_EQ(to.first.weight.value().to_vector<float>(), std::vector<float>(6, 7.0f));
  std::vector<NamedTensor> tensors = from.named_tensors();
  tensors.pop_back();
  expect_error([&] { to.load(tensors, "x.h5"); }, "x.h5: tensor b.weight is missing");
  tensors.push_back({"c.weight", Tensor::zeros({2, 3})});
  expect_error([&] { to.load(tensors, "x.h5"); }, "x.h5: tensor c.weight does not belong to this model");
  tensors.back() = {"b.weight", Tensor::zeros({3, 2})};
  expect_error([&] { to.load(tensors, "x.h5"); }, "x.h5: tensor b.weight is [3, 2], the model expects [2, 3]");
}

TEST(Init, OrthogonalMatricesAreOrthogonal) {
  const Init init(3);
  for (const auto& size : {std::pair<int64_t, int64_t>{5, 9}, {9, 5}, {6, 6}, {1, 4}}) {
    const int64_t rows = size.first, cols = size.second;
    const Tensor q = init.orthogonal("w", rows, cols, 0.5);
    const int64_t thin = std::min(rows, cols);
    for (int64_t i = 0; i < thin; ++i) {
      for (int64_t j = 0; j < thin; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < std::max(rows, cols); ++k) {
          const auto at = [&](int64_t v) {
            return double(q.data<float>()[rows <= cols ? v * cols + k : k * cols + v]);
          };
          dot += at(i) * at(j);
        }
        EXPECT_NEAR(dot, i == j ? 0.25 : 0.0, 1e-6);
      }
    }
  }
}

TEST(Init, DependsOnSeedAndNameAlone) {
  const Init init(3), same(3), other(4);
  EXPECT_EQ(init.uniform("a", {4}, 1).to_vector<float>(), same.uniform("a", {4}, 1).to_vector<float>());
  EXPECT_NE(init.uniform("a", {4}, 1).to_vector<float>(), init.uniform("b", {4}, 1).to_vector<float>());
  EXPECT_NE(init.uniform("a", {4}, 1).to_vector<float>(), other.uniform("a", {4}, 1).to_vector<float>());
  for (const float x : init.uniform("a", {1000}, 0.25).to_vector<float>()) ASSERT_LT(std::fabs(x), 0.25f);
}
