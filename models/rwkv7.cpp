// The RWKV-7 network, assembled from ops.
#include "models/rwkv7.h"

#include <cmath>

#include "core/error.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"
#include "ops/time_axis.h"
#include "ops/time_mix_keys.h"
#include "ops/time_mix_output.h"
#include "ops/token_shift.h"
#include "ops/value_residual.h"
#include "ops/wkv7.h"

namespace modrwkv {
namespace {

constexpr double kLayerNormEps = 1e-5;

// Official rule (RWKV-LM, since 2025): max(32, 32 * round(x / 32)), halves to even.
int64_t rank_of(double x) { return std::max<int64_t>(32, 32 * int64_t(std::nearbyint(x / 32))); }

template <class F>
Tensor filled(const Shape& shape, F value) {
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(value(i));
  return t;
}

Tensor ones(int64_t n) { return Tensor::full({n}, 1.0); }
Tensor zeros(const Shape& shape) { return Tensor::zeros(shape); }

Variable last_row(const Variable& x) {  // [B, T, C] -> [B, C]
  return reshape(slice_time(x, x.size(1) - 1, x.size(1)), {x.size(0), x.size(2)});
}

}  // namespace

void Rwkv7Config::complete() {
  require(layers >= 0 && width > 0 && head_size > 0 && width % head_size == 0 && vocab >= 0,
          "rwkv7: {} layers of width {} with heads of {}: the width must be a multiple of the head size",
          layers, width, head_size);
  const double root = std::sqrt(double(width));
  if (ffn == 0) ffn = 4 * width;
  if (rank_w == 0) rank_w = rank_of(2.5 * root);
  if (rank_a == 0) rank_a = rank_of(2.5 * root);
  if (rank_v == 0) rank_v = rank_of(1.7 * root);
  if (rank_g == 0) rank_g = rank_of(5 * root);
}

// One block: "blocks.I." with ln1, att, ln2, ffn.
class Rwkv7Block : public Module {
 public:
  Rwkv7Block(const Rwkv7Config& c, int64_t layer, const Init& init);
  Variable forward(Variable x, Variable& v_first, Rwkv7State::Layer* state, const Tensor& reset) const;

 private:
  Variable time_mix(const Variable& x, Variable& v_first, Rwkv7State::Layer* state, const Tensor& reset) const;
  Variable channel_mix(const Variable& x, Rwkv7State::Layer* state, const Tensor& reset) const;

