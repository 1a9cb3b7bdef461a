#include <cmath>

#include "core/cuda/runtime.h"
#include "ops/conv1d.h"
#include "ops/linear.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

VariableFunction conv(const Conv1dOptions& o) {
  return [o](const std::vector<Variable>& v) -> std::vector<Variable> {
    return {conv1d(v[0], v[1], v.size() > 2 ? v[2] : Variable(), o)};
  };
}

struct Case {
  const char* name;
  int64_t B, T, Cin, Cout, K;
  Conv1dOptions options;
};
const std::vector<Case> kCases = {
    {"causal_dilated", 2, 9, 3, 5, 2, {.pad_left = 4, .dilation = 4}},
    {"stem", 2, 11, 4, 6, 3, {.stride = 2, .pad_left = 1, .pad_right = 1}},
    {"compressor", 1, 13, 8, 8, 5, {.stride = 4, .pad_left = 3}},
    {"stride_beyond_kernel", 2, 10, 2, 3, 2, {.stride = 3}},
    {"strided_dilated", 1, 17, 3, 2, 3, {.stride = 2, .pad_left = 3, .pad_right = 2, .dilation = 3}},
    {"pointwise", 2, 5, 4, 3, 1, {}},
    {"pointwise_strided", 2, 5, 4, 3, 1, {.stride = 2, .pad_left = 1}},
    {"pointwise_every_second", 2, 5, 4, 3, 1, {.stride = 2}},
    {"one_channel_in", 2, 8, 1, 4, 3, {.pad_left = 2}},
    {"one_channel_out", 2, 8, 3, 1, 4, {.pad_right = 1}},
    {"one_step_out", 1, 4, 2, 3, 4, {}},
    {"padding_beyond_input", 1, 1, 2, 3, 3, {.pad_left = 4, .pad_right = 5}},
};

std::vector<Tensor> inputs(const Case& c, uint64_t seed = 1) {
  return {random_tensor({c.B, c.T, c.Cin}, seed), random_tensor({c.Cout, c.Cin, c.K}, seed + 1),
          random_tensor({c.Cout}, seed + 2)};
}

// A copy one element behind a 16-byte boundary.
Tensor unaligned(const Tensor& t) {
  Tensor view =
      Tensor::empty({t.numel() + 1}, t.dtype(), t.device()).slice(1, t.numel() + 1).reshape(t.shape());
  view.copy_from(t);
  return view;
}

}  // namespace

TEST(Conv1d, EqualsPyTorch) {
  for (const Case& c : kCases) expect_golden("conv1d", c.name, conv(c.options));
  expect_golden("conv1d", "no_bias", conv({.pad_left = 1}));
}

TEST(Conv1d, GradientsEqualFiniteDifferences) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    expect_gradients(conv(c.options), inputs(c));
  }
}

TEST(Conv1d, EqualsItsFormula) {
  for (const Case& c : kCases) {
    const std::vector<Tensor> v = inputs(c, 20);
    const Tensor y = conv1d(Variable(v[0]), Variable(v[1]), Variable(v[2]), c.options).value();
    const Conv1dOptions& o = c.options;
    const int64_t T_out = (c.T + o.pad_left + o.pad_right - o.dilation * (c.K - 1) - 1) / o.stride + 1;
    Tensor expected = Tensor::empty({c.B, T_out, c.Cout}, DType::f64);
    for (int64_t i = 0; i < expected.numel(); ++i) {
      const int64_t out = i % c.Cout, t = i / c.Cout % T_out, b = i / c.Cout / T_out;
      double sum = v[2].data<double>()[out];
      for (int64_t k = 0; k < c.K; ++k) {
        const int64_t s = t * o.stride + k * o.dilation - o.pad_left;
        for (int64_t in = 0; in < c.Cin && s >= 0 && s < c.T; ++in) {
          sum += v[1].data<double>()[(out * c.Cin + in) * c.K + k] *
                 v[0].data<double>()[(b * c.T + s) * c.Cin + in];
        }
      }
      expected.data<double>()[i] = sum;
    }
    EXPECT_LE(relative_error(y, expected), 1e-14) << c.name;
  }
}

