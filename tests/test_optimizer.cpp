// Whole training steps: the optimiser on a model, beside the same steps in PyTorch float64
// (tools/reference_training.py).
#include <algorithm>
#include <cmath>
#include <memory>

#include "core/cuda/runtime.h"
#include "core/hdf5.h"
#include "models/forecaster.h"
#include "models/rwkv7.h"
#include "ops/cross_entropy.h"
#include "ops/mse.h"
#include "tests/op_test.h"
#include "train/optimizer.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

const Device kCuda{DeviceType::cuda, 0};

// L2-D128 with two heads, V 64, on fixed batches of 4 x 32 tokens of a Markov chain.
struct Training {
  FileReader golden{"tests/goldens/training_l2d128.h5"};
  std::unique_ptr<Rwkv7> model;
  Tensor tokens = golden.read("/tokens");
  std::vector<double> losses, norms;

  Training() {
    Rwkv7Config c;
    c.layers = 2;
    c.width = 128;
    c.vocab = 64;
    const auto rank = [&](const char* name) {
      return int64_t(golden.info(std::string("/param.blocks.1.att.") + name).shape[1]);
    };
    c.rank_w = rank("w1");
    c.rank_a = rank("a1");
    c.rank_v = rank("v1");
    c.rank_g = rank("g1");
    model = std::make_unique<Rwkv7>(c, Init(1));
    std::vector<NamedTensor> tensors;
    for (const std::string& name : golden.list("/")) {
      if (name.rfind("param.", 0) == 0) tensors.push_back({name.substr(6), golden.read("/" + name)});
    }
    model->load(tensors, "training_l2d128.h5");
  }

  void run(DType type, Device device, int64_t steps = 20) {
    model->to(device, type);
    const auto number = [&](const char* name) { return golden.attribute_double("/", name); };
    OptimizerOptions o;
    o.beta1 = number("beta1");
    o.beta2 = number("beta2");
    o.eps = number("eps");
    o.weight_decay = number("weight_decay");
    o.clip = number("clip");
    o.w0_rate = number("w0_rate");
    Optimizer optimizer(*model, o);
    for (int64_t step = 0; step < steps; ++step) {
      std::vector<int32_t> in, out;
      const int32_t* row = tokens.data<int32_t>() + step * 4 * 33;
      for (int64_t b = 0; b < 4; ++b, row += 33) {
        in.insert(in.end(), row, row + 32);
        out.insert(out.end(), row + 1, row + 33);
      }
      optimizer.zero_grad();
      const Variable hidden = model->forward(model->embed(Tensor::from(in, {4, 32}).to(device)));
      const Variable loss = cross_entropy(model->head(hidden), Tensor::from(out, {4, 32}).to(device));
      backward(loss);
      losses.push_back(loss.value().to(kCpu).to(DType::f64).data<double>()[0]);
      norms.push_back(optimizer.step(number("lr")).grad_norm);
    }
  }

  double worst(const std::vector<double>& ours, const std::string& name) const {
    const std::vector<double> theirs = golden.read_vector<double>("/" + name);
    double w = 0;
    for (size_t i = 0; i < ours.size(); ++i) w = std::max(w, std::fabs(ours[i] / theirs[i] - 1));
    return w;
  }
};

}  // namespace

TEST(Training, TwentyStepsEqualPyTorchOnTheCpu) {
  Training exact;
  exact.run(DType::f64, kCpu);
  EXPECT_LE(exact.worst(exact.losses, "losses"), 1e-9);
  EXPECT_LE(exact.worst(exact.norms, "grad_norms"), 1e-8);
  for (const Parameter& p : exact.model->parameters()) {
    if (exact.golden.has("/final." + p.name)) {
      EXPECT_LE(relative_error(p.variable->value(), exact.golden.read("/final." + p.name)), 1e-8) << p.name;
    }
  }
  Training plain;
  plain.run(DType::f32, kCpu);
  EXPECT_LE(plain.worst(plain.losses, "losses"), 2e-6);
  EXPECT_LT(plain.losses.back(), 0.95 * plain.losses.front());
}

TEST(Training, TwentyStepsEqualPyTorchOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  Training t;
  t.run(DType::f32, kCuda);
  EXPECT_LE(t.worst(t.losses, "losses"), 2e-6);
}

TEST(Training, TwentyBf16StepsFollowPyTorchOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  Training t;
  t.run(DType::bf16, kCuda);
  EXPECT_LE(t.worst(t.losses, "losses"), 3e-3);
}

TEST(Training, OneBf16StepOfTheForecasterOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  ForecasterConfig c;
  c.lookback = 48;
  c.horizon = 12;
  c.encoder = {4, 8, 16, 16, 2, 4};
  c.rwkv.width = 32;
  c.rwkv.head_size = 16;
  const Tensor past = random_tensor({3, 48}, 1).to(DType::f32), future = random_tensor({3, 12}, 2);
  std::vector<Tensor> after;
  for (const auto& [type, device] : {std::pair{DType::f64, kCpu}, std::pair{DType::bf16, kCuda}}) {
    Forecaster model(c, 7);
    for (const Parameter& p :
         model.parameters()) {  // away from the zeros of the initialisation, the same for both
      Tensor value = p.variable->value();
      value.add(random_tensor(value.shape(), 100 + value.numel(), 0.2).to(DType::f32));
      value.copy_from(value.to(DType::bf16).to(DType::f32));
    }
    model.to(device, type);
    Optimizer optimizer(model, {});
    optimizer.zero_grad();
    const Forecaster::Output out = model.forward(past);
    const Variable loss = mse(out.normalised, future.to(DType::f32).to(type).to(device));
    backward(loss);
    const Optimizer::Step step = optimizer.step(1e-3);
    EXPECT_TRUE(step.applied);
    after.push_back(loss.value().to(kCpu).to(DType::f64));
    after.push_back(Tensor::full({1}, step.grad_norm, DType::f64));
  }
  EXPECT_LE(relative_error(after[2], after[0]), 0.02);  // loss
  EXPECT_LE(relative_error(after[3], after[1]), 0.05);  // gradient norm
}

TEST(Optimizer, GroupsFollowTheNames) {
  EXPECT_EQ(parameter_group("blocks.0.att.w0", {1, 1, 64}), 2);
  EXPECT_EQ(parameter_group("blocks.0.att.key.weight", {64, 64}), 0);
  EXPECT_EQ(parameter_group("encoder.blocks.0.filter.weight", {16, 16, 2}), 0);
  EXPECT_EQ(parameter_group("blocks.0.ln1.weight", {64}), 1);
  EXPECT_EQ(parameter_group("blocks.0.att.w1", {64, 32}), 1);
  EXPECT_EQ(parameter_group("blocks.0.att.r_k", {1, 64}), 1);
  EXPECT_EQ(parameter_group("adapter.mlp.0.bias", {256}), 1);
}

TEST(Optimizer, SkipsAStepThatIsNotFinite) {
  Rwkv7Config c;
  c.vocab = 8;
  Rwkv7 model(c, Init(1));
  Optimizer optimizer(model, {});
  const Tensor ids = Tensor::from<int32_t>({1, 2, 3}, {1, 3});
  optimizer.zero_grad();
  backward(cross_entropy(model.head(model.forward(model.embed(ids))), ids));
  const std::vector<float> before = optimizer.master().to_vector<float>();
  for (const Parameter& p : model.parameters()) {
    if (p.name == "head.weight") p.variable->grad().data<float>()[0] = NAN;
  }
  EXPECT_FALSE(optimizer.step(0.1).applied);
  EXPECT_EQ(optimizer.master().to_vector<float>(), before);
  EXPECT_EQ(optimizer.steps_done(), 0);
}
