#include "ops/wkv7.h"

#include <cmath>

#include "ops/elementwise.h"
#include "ops/time_axis.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

VariableFunction op(int64_t heads) {
  return [heads](const std::vector<Variable>& v) -> std::vector<Variable> {
    const Wkv7Output o = wkv7(v[0], v[1], v[2], v[3], v[4], v[5], heads, v.size() > 6 ? v[6] : Variable(),
                              v.size() > 7 ? v[7].value() : Tensor());
    return {o.y, o.state};
  };
}

// r, w, k, v, a = -kk, b = kk * rate, state. As in the model, kk is a unit vector.
std::vector<Tensor> inputs(int64_t B, int64_t T, int64_t H, int64_t N, uint64_t seed) {
  std::vector<Tensor> x;
  for (uint64_t i = 0; i < 4; ++i) x.push_back(random_tensor({B, T, H * N}, seed + i));
  Tensor a = random_tensor({B, T, H * N}, seed + 4), b = a.clone();
  const Tensor rate = random_tensor({B, T, H * N}, seed + 5);
  for (int64_t row = 0; row < B * T * H; ++row) {
    double square = 0;
    for (int64_t j = 0; j < N; ++j) square += std::pow(a.data<double>()[row * N + j], 2);
    for (int64_t j = row * N; j < (row + 1) * N; ++j) {
      const double kk = a.data<double>()[j] / std::sqrt(square);
      a.data<double>()[j] = -kk;
      b.data<double>()[j] = kk * (0.5 + 0.5 * rate.data<double>()[j]);
    }
  }
  x.push_back(a);
  x.push_back(b);
  x.push_back(random_tensor({B, H, N, N}, seed + 6));
  return x;
}

const CudaTest kState{.wide = {6}};

Tensor resets(int64_t B, int64_t T, const std::vector<int64_t>& places) {
  Tensor t = Tensor::zeros({B, T}, DType::u8);
  for (const int64_t p : places) t.data<uint8_t>()[p] = 1;
  return t;
}

}  // namespace

TEST(Wkv7, EqualsPyTorch) {
  for (const char* name : {"plain", "state", "reset"}) expect_golden("wkv7", name, op(2));
  expect_golden("wkv7", "head64", op(1));
}

TEST(Wkv7, GradientsEqualFiniteDifferences) {
  expect_gradients(op(2), inputs(1, 5, 2, 3, 1));
  std::vector<Tensor> x = inputs(2, 18, 1, 2, 2);
  x.push_back(resets(2, 18, {3, 17, 18}));
  expect_gradients(op(1), x);
}

TEST(Wkv7, CudaEqualsCpu) {
  for (const int64_t T : {1, 15, 16, 17, 37}) expect_cuda_equals_cpu(op(2), inputs(2, T, 2, 16, uint64_t(T)), kState);
  for (const int64_t N : {8, 32, 64}) expect_cuda_equals_cpu(op(1), inputs(1, 19, 1, N, uint64_t(N)), kState);
  std::vector<Tensor> x = inputs(2, 35, 2, 8, 5);
  x.push_back(resets(2, 35, {0, 7, 16, 34, 35, 51}));
  expect_cuda_equals_cpu(op(2), x, kState);
  std::vector<Tensor> no_state = inputs(2, 18, 1, 8, 6);
  no_state.pop_back();
  expect_cuda_equals_cpu(op(1), no_state, kState);
}

TEST(Wkv7, AcceptsNoSteps) {
  const std::vector<Tensor> x = inputs(2, 0, 1, 8, 1);
  const std::vector<Variable> out = op(1)({Variable(x[0]), Variable(x[1]), Variable(x[2]), Variable(x[3]), Variable(x[4]), Variable(x[5]), Variable(x[6])});
  EXPECT_EQ(relative_error(out[1].value(), x[6]), 0.0);
  expect_cuda_equals_cpu(op(1), x, kState);
}

// Decay at its floor of 0.545, where a state that is rewound by division loses all digits within 16 steps, and repeated keys.
TEST(Wkv7, HoldsAtTheFloorOfTheDecay) {
  std::vector<Tensor> x = inputs(1, 40, 1, 16, 3);
  x[1].fill(30.0);
  expect_cuda_equals_cpu(op(1), x, kState);
  expect_gradients(op(1), [] {
    std::vector<Tensor> y = inputs(1, 20, 1, 2, 4);
    y[1].fill(6.0);
    return y;
  }());
}

TEST(Wkv7, HoldsForRepeatedKeys) {
  std::vector<Tensor> x = inputs(1, 24, 1, 8, 7);
  for (const size_t i : {2u, 4u, 5u}) {
    for (int64_t t = 1; t < 24; ++t) std::copy_n(x[i].data<double>(), 8, x[i].data<double>() + t * 8);
  }
  expect_cuda_equals_cpu(op(1), x, kState);
}

