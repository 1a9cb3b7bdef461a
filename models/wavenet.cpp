// The WaveNet encoder, assembled from ops.
#include "models/wavenet.h"

#include <cmath>

#include "core/error.h"
#include "ops/activation.h"
#include "ops/conv1d.h"
#include "ops/elementwise.h"
#include "ops/linear.h"
#include "ops/time_axis.h"

namespace modrwkv {

struct WaveNet::Block {
  Variable filter_weight, filter_bias, gate_weight, gate_bias, res_weight, res_bias, skip_weight, skip_bias;
};

WaveNet::WaveNet(const WaveNetConfig& c, const Init& init) : config_(c) {
  require(
      c.patch > 0 && c.residual > 0 && c.skip > 0 && c.out > 0 && c.kernel > 0 && c.blocks > 0 && c.blocks < 40,
      "wavenet: every size must be positive");
  // PyTorch's default: uniform in +-1/sqrt(fan in), for weight and bias.
  const auto layer = [&](const std::string& name, Variable& weight, Variable& bias, const Shape& shape,
                         double factor = 1.0) {
    int64_t fan_in = 1;
    for (int i = 1; i < shape.rank(); ++i) fan_in *= shape[i];
    const double bound = factor / std::sqrt(double(fan_in));
    add_parameter(name + ".weight", weight, init.uniform("encoder." + name + ".weight", shape, bound));
    add_parameter(name + ".bias", bias, init.uniform("encoder." + name + ".bias", {shape[0]}, bound));
  };
  layer("embed", embed_weight_, embed_bias_, {c.residual, c.patch});
  for (int64_t i = 0; i < c.blocks; ++i) {
    blocks_.push_back(std::make_unique<Block>());
    Block& b = *blocks_.back();
    const std::string prefix = "blocks." + std::to_string(i) + ".";
    layer(prefix + "filter", b.filter_weight, b.filter_bias, {c.residual, c.residual, c.kernel});
    layer(prefix + "gate", b.gate_weight, b.gate_bias, {c.residual, c.residual, c.kernel});
    layer(prefix + "skip", b.skip_weight, b.skip_bias, {c.skip, c.residual});
    if (i + 1 < c.blocks) {  // nothing reads the residual stream after the last block
      layer(prefix + "res", b.res_weight, b.res_bias, {c.residual, c.residual},
            1 / std::sqrt(double(c.blocks)));
    }
  }
  layer("out1", out1_weight_, out1_bias_, {c.skip, c.skip});
  layer("out2", out2_weight_, out2_bias_, {c.out, c.skip});
}

WaveNet::~WaveNet() = default;

Variable WaveNet::encode(const Variable& series) const {
  const int64_t B = series.size(0), L = series.size(1), steps = config_.steps(L);
  Variable x = reshape(series, {B, L, 1});
  if (steps * config_.patch > L) {
    const Tensor fill = Tensor::zeros({B, steps * config_.patch - L, 1}, x.dtype(), x.device());
    x = concat_time({Variable(fill), x});
  }
  Variable h = linear(reshape(x, {B, steps, config_.patch}), embed_weight_, embed_bias_), skips;
  int64_t dilation = 1;
  for (const std::unique_ptr<Block>& b : blocks_) {
    const Conv1dOptions causal{.pad_left = (config_.kernel - 1) * dilation, .dilation = dilation};
    const Variable z = gated_tanh(conv1d(h, b->filter_weight, b->filter_bias, causal),
                                  conv1d(h, b->gate_weight, b->gate_bias, causal));
    const Variable s = linear(z, b->skip_weight, b->skip_bias);
    skips = skips.defined() ? add(skips, s) : s;
    if (b->res_weight.defined()) h = add(h, linear(z, b->res_weight, b->res_bias));
    dilation *= 2;
  }
  return linear(relu(linear(relu(skips), out1_weight_, out1_bias_)), out2_weight_, out2_bias_);
}

}  // namespace modrwkv