  int64_t layer_, heads_, head_size_;
  Variable ln1_weight_, ln1_bias_, ln2_weight_, ln2_bias_, ln_x_weight_, ln_x_bias_;
  Variable x_r_, x_w_, x_k_, x_v_, x_a_, x_g_, w0_, w1_, w2_, a0_, a1_, a2_, v0_, v1_, v2_, g1_, g2_, k_k_,
      k_a_, r_k_;
  Variable receptance_, key_, value_, output_, ffn_x_k_, ffn_key_, ffn_value_;
};

// Initial values as the official trainer generates them (RWKV-LM, RWKV-v7/train_temp).
Rwkv7Block::Rwkv7Block(const Rwkv7Config& c, int64_t layer, const Init& init)
    : layer_(layer), heads_(c.heads()), head_size_(c.head_size) {
  const int64_t C = c.width, N = c.head_size;
  const double up = c.layers > 1 ? double(layer) / double(c.layers - 1) : 0.0,
               down = 1.0 - double(layer) / double(c.layers);
  const std::string prefix = "blocks." + std::to_string(layer) + ".";
  const auto linear_ramp = [C](int64_t n) { return C > 1 ? double(n) / double(C - 1) - 0.5 : 0.0; };
  const auto zigzag = [N](int64_t n) {
    const double half = double(N - 1) / 2, z = N > 1 ? (double(n % N) - half) / half : 0.0;
    return z * std::fabs(z);
  };
  const Shape vector{1, 1, C};
  const auto mix = [&](double exponent) {
    return filled(vector, [&](int64_t n) { return 1.0 - std::pow(double(n) / double(C), exponent); });
  };
  const auto orthogonal = [&](const char* name, int64_t rows, int64_t cols, double gain) {
    return init.orthogonal(prefix + name, rows, cols, gain);
  };
  const auto low_rank_up = [&](const char* name, int64_t rank) {
    return orthogonal(name, rank, C, 0.1 * (rank > C ? std::sqrt(double(rank) / double(C)) : 1.0));
  };

  add_parameter("ln1.weight", ln1_weight_, ones(C));
  add_parameter("ln1.bias", ln1_bias_, zeros({C}));
  add_parameter("ln2.weight", ln2_weight_, ones(C));
  add_parameter("ln2.bias", ln2_bias_, zeros({C}));
  add_parameter("att.x_r", x_r_, mix(0.2 * down));
  add_parameter("att.x_w", x_w_, mix(0.9 * down));
  add_parameter("att.x_k", x_k_, mix(0.7 * down));
  add_parameter("att.x_v", x_v_, mix(0.7 * down));
  add_parameter("att.x_a", x_a_, mix(0.9 * down));
  add_parameter("att.x_g", x_g_, mix(0.2 * down));
  add_parameter("att.w0", w0_, filled(vector, [&](int64_t n) {
                  const double ramp = C > 1 ? double(n) / double(C - 1) : 0.0;
                  return -6 + 6 * std::pow(ramp, 1 + std::pow(up, 0.3)) + 0.5 + 2.5 * zigzag(n);
                }));
  add_parameter("att.w1", w1_, zeros({C, c.rank_w}));
  add_parameter("att.w2", w2_, low_rank_up("att.w2", c.rank_w));
  add_parameter("att.a0", a0_,
                filled(vector, [&](int64_t n) { return -0.19 + 0.3 * zigzag(n) + 0.4 * linear_ramp(n); }));
  add_parameter("att.a1", a1_, zeros({C, c.rank_a}));
  add_parameter("att.a2", a2_, low_rank_up("att.a2", c.rank_a));
  if (layer > 0) {  // block 0 makes v_first and mixes nothing in
    add_parameter("att.v0", v0_, filled(vector, [&](int64_t n) { return 0.73 - 0.4 * linear_ramp(n); }));
    add_parameter("att.v1", v1_, zeros({C, c.rank_v}));
    add_parameter("att.v2", v2_, low_rank_up("att.v2", c.rank_v));
  }
  add_parameter("att.g1", g1_, zeros({C, c.rank_g}));
  add_parameter("att.g2", g2_, low_rank_up("att.g2", c.rank_g));
  add_parameter("att.k_k", k_k_, filled(vector, [&](int64_t n) { return 0.71 - 0.1 * linear_ramp(n); }));
  add_parameter("att.k_a", k_a_, filled(vector, [](int64_t) { return 1.02; }));
  add_parameter("att.r_k", r_k_, Tensor::full({heads_, N}, -0.04));
  add_parameter("att.receptance.weight", receptance_, orthogonal("att.receptance.weight", C, C, 1.0));
  add_parameter("att.key.weight", key_, orthogonal("att.key.weight", C, C, 0.1));
  add_parameter("att.value.weight", value_, orthogonal("att.value.weight", C, C, 1.0));
  add_parameter("att.output.weight", output_, zeros({C, C}));
  add_parameter("att.ln_x.weight", ln_x_weight_,
                Tensor::full({C}, std::pow(double(1 + layer) / double(c.layers), 0.7)));
  add_parameter("att.ln_x.bias", ln_x_bias_, zeros({C}));
  add_parameter("ffn.x_k", ffn_x_k_, mix(std::pow(down, 4)));
  add_parameter("ffn.key.weight", ffn_key_, orthogonal("ffn.key.weight", c.ffn, C, 1.0));
  add_parameter("ffn.value.weight", ffn_value_, zeros({C, c.ffn}));
}

Variable Rwkv7Block::forward(Variable x, Variable& v_first, Rwkv7State::Layer* state,
                             const Tensor& reset) const {
  x = add(x, time_mix(layer_norm(x, ln1_weight_, ln1_bias_, kLayerNormEps), v_first, state, reset));
  return add(x, channel_mix(layer_norm(x, ln2_weight_, ln2_bias_, kLayerNormEps), state, reset));
}

Variable Rwkv7Block::time_mix(const Variable& x, Variable& v_first, Rwkv7State::Layer* state,
                              const Tensor& reset) const {
  const Variable previous = state ? state->att_x : Variable();
  const std::vector<Variable> mixed = token_shift(x, previous, {x_r_, x_w_, x_k_, x_v_, x_a_, x_g_}, reset);
  const Variable &xr = mixed[0], &xw = mixed[1], &xk = mixed[2], &xv = mixed[3], &xa = mixed[4], &xg = mixed[5];
  const auto project = [](const Variable& in, const Variable& matrix, const Variable& bias = Variable()) {
    return linear(in, matrix, bias, WeightLayout::in_out);
  };
  const Variable r = linear(xr, receptance_);
  const Variable w = project(tanh(project(xw, w1_)), w2_, w0_);  // before the sigmoid of the decay
  const Variable a = project(project(xa, a1_), a2_, a0_);        // before its sigmoid
  const Variable g = project(sigmoid(project(xg, g1_)), g2_);
  Variable v = linear(xv, value_);
  if (layer_ == 0) {
    v_first = v;
  } else {
    v = value_residual(v, v_first, project(project(xv, v1_), v2_, v0_));
  }
  const std::vector<Variable> keys = time_mix_keys(linear(xk, key_), a, k_k_, k_a_, heads_);  // k, -kk, kk * a
  const Wkv7Output out = wkv7(r, w, keys[0], v, keys[1], keys[2], heads_, state ? state->S : Variable(), reset);
  if (state) {
    state->att_x = last_row(x);
    state->S = out.state;
  }
  const double eps = 1e-5 * double(head_size_);
  return linear(time_mix_output(out.y, r, keys[0], v, g, r_k_, ln_x_weight_, ln_x_bias_, eps), output_);
}

Variable Rwkv7Block::channel_mix(const Variable& x, Rwkv7State::Layer* state, const Tensor& reset) const {
  const Variable previous = state ? state->ffn_x : Variable();
  const Variable xk = token_shift(x, previous, {ffn_x_k_}, reset)[0];
  if (state) state->ffn_x = last_row(x);
  return linear(relu_squared(linear(xk, ffn_key_)), ffn_value_);
}

Rwkv7::Rwkv7(Rwkv7Config config, const Init& init) : config_(config) {
  config_.complete();
  const int64_t C = config_.width, V = config_.vocab;
  add_parameter("blocks.0.ln0.weight", ln0_weight_, ones(C));
  add_parameter("blocks.0.ln0.bias", ln0_bias_, zeros({C}));
  add_parameter("ln_out.weight", ln_out_weight_, ones(C));
  add_parameter("ln_out.bias", ln_out_bias_, zeros({C}));
  if (V > 0) {
    add_parameter("emb.weight", emb_, init.uniform("emb.weight", {V, C}, 1e-4));
    const double gain = V > C ? 0.5 * std::sqrt(double(V) / double(C)) : 0.5;
    add_parameter("head.weight", head_, init.orthogonal("head.weight", V, C, gain));
  }
  for (int64_t i = 0; i < config_.layers; ++i) {
    blocks_.push_back(std::make_unique<Rwkv7Block>(config_, i, init));
    add_module("blocks." + std::to_string(i) + ".", *blocks_.back());
  }
}

Rwkv7::~Rwkv7() = default;

Variable Rwkv7::embed(const Tensor& tokens) const {
  require(config_.vocab > 0, "rwkv7: this model has no token embedding");
  return embedding(emb_, tokens);
}

Variable Rwkv7::forward(const Variable& input, Rwkv7State* state, const Tensor& reset) const {
  require(input.shape().rank() == 3 && input.size(2) == config_.width,
          "rwkv7: input is {}, expected [B, T, {}]", input.value().str(), config_.width);
  if (state) state->layers.resize(blocks_.size());
  Variable x = layer_norm(input, ln0_weight_, ln0_bias_, kLayerNormEps), v_first;
  for (size_t i = 0; i < blocks_.size(); ++i)
    x = blocks_[i]->forward(x, v_first, state ? &state->layers[i] : nullptr, reset);
  return layer_norm(x, ln_out_weight_, ln_out_bias_, kLayerNormEps);
}

Variable Rwkv7::head(const Variable& hidden) const {
  require(config_.vocab > 0, "rwkv7: this model has no head");
  return linear(hidden, head_);
}

}  // namespace modrwkv
