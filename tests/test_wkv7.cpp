#include <cmath>

#include "core/cuda/runtime.h"
#include "core/parallel.h"
#include "ops/time_axis.h"
#include "ops/wkv7.h"
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
  for (const int64_t T : {1, 15, 16, 17, 37})
    expect_cuda_equals_cpu(op(2), inputs(2, T, 2, 16, uint64_t(T)), kState);
  for (const int64_t N : {1, 5, 8, 24, 32, 33, 64, 128}) {
    expect_cuda_equals_cpu(op(2), inputs(1, 19, 2, N, uint64_t(N)), kState);
  }
  std::vector<Tensor> x = inputs(2, 35, 2, 8, 5);
  x.push_back(resets(2, 35, {0, 7, 15, 16, 34, 35, 51}));
  expect_cuda_equals_cpu(op(2), x, kState);
  std::vector<Tensor> wide = inputs(1, 18, 1, 128, 5);
  wide.push_back(resets(1, 18, {9}));
  expect_cuda_equals_cpu(op(1), wide, kState);
  std::vector<Tensor> no_state = inputs(2, 18, 1, 8, 6);
  no_state.pop_back();
  expect_cuda_equals_cpu(op(1), no_state, kState);
  expect_cuda_equals_cpu(op(1), inputs(0, 18, 1, 8, 6), kState);
}

TEST(Wkv7, LeavesOutWhatIsNotWanted) {
  CudaTest test = kState;
  for (const std::vector<size_t>& fixed : {std::vector<size_t>{1, 3, 5, 6}, {0, 2, 4}}) {
    test.fixed = fixed;
    expect_cuda_equals_cpu(op(1), inputs(1, 18, 1, 8, 6), test);
  }
  // Only one of the two outputs is used.
  for (const size_t used : {0u, 1u}) {
    const auto one = [used](const std::vector<Variable>& v) -> std::vector<Variable> {
      return {op(1)(v)[used]};
    };
    expect_gradients(one, inputs(1, 3, 1, 3, 1));
    expect_cuda_equals_cpu(one, inputs(1, 18, 1, 8, 6), kState);
  }
}

TEST(Wkv7, AcceptsNoSteps) {
  const std::vector<Tensor> x = inputs(2, 0, 1, 8, 1);
  const std::vector<Variable> out = op(1)({Variable(x[0]), Variable(x[1]), Variable(x[2]), Variable(x[3]),
                                           Variable(x[4]), Variable(x[5]), Variable(x[6])});
  EXPECT_EQ(relative_error(out[1].value(), x[6]), 0.0);
  expect_cuda_equals_cpu(op(1), x, kState);
}

// Decay at its floor of 0.545, where a state that is rewound by division loses all digits within 16 steps, and
// at 1. There the gradient of w_raw is about 1e-13, in f32 too.
TEST(Wkv7, HoldsAtTheEndsOfTheDecay) {
  for (const double raw : {30.0, -30.0}) {
    std::vector<Tensor> x = inputs(1, 40, 1, 16, 3);
    x[1].fill(raw);
    expect_cuda_equals_cpu(op(1), x, kState);
    std::vector<Variable> exact, single;
    for (const Tensor& t : x) {
      exact.emplace_back(t, true);
      single.emplace_back(t.to(DType::f32), true);
    }
    const Tensor dy = random_tensor({1, 40, 16}, 1);
    backward({op(1)(exact)[0]}, {dy});
    backward({op(1)(single)[0]}, {dy.to(DType::f32)});
    for (size_t i = 0; i < 7; ++i) EXPECT_LT(relative_error(single[i].grad(), exact[i].grad()), 2e-6) << i;
  }
  std::vector<Tensor> x = inputs(1, 20, 1, 2, 4);
  x[1].fill(6.0);
  expect_gradients(op(1), x);
}