// For every segment: d log w_t = sum_{s >= t} (r dr - k dk - b db)_s + sum_{s > t} (a da)_s + sum_i S_T dS_T. It follows from
// the recurrence alone, so it needs no reference.
TEST(Wkv7, DecayGradientObeysItsIdentity) {
  const int64_t T = 37, N = 16;
  const std::vector<Tensor> x = inputs(1, T, 1, N, 8);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t.clone(), true);
  const std::vector<Variable> out = op(1)(v);
  const Tensor dstate = random_tensor({1, 1, N, N}, 21);
  backward({out[0], out[1]}, {random_tensor({1, T, N}, 20), dstate});
  const auto at = [&](const Tensor& t, int64_t s, int64_t j) { return t.data<double>()[s * N + j]; };
  for (int64_t j = 0; j < N; ++j) {
    double expected = 0;
    for (int64_t i = 0; i < N; ++i) expected += at(out[1].value(), i, j) * at(dstate, i, j);
    for (int64_t t = T - 1; t >= 0; --t) {
      const auto pair = [&](int i) { return at(x[size_t(i)], t, j) * at(v[size_t(i)].grad(), t, j); };
      expected += pair(0) - pair(2) - pair(5);
      // The op's gradient is that of w_raw: divide by d log w / d w_raw.
      const double sigma = 1 / (1 + std::exp(-at(x[1], t, j)));
      EXPECT_NEAR(at(v[1].grad(), t, j) / (-std::exp(-0.5) * sigma * (1 - sigma)), expected, 1e-9);
      expected += pair(4);
    }
  }
}

TEST(Wkv7, TwoPiecesEqualOne) {
  const auto halves = [](const std::vector<Variable>& v) -> std::vector<Variable> {
    const int64_t T = v[0].size(1), half = 11;
    std::vector<Variable> first, second;
    for (size_t i = 0; i < 6; ++i) {
      first.push_back(slice_time(v[i], 0, half));
      second.push_back(slice_time(v[i], half, T));
    }
    const Wkv7Output a = wkv7(first[0], first[1], first[2], first[3], first[4], first[5], 1, v[6]);
    const Wkv7Output b = wkv7(second[0], second[1], second[2], second[3], second[4], second[5], 1, a.state);
    return {concat_time({a.y, b.y}), b.state};
  };
  std::vector<Variable> one, two;
  for (const Tensor& t : inputs(2, 29, 1, 8, 9)) {
    one.emplace_back(t.clone(), true);
    two.emplace_back(t.clone(), true);
  }
  const std::vector<Variable> a = op(1)(one), b = halves(two);
  const std::vector<Tensor> gradients = {random_tensor({2, 29, 8}, 30), random_tensor({2, 1, 8, 8}, 31)};
  backward(a, gradients);
  backward(b, gradients);
  for (size_t i = 0; i < 2; ++i) EXPECT_LT(relative_error(a[i].value(), b[i].value()), 1e-14);
  for (size_t i = 0; i < 7; ++i) EXPECT_LT(relative_error(one[i].grad(), two[i].grad()), 1e-13) << i;
}

TEST(Wkv7, AResetAtTheStartBeatsTheGivenState) {
  std::vector<Variable> v;
  for (const Tensor& t : inputs(1, 6, 1, 4, 10)) v.emplace_back(t, true);
  const Wkv7Output o = wkv7(v[0], v[1], v[2], v[3], v[4], v[5], 1, v[6], resets(1, 6, {0}));
  const Wkv7Output none = wkv7(v[0], v[1], v[2], v[3], v[4], v[5], 1);
  EXPECT_EQ(relative_error(o.y.value(), none.y.value()), 0.0);
  backward({o.y}, {random_tensor({1, 6, 4}, 2)});
  for (const double g : v[6].grad().to_vector<double>()) EXPECT_EQ(g, 0.0);
}

TEST(Wkv7, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({1, 2, 8}));
  expect_error([&] { wkv7(x, x, x, x, x, x, 3); }, "wkv7: r is f32 [1, 2, 8] on cpu, expected [B, T, C] with C in 3 heads");
  expect_error([&] { wkv7(x, x, Variable(Tensor::zeros({1, 3, 8})), x, x, x, 2); }, "wkv7: k is f32 [1, 3, 8]");
  expect_error([&] { wkv7(x, x, x, x, x, x, 2, Variable(Tensor::zeros({1, 2, 4, 5}))); }, "wkv7: state is f32 [1, 2, 4, 5]");
  expect_error([&] { wkv7(x, x, x, x, x, x, 2, {}, Tensor::zeros({1, 2})); }, "wkv7: reset is f32 [1, 2]");
}