TEST(Conv1d, CudaEqualsCpu) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    expect_cuda_equals_cpu(conv(c.options), inputs(c));
  }
  const Conv1dOptions causal{.pad_left = 8, .dilation = 8};
  for (const int64_t C : {1, 8, 16, 31, 33}) {  // rows of 16 bytes and others
    expect_cuda_equals_cpu(conv(causal), inputs({"", 2, 21, C, 8, 2, causal}, uint64_t(C)));
    expect_cuda_equals_cpu(conv(causal), inputs({"", 2, 21, 8, C, 2, causal}, uint64_t(C)));
  }
  expect_cuda_equals_cpu(conv({.stride = 2}),
                         {random_tensor({1, 33, 4}, 1), random_tensor({4, 4, 3}, 2)});  // no bias
}

TEST(Conv1d, UnalignedTensorsGiveTheSame) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  const Device device{DeviceType::cuda, 0};
  for (const DType type : {DType::f32, DType::bf16}) {
    const auto run = [&](bool odd) {
      const auto make = [&](const Shape& shape, uint64_t seed) {
        const Tensor t = random_tensor(shape, seed).to(type).to(device);
        return odd ? unaligned(t) : t;
      };
      Variable x(make({2, 9, 8}, 1), true), w(random_tensor({8, 8, 2}, 2).to(type).to(device), true);
      if (odd) x.set_grad_buffer(unaligned(Tensor::zeros({2, 9, 8}, DType::f32, device)));
      const Variable y = conv1d(x, w, {}, {.pad_left = 1});
      backward({y}, {random_tensor(y.shape(), 3).to(type).to(device)});
      return std::vector<Tensor>{y.value(), x.grad(), w.grad()};
    };
    const std::vector<Tensor> even = run(false), odd = run(true);
    for (size_t i = 0; i < even.size(); ++i) EXPECT_EQ(relative_error(odd[i], even[i]), 0) << i;
  }
}

TEST(Conv1d, MakesOnlyTheGradientsThatAreWanted) {
  const Case& c = kCases[1];
  for (size_t fixed = 0; fixed < 3; ++fixed)
    expect_cuda_equals_cpu(conv(c.options), inputs(c), {.fixed = {fixed}});
  const std::vector<Tensor> v = inputs(c);
  const Variable x(v[0]), w(v[1]), b(v[2], true);
  const Variable y = conv1d(x, w, b, c.options);
  backward({y}, {random_tensor(y.shape(), 1)});
  EXPECT_FALSE(x.grad().defined() || w.grad().defined());
  EXPECT_TRUE(b.grad().defined());
}

TEST(Conv1d, AcceptsNoSamplesAndNoSteps) {
  expect_cuda_equals_cpu(conv({.pad_left = 1}), inputs({"", 0, 5, 3, 4, 2, {}}));
  expect_cuda_equals_cpu(conv({.pad_left = 3}), inputs({"", 2, 0, 3, 4, 2, {}}));
  expect_cuda_equals_cpu(conv({}), inputs({"", 0, 5, 3, 4, 1, {}}));
  const Variable w(random_tensor({4, 3, 2}, 1), true);
  const Variable y = conv1d(Variable(random_tensor({0, 5, 3}, 1)), w);
  backward({y}, {Tensor::zeros({0, 4, 4}, DType::f64)});
  EXPECT_EQ(relative_error(w.grad(), Tensor::zeros({4, 3, 2})), 0);
}

