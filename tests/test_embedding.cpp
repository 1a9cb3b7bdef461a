#include <cmath>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "core/random.h"
#include "ops/embedding.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> embed(const std::vector<Variable>& v) { return {embedding(v[0], v[1].value())}; }

Tensor random_ids(const Shape& shape, int64_t V, uint64_t seed) {
  RandomStream random(seed, Purpose::test);
  Tensor ids = Tensor::empty(shape, DType::i32);
  for (int64_t i = 0; i < ids.numel(); ++i) ids.data<int32_t>()[i] = int32_t(random.below(uint64_t(V)));
  return ids;
}

// A copy one element behind a 16-byte boundary.
Tensor unaligned(const Tensor& t) {
  Tensor view =
      Tensor::empty({t.numel() + 1}, t.dtype(), t.device()).slice(1, t.numel() + 1).reshape(t.shape());
  view.copy_from(t);
  return view;
}

}  // namespace

TEST(Embedding, EqualsPyTorch) {
  for (const char* name : {"tokens", "one_axis", "three_axes"}) expect_golden("embedding", name, embed);
}

TEST(Embedding, GradientsEqualFiniteDifferences) {
  expect_gradients(embed, {random_tensor({5, 3}, 1), random_ids({2, 9}, 5, 2)});
}

TEST(Embedding, CudaEqualsCpu) {
  for (const int64_t C : {1, 8, 31, 33, 136}) {
    expect_cuda_equals_cpu(embed, {random_tensor({300, C}, 1), random_ids({3, 37}, 300, uint64_t(C))});
  }
  expect_cuda_equals_cpu(embed, {random_tensor({2, 8}, 1), random_ids({70}, 2, 2)});  // long chains of one row
  expect_cuda_equals_cpu(embed, {random_tensor({1, 5}, 1), random_ids({1, 1}, 1, 2)});
  expect_cuda_equals_cpu(
      embed, {random_tensor({200, 1025}, 1), random_ids({2, 3}, 200, 2)});  // several channel blocks
}

TEST(Embedding, AcceptsNoTokens) {
  expect_cuda_equals_cpu(embed, {random_tensor({7, 4}, 1), random_ids({2, 0}, 7, 2)});
  const Variable w(random_tensor({7, 4}, 1), true);
  backward({embedding(w, random_ids({0}, 7, 1))}, {Tensor::zeros({0, 4}, DType::f64)});
  EXPECT_EQ(relative_error(w.grad(), Tensor::zeros({7, 4})), 0);
}

TEST(Embedding, GradientCountsTheUsesOfEachRow) {
  const Variable w(random_tensor({6, 3}, 1), true);
  const Tensor ids = Tensor::from<int32_t>({4, 1, 4, 4, 0, 1, 4}, {7});
  backward({embedding(w, ids)}, {Tensor::full({7, 3}, 1, DType::f64)});
  const std::vector<double> uses = {1, 2, 0, 0, 4, 0}, got = w.grad().to_vector<double>();
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], uses[i / 3]) << i;
}

TEST(Embedding, GradientDoesNotDependOnTheThreadCount) {
  const Tensor ids = random_ids({4000}, 50, 3), dy = random_tensor({4000, 48}, 4).to(DType::f32);
  const int before = threads();
  std::vector<std::vector<float>> results;
  for (const int count : {1, 3}) {
    set_threads(count);
    const Variable w(Tensor::zeros({50, 48}), true);
    backward({embedding(w, ids)}, {dy});
    results.push_back(w.grad().to_vector<float>());
  }
  set_threads(before);
  EXPECT_EQ(results[0], results[1]);
}

TEST(Embedding, UnalignedTensorsGiveTheSame) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  for (const DType type : {DType::f32, DType::bf16}) {
    const Tensor w = random_tensor({9, 16}, 1).to(type).to(device);
    const Tensor ids = random_ids({12}, 9, 2).to(device);
    EXPECT_EQ(
        relative_error(embedding(Variable(unaligned(w)), ids).value(), embedding(Variable(w), ids).value()), 0);
  }
}

TEST(Embedding, CudaMarksUnknownIdsWithNan) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  for (const DType type : {DType::f32, DType::bf16}) {
    for (const int64_t C : {8, 3}) {
      Variable w(random_tensor({65, C}, 1).to(type).to(device), true);
      const Variable y = embedding(w, Tensor::from<int32_t>({64, 65, -1, -64, 0}, {5}).to(device));
      const std::vector<float> got = y.value().to(kCpu).to(DType::f32).to_vector<float>();
      for (int64_t i = 0; i < 5 * C; ++i) EXPECT_EQ(std::isnan(got[size_t(i)]), i / C >= 1 && i / C <= 3) << i;
      const Tensor around = Tensor::zeros({64 + 65 + 1, C}, DType::f32, device);  // rows -64 .. 65
      w.set_grad_buffer(around.slice(64, 129));
      backward({y}, {Tensor::full({5, C}, 1, type, device)});
      const std::vector<float> dw = around.to_vector<float>();
      for (int64_t i = 0; i < around.numel(); ++i) {
        EXPECT_EQ(dw[size_t(i)], i / C == 64 || i / C == 128 ? 1 : 0) << i;
      }
    }
  }
}

TEST(Embedding, RefusesWrongInputsByName) {
  const Variable w(Tensor::zeros({7, 4}));
  expect_error(
      [&] {
        embedding(w, Tensor::from<int32_t>({1, 6, 7, 0}, {2, 2}));
      },
      "embedding: id 7 at position 2 is outside the vocabulary of 7");
  expect_error([&] { embedding(w, Tensor::from<int32_t>({-1}, {1})); }, "embedding: id -1 at position 0");
  expect_error([&] { embedding(w, Tensor::zeros({3}, DType::i64)); },
               "embedding: ids are i64 [3] on cpu, expected i32");
  expect_error([&] { embedding(w, Tensor()); }, "embedding: ids are undefined");
  expect_error([&] { embedding(Variable(Tensor::zeros({7})), Tensor::zeros({3}, DType::i32)); },
               "embedding: weight is f32 [7] on cpu, expected [V, C]");
  expect_error(
      [&] {
        embedding(Variable(Tensor::zeros({7, 2}, DType::i32)), Tensor::zeros({3}, DType::i32));
      },
      "embedding: element type is i32");
}
