#include <cmath>
#include <memory>

#include "core/cuda/runtime.h"
#include "core/hdf5.h"
#include "models/rwkv7.h"
#include "ops/time_axis.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

// The golden model: 2 layers, width 32 in two heads of 16, unequal ranks, V 11, T 37 (not divisible by 16).
Rwkv7Config golden_config() {
  Rwkv7Config c;
  c.layers = 2;
  c.width = 32;
  c.head_size = 16;
  c.vocab = 11;
  c.rank_w = 8;
  c.rank_a = 4;
  c.rank_v = 12;
  c.rank_g = 16;
  return c;
}

struct Golden {
  FileReader file{"tests/goldens/rwkv7.h5"};
  std::unique_ptr<Rwkv7> model;

  Golden() {
    Rwkv7Config config = golden_config();
    config.ffn = file.info("/param.blocks.0.ffn.key.weight").shape[0];
    model = std::make_unique<Rwkv7>(config, Init(1));
    model->to(kCpu, DType::f64);
    std::vector<NamedTensor> tensors;
    for (const std::string& name : file.list("/")) {
      if (name.rfind("param.", 0) == 0) tensors.push_back({name.substr(6), file.read("/" + name)});
    }
    model->load(tensors, "rwkv7.h5");  // every parameter, and nothing else
  }
  Tensor read(const std::string& name) const { return file.read("/" + name); }
};

Tensor as(const Tensor& t, DType type, Device device) { return t.to(DType::f32).to(type).to(device); }

Rwkv7State state(const Golden& g, DType type, DType wide, Device device) {
  Rwkv7State s;
  for (int64_t l = 0; l < 2; ++l) {
    const std::string p = "state." + std::to_string(l) + ".";
    const auto get = [&](const std::string& name, DType t) {
      const Tensor x = g.read(p + name);
      return Variable(t == DType::f64 ? x : as(x, t, device), true);
    };
    s.layers.push_back({get("att_x", type), get("S", wide), get("ffn_x", type)});
  }
  return s;
}

// Forward and backward, all outputs and gradients against the golden.
void compare(const std::string& prefix, DType type, Device device, double tolerance) {
  SCOPED_TRACE(prefix + name_of(type) + " " + to_string(device));
  Golden g;
  if (type != DType::f64) g.model->to(kCpu, DType::f32);
  g.model->to(device, type);
  const DType wide = type == DType::bf16 ? DType::f32 : type;
  const Rwkv7State before = state(g, type, wide, device);
  Rwkv7State after = before;
  const Tensor reset = prefix.empty() ? Tensor() : g.read(prefix + "reset").to(device);
  const Variable logits =
      g.model->head(g.model->forward(g.model->embed(g.read("tokens").to(device)), &after, reset));
  EXPECT_LE(relative_error(logits.value(), g.read(prefix + "logits")), tolerance);
  std::vector<Variable> outputs = {logits};
  std::vector<Tensor> gradients = {g.read("dlogits")
                                       .to(logits.dtype() == DType::f64 ? DType::f64 : DType::f32)
                                       .to(logits.dtype())
                                       .to(device)};
  const auto parts = [](Rwkv7State::Layer& l) {
    return std::vector<std::pair<std::string, Variable*>>{
        {"att_x", &l.att_x}, {"S", &l.S}, {"ffn_x", &l.ffn_x}};
  };
  for (size_t l = 0; l < 2; ++l) {
    for (const auto& [name, v] : parts(after.layers[l])) {
      const std::string key = std::to_string(l) + "." + name;
      EXPECT_LE(relative_error(v->value(), g.read(prefix + "state_out." + key)), tolerance) << key;
      outputs.push_back(*v);
      gradients.push_back(g.read("dstate_out." + key)
                              .to(v->dtype() == DType::f64 ? DType::f64 : DType::f32)
                              .to(v->dtype())
                              .to(device));
    }
  }
  backward(outputs, gradients);
  for (const Parameter& p : g.model->parameters()) {
    ASSERT_TRUE(p.variable->grad().defined()) << p.name;
    EXPECT_LE(relative_error(p.variable->grad(), g.read(prefix + "grad." + p.name)), tolerance) << p.name;
  }
  for (size_t l = 0; l < 2; ++l) {
    Rwkv7State::Layer layer = before.layers[l];
    for (const auto& [name, v] : parts(layer)) {
      const std::string key = std::to_string(l) + "." + name;
      EXPECT_LE(relative_error(v->grad(), g.read(prefix + "grad_state." + key)), tolerance) << key;
    }
  }
}

}  // namespace

TEST(Rwkv7, EqualsPyTorch) {
  for (const char* prefix : {"", "packed."}) {
    compare(prefix, DType::f64, kCpu, 1e-11);
    compare(prefix, DType::f32, kCpu, 1e-5);
  }
}