TEST(Conv1d, CausalOutputsDoNotSeeTheFuture) {
  for (const int64_t dilation : {1, 4, 64}) {
    const Conv1dOptions causal{.pad_left = dilation, .dilation = dilation};
    const Variable w(random_tensor({3, 2, 2}, 1));
    Tensor x = random_tensor({1, 70, 2}, 2);
    const Tensor before = conv1d(Variable(x), w, {}, causal).value();
    ASSERT_EQ(before.size(1), 70);
    x = x.clone();
    x.data<double>()[2 * 66] += 1;  // step 66
    const Tensor after = conv1d(Variable(x), w, {}, causal).value();
    for (int64_t t = 0; t < 70; ++t) {
      const bool differs = before.data<double>()[3 * t] != after.data<double>()[3 * t];
      EXPECT_EQ(differs, t == 66 || t == 66 + dilation) << dilation << " " << t;
    }
  }
}

TEST(Conv1d, OneTapIsALinearLayer) {
  const Variable x(random_tensor({2, 5, 4}, 1)), w(random_tensor({3, 4, 1}, 2)), b(random_tensor({3}, 3));
  const Variable flat(w.value().reshape({3, 4}));
  EXPECT_EQ(relative_error(conv1d(x, w, b).value(), linear(x, flat, b).value()), 0);
}

TEST(Conv1d, OutputLengthsOfTheCompressor) {
  const auto steps = [](int64_t T, int64_t K, const Conv1dOptions& o) {
    return conv1d(Variable(Tensor::zeros({1, T, 1})), Variable(Tensor::zeros({1, 1, K})), {}, o).size(1);
  };
  EXPECT_EQ(steps(577, 3, {.stride = 2}), 288);
  EXPECT_EQ(steps(576, 4, {.stride = 3, .pad_left = 1, .pad_right = 1}), 192);
  EXPECT_EQ(steps(576, 5, {.stride = 4, .pad_left = 1, .pad_right = 1}), 144);
  EXPECT_EQ(steps(84, 5, {.stride = 4, .pad_left = 1}), 21);
  EXPECT_EQ(steps(90, 5, {.stride = 4, .pad_left = 3}), 23);
  EXPECT_EQ(steps(1500, 3, {.stride = 2, .pad_left = 2, .pad_right = 2}), 751);
}

TEST(Conv1d, RefusesWrongInputsByName) {
  const Variable x(Tensor::zeros({2, 6, 12})), w(Tensor::zeros({32, 16, 3})), fits(Tensor::zeros({32, 12, 3}));
  expect_error([&] { conv1d(x, w); }, "conv1d: input has 12 channels, weight expects 16 (weight [32, 16, 3])");
  expect_error(
      [&] { conv1d(x, fits, {}, {.dilation = 3}); },
      "conv1d: 6 steps with padding 0 + 0 are fewer than the 7 that the kernel spans (K 3, dilation 3)");
  expect_error([&] { conv1d(x, fits, {}, {.stride = 0}); }, "conv1d: stride 0, dilation 1, padding 0 + 0");
  expect_error([&] { conv1d(x, fits, {}, {.pad_left = -1}); }, "padding -1 + 0");
  expect_error([&] { conv1d(x, fits, Variable(Tensor::zeros({31}))); },
               "conv1d: bias is f32 [31] on cpu, expected [32]");
  expect_error(
      [&] {
        conv1d(x, Variable(Tensor::zeros({32, 12, 3}, DType::f64)));
      },
      "weight is f64 [32, 12, 3]");
  expect_error(
      [&] {
        conv1d(x, Variable(Tensor::zeros({32, 12})));
      },
      "expected [B, T, Cin] and [Cout, Cin, K]");
  expect_error([&] { conv1d(x, Variable(Tensor::zeros({32, 12, 0}))); }, "without zero sizes");
  expect_error(
      [&] {
        conv1d(Variable(Tensor::zeros({2, 6, 4}, DType::i32)), Variable(Tensor::zeros({4, 4, 2}, DType::i32)));
      },
      "conv1d: element type is i32");
}
