#include <array>
#include <cmath>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/gemm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

// The definition, in double.
Tensor product(const Tensor& a, const Tensor& b, GemmOptions o, int64_t m, int64_t n, int64_t k) {
  Tensor c = Tensor::zeros({m, n}, DType::f64);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t l = 0; l < k; ++l) {
        const double x = a.data<double>()[o.trans_a ? l * m + i : i * k + l];
        const double y = b.data<double>()[o.trans_b ? j * k + l : l * n + j];
        c.data<double>()[i * n + j] += x * y;
      }
    }
  }
  return c;
}

struct Case {
  DType type;
  Device device;
  double tolerance;
};

std::vector<Case> cases() {
  std::vector<Case> all = {{DType::f64, kCpu, 1e-14}, {DType::f32, kCpu, 1e-6}};
  if (cuda::available()) {
    all.push_back({DType::f32, {DeviceType::cuda, 0}, 1e-6});
    all.push_back({DType::bf16, {DeviceType::cuda, 0}, 4e-3});
  }
  return all;
}

}  // namespace

TEST(Gemm, EqualsTheDefinition) {
  for (const Case& c : cases()) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{8, 16, 24}, {40, 8, 56}, {1, 8, 8}}) {
      for (int flags = 0; flags < 4; ++flags) {
        const GemmOptions o{.trans_a = bool(flags & 1), .trans_b = bool(flags & 2)};
        const Tensor a = random_tensor(o.trans_a ? Shape{k, m} : Shape{m, k}, 1).to(DType::f32).to(c.type);
        const Tensor b = random_tensor(o.trans_b ? Shape{n, k} : Shape{k, n}, 2).to(DType::f32).to(c.type);
        const Tensor bias = random_tensor({n}, 3).to(DType::f32).to(c.type);
        const Tensor exact = product(a.to(DType::f64), b.to(DType::f64), o, m, n, k);
        const Tensor da = a.to(c.device), db = b.to(c.device), dbias = bias.to(c.device);
        Tensor y = Tensor::full({m, n}, NAN, DType::f32, c.device).to(c.type);
        gemm(da, db, y, o);
        EXPECT_LE(relative_error(y, exact), c.tolerance) << name_of(c.type) << " " << flags;
        GemmOptions more = o;
        more.accumulate = true;
        gemm(da, db, y, more);
        Tensor twice = exact.clone();
        twice.add(exact);
        EXPECT_LE(relative_error(y, twice), c.tolerance) << name_of(c.type) << " accumulate";
        gemm(da, db, y, o, &dbias);
        Tensor with_bias = exact.clone();
        for (int64_t i = 0; i < m * n; ++i)
          with_bias.data<double>()[i] += bias.to(DType::f64).data<double>()[i % n];
        EXPECT_LE(relative_error(y, with_bias), c.tolerance) << name_of(c.type) << " bias";
        if (c.type == DType::bf16) {
          Tensor wide = Tensor::empty({m, n}, DType::f32, c.device);
          gemm(da, db, wide, o);
          EXPECT_LE(relative_error(wide, exact), 1e-6) << "bf16 inputs, f32 result";
        }
      }
    }
  }
}

TEST(Gemm, TakesBatches) {
  for (const Case& c : cases()) {
    const Tensor a = random_tensor({3, 8, 16}, 1).to(DType::f32).to(c.type),
                 b = random_tensor({3, 24, 16}, 2).to(DType::f32).to(c.type);
    Tensor y = Tensor::empty({3, 8, 24}, c.type, c.device);
    batched_gemm(a.to(c.device), b.to(c.device), y, {.trans_b = true});
    for (int64_t i = 0; i < 3; ++i) {
      const Tensor ai = a.slice(i, i + 1).reshape({8, 16}).to(DType::f64),
                   bi = b.slice(i, i + 1).reshape({24, 16}).to(DType::f64);
      EXPECT_LE(relative_error(y.to(kCpu).slice(i, i + 1).reshape({8, 24}),
                               product(ai, bi, {.trans_b = true}, 8, 24, 16)),
                c.tolerance);
    }
  }
}

TEST(Gemm, WithAnEmptySumGivesZeros) {
  Tensor y = Tensor::full({2, 3}, NAN);
  gemm(Tensor::zeros({2, 0}), Tensor::zeros({0, 3}), y);
  EXPECT_EQ(y.to_vector<float>(), std::vector<float>(6, 0.0f));
}

TEST(Gemm, CountsItsWork) {
  const int64_t before = gemm_flops();
  Tensor y = Tensor::empty({2, 3});
  gemm(Tensor::zeros({2, 5}), Tensor::zeros({5, 3}), y);
  EXPECT_EQ(gemm_flops() - before, 2 * 2 * 3 * 5);
}

TEST(Gemm, RefusesShapesThatDoNotFit) {
  Tensor y = Tensor::empty({2, 3});
  expect_error(
      [&] {
        gemm(Tensor::zeros({2, 5}), Tensor::zeros({4, 3}), y);
      },
      "gemm: A [2, 5], B [4, 3] and C [2, 3] do not fit");
  expect_error(
      [&] {
        gemm(Tensor::zeros({2, 5}), Tensor::zeros({5, 3}, DType::f64), y);
      },
      "gemm: types f32 x f64 -> f32");
}