TEST(Rwkv7, EqualsPyTorchOnCuda) {
  if (!cuda::available()) GTEST_SKIP() << cuda::why_unavailable();
  for (const char* prefix : {"", "packed."}) compare(prefix, DType::f32, {DeviceType::cuda, 0}, 1e-5);
  compare("", DType::bf16, {DeviceType::cuda, 0},
          0.1);  // some forty roundings of 2^-9 lie on the way to a gradient
}

TEST(Rwkv7, PiecesAndStepsEqualTheWholeSequence) {
  Golden g;
  const NoGrad scope;
  const Variable x = g.model->embed(g.read("tokens"));
  Rwkv7State whole_state;
  const Variable whole = g.model->forward(x, &whole_state);
  for (const std::vector<int64_t>& cuts :
       {std::vector<int64_t>{0, 20, 37}, std::vector<int64_t>{0, 1, 2, 3, 4, 5, 37}}) {
    Rwkv7State s;
    std::vector<Variable> pieces;
    for (size_t i = 0; i + 1 < cuts.size(); ++i)
      pieces.push_back(g.model->forward(slice_time(x, cuts[i], cuts[i + 1]), &s));
    EXPECT_LT(relative_error(concat_time(pieces).value(), whole.value()), 1e-13);
    EXPECT_LT(relative_error(s.layers[1].S.value(), whole_state.layers[1].S.value()), 1e-13);
  }
}

// Formula-defined values of the official initialisation, and the counts of a released model.
TEST(Rwkv7, InitialValuesAreTheOfficialOnes) {
  Rwkv7Config c;
  c.layers = 3;
  c.width = 128;
  c.vocab = 50;
  const Rwkv7 model(c, Init(1));
  const auto value = [&](const std::string& name) {
    for (const Parameter& p : model.parameters()) {
      if (p.name == name) return p.variable->value().to_vector<float>();
    }
    return std::vector<float>();
  };
  EXPECT_FLOAT_EQ(value("blocks.1.att.x_r")[64], float(1 - std::pow(0.5, 0.2 * (1 - 1.0 / 3))));
  EXPECT_FLOAT_EQ(value("blocks.2.ffn.x_k")[0], 1.0f);
  const double z = (0 - 31.5) / 31.5;
  EXPECT_FLOAT_EQ(value("blocks.2.att.w0")[0], float(-6 + 0.5 + 2.5 * z * std::fabs(z)));
  EXPECT_FLOAT_EQ(value("blocks.0.att.w0")[127], float(0 + 0.5 + 2.5));
  EXPECT_FLOAT_EQ(value("blocks.1.att.ln_x.weight")[5], float(std::pow(2.0 / 3, 0.7)));
  EXPECT_FLOAT_EQ(value("blocks.1.att.v0")[127], float(0.73 - 0.2));
  EXPECT_FLOAT_EQ(value("blocks.1.att.r_k")[3], -0.04f);
  EXPECT_TRUE(value("blocks.0.att.v0").empty());
  for (const float x : value("blocks.2.att.output.weight")) ASSERT_EQ(x, 0.0f);
}

// The official count, 2VC + 4C + L (19C + 12C^2 + 2C (Dw + Da + Dv + Dg)), holds the v0, v1, v2 of block 0,
// which nothing reads.
TEST(Rwkv7, HasAsManyParametersAsTheFormula) {
  const auto formula = [](int64_t V, int64_t C, int64_t L, int64_t ranks) {
    return 2 * V * C + 4 * C + L * (19 * C + 12 * C * C + 2 * C * ranks);
  };
  EXPECT_EQ(formula(65536, 768, 12, 64 + 64 + 32 + 128), 191084544);   // the released 0.1B
  EXPECT_EQ(formula(65536, 1024, 24, 64 + 64 + 32 + 128), 450834432);  // and 0.4B
  const int64_t unused = 32 + 2 * 32 * 12;
  EXPECT_EQ(Rwkv7(golden_config(), Init(1)).parameter_count() + unused, formula(11, 32, 2, 8 + 4 + 12 + 16));
}

TEST(Rwkv7, RefusesWrongSizesByName) {
  Rwkv7Config c;
  c.width = 100;
  expect_error([&] { Rwkv7(c, Init(1)); }, "rwkv7: 1 layers of width 100 with heads of 64");
  c.width = 64;
  const Rwkv7 model(c, Init(1));
  expect_error(
      [&] {
        model.forward(Variable(Tensor::zeros({1, 2, 32})));
      },
      "rwkv7: input is f32 [1, 2, 32] on cpu, expected [B, T, 64]");
  expect_error([&] { model.embed(Tensor::zeros({1, 2}, DType::i32)); }, "no token embedding");
}