TEST(Wkv7, HoldsForRepeatedKeys) {
  std::vector<Tensor> x = inputs(1, 24, 1, 8, 7);
  for (const size_t i : {2u, 4u, 5u}) {
    for (int64_t t = 1; t < 24; ++t) std::copy_n(x[i].data<double>(), 8, x[i].data<double>() + t * 8);
  }
  expect_cuda_equals_cpu(op(1), x, kState);
}

// For every segment: d log w_t = sum_{s >= t} (r dr - k dk - b db)_s + sum_{s > t} (a da)_s + sum_i S_T dS_T.
// It follows from the recurrence alone, so it needs no reference.
void expect_identity(DType type, Device device, double tolerance) {
  const int64_t T = 150, N = 16;
  const std::vector<Tensor> x = inputs(1, T, 1, N, 8);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t.to(type).to(device), true);
  const std::vector<Variable> out = op(1)(v);
  const Tensor dstate = random_tensor({1, 1, N, N}, 21);
  backward({out[0], out[1]}, {random_tensor({1, T, N}, 20).to(type).to(device), dstate.to(type).to(device)});
  const auto home = [](const Tensor& t) { return t.to(kCpu).to(DType::f64); };
  const Tensor last = home(out[1].value());
  std::vector<Tensor> d;
  for (const Variable& leaf : v) d.push_back(home(leaf.grad()));
  Tensor got = Tensor::empty({T, N}, DType::f64), expected = Tensor::empty({T, N}, DType::f64);
  const auto at = [&](const Tensor& t, int64_t s, int64_t j) { return t.data<double>()[s * N + j]; };
  for (int64_t j = 0; j < N; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < N; ++i) sum += at(last, i, j) * at(dstate, i, j);
    for (int64_t t = T - 1; t >= 0; --t) {
      const auto pair = [&](size_t i) { return at(x[i], t, j) * at(d[i], t, j); };
      sum += pair(0) - pair(2) - pair(5);
      // The op's gradient is that of w_raw: divide by d log w / d w_raw.
      const double sigma = 1 / (1 + std::exp(-at(x[1], t, j)));
      got.data<double>()[t * N + j] = at(d[1], t, j) / (-std::exp(-0.5) * sigma * (1 - sigma));
      expected.data<double>()[t * N + j] = sum;
      sum += pair(4);
    }
  }
  EXPECT_LT(relative_error(got, expected), tolerance) << name_of(type) << " on " << to_string(device);
}

TEST(Wkv7, DecayGradientObeysItsIdentity) {
  expect_identity(DType::f64, kCpu, 1e-13);
  // Sums of up to 150 terms of both signs, each with the error of its gradient (some 1e-7).
  expect_identity(DType::f32, kCpu, 2e-6);
  if (cuda::available()) expect_identity(DType::f32, {DeviceType::cuda, 0}, 2e-6);
}

TEST(Wkv7, TwoPiecesEqualOne) {
  for (const auto& [T, half] : {std::pair{29, 11}, {70, 33}}) {
    const auto halves = [T = T, half = half](const std::vector<Variable>& v) -> std::vector<Variable> {
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
    for (const Tensor& t : inputs(2, T, 1, 8, 9)) {
      one.emplace_back(t.clone(), true);
      two.emplace_back(t.clone(), true);
    }
    const std::vector<Variable> a = op(1)(one), b = halves(two);
    const std::vector<Tensor> gradients = {random_tensor({2, T, 8}, 30), random_tensor({2, 1, 8, 8}, 31)};
    backward(a, gradients);
    backward(b, gradients);
    for (size_t i = 0; i < 2; ++i) EXPECT_LT(relative_error(a[i].value(), b[i].value()), 1e-14);
    for (size_t i = 0; i < 7; ++i) EXPECT_LT(relative_error(one[i].grad(), two[i].grad()), 1e-13) << i;
    expect_cuda_equals_cpu(halves, inputs(1, T, 1, 8, 9), kState);
  }
}

// With a reset at every step the state is v k^T and y = v (k r): nothing of w, a and b is left.
TEST(Wkv7, ResetsEverywhereLeaveOneStep) {
  const int64_t T = 18, N = 8;
  std::vector<Tensor> x = inputs(1, T, 1, N, 11);
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t, true);
  Tensor all = Tensor::empty({1, T}, DType::u8);
  all.fill_bytes(1);
  const Wkv7Output o = wkv7(v[0], v[1], v[2], v[3], v[4], v[5], 1, v[6], all);
  Tensor expected = Tensor::empty({1, T, N}, DType::f64);
  for (int64_t t = 0; t < T; ++t) {
    double kr = 0;
    for (int64_t j = t * N; j < (t + 1) * N; ++j) kr += x[2].data<double>()[j] * x[0].data<double>()[j];
    for (int64_t j = t * N; j < (t + 1) * N; ++j) expected.data<double>()[j] = x[3].data<double>()[j] * kr;
  }
  EXPECT_LT(relative_error(o.y.value(), expected), 1e-14);
  backward({o.y, o.state}, {random_tensor({1, T, N}, 1), random_tensor({1, 1, N, N}, 2)});
  for (const size_t i : {1u, 4u, 5u, 6u}) {
    for (const double g : v[i].grad().to_vector<double>()) EXPECT_EQ(g, 0.0) << i;
  }
  x.push_back(all);
  expect_cuda_equals_cpu(op(1), x, kState);
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

// A head is the work of one thread, and a run without gradients does the same sums.
TEST(Wkv7, DoesNotDependOnThreadsOrRecording) {
  const std::vector<Tensor> x = inputs(4, 128, 4, 64, 12);  // enough work for several threads
  const auto run = [&](int count) {
    set_threads(count);
    std::vector<Variable> v;
    for (const Tensor& t : x) v.emplace_back(t.to(DType::f32), true);
    const std::vector<Variable> out = op(4)(v);
    backward({out[0]}, {random_tensor({4, 128, 256}, 3).to(DType::f32)});
    std::vector<Tensor> results = {out[0].value(), out[1].value()};
    for (const Variable& leaf : v) results.push_back(leaf.grad());
    set_threads(0);
    return results;
  };
  const std::vector<Tensor> one = run(1), four = run(4);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].to_vector<float>(), four[i].to_vector<float>()) << i;
  const NoGrad scope;
  std::vector<Variable> v;
  for (const Tensor& t : x) v.emplace_back(t.to(DType::f32));
  const std::vector<Variable> out = op(4)(v);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(out[i].value().to_vector<float>(), one[i].to_vector<float>());
}

TEST(Wkv7, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({1, 2, 8}));
  expect_error([&] { wkv7(x, x, x, x, x, x, 3); },
               "wkv7: r is f32 [1, 2, 8] on cpu, expected [B, T, C] with C in 3 heads of 1 to 128 channels");
  const Variable wide(Tensor::zeros({1, 2, 129}));
  expect_error([&] { wkv7(wide, wide, wide, wide, wide, wide, 1); }, "wkv7: r is f32 [1, 2, 129]");
  expect_error([&] { wkv7(x, x, Variable(Tensor::zeros({1, 3, 8})), x, x, x, 2); }, "wkv7: k is f32 [1, 3, 8]");
  expect_error(
      [&] {
        wkv7(x, x, x, x, x, x, 2, Variable(Tensor::zeros({1, 2, 4, 5})));
      },
      "wkv7: state is f32 [1, 2, 4, 5] on cpu, expected f32 [1, 2, 4, 4] on cpu");
  expect_error(
      [&] {
        wkv7(x, Variable(Tensor::zeros({1, 2, 8}, DType::f64)), x, x, x, x, 2);
      },
      "wkv7: w is f64 [1, 2, 8]");
  expect_error([&] { wkv7(x, x, x, x, x, x, 2, {}, Tensor::zeros({1, 2})); }, "wkv7: reset is f32 [1, 2]");
}
