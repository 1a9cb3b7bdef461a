// The forecaster and its configuration.
#include "models/forecaster.h"

#include "core/error.h"
#include "core/json.h"
#include "ops/elementwise.h"
#include "ops/instance_norm.h"
#include "ops/linear.h"
#include "ops/time_axis.h"

namespace modrwkv {

double ForecasterConfig::forward_flops() const {
  Rwkv7Config r = rwkv;
  r.complete();
  const double n0 = double(encoder.steps(lookback)), n1 = double(tokens()), R = double(encoder.residual);
  const double S = double(encoder.skip), E = double(encoder.out), D = double(r.width), F = double(r.ffn);
  const double wavenet = double(encoder.patch) * R + double(encoder.blocks) * (2 * double(encoder.kernel) * R * R + R * S) +
                         double(encoder.blocks - 1) * R * R + S * S + S * E;
  const double low_rank = 2 * D * double(r.rank_w + r.rank_a + r.rank_g);
  const double block = 4 * D * D + 2 * D * F + low_rank + 4.5 * D * double(r.head_size);  // 9 N^2 FLOPs a head: the recurrence
  const double adapter_cost = E * double(adapter.scale) * D + double(adapter.scale) * D * D;
  return 2 * (n0 * wavenet + n1 * (double(compressor.kernel) * E * E + adapter_cost + double(r.layers) * block) +
              D * double(horizon) + (shortcut ? double(lookback * horizon) : 0));
}

Forecaster::Forecaster(const ForecasterConfig& config, uint64_t seed)
    : config_(config),
      init_(seed),
      encoder_(config.encoder, init_),
      compressor_(config.compressor, config.encoder.out, init_),
      adapter_(config.adapter, config.encoder.out, config.rwkv.width, init_),
      rwkv_(config.rwkv, init_) {
  require(config.lookback > 0 && config.horizon > 0, "forecaster: look-back {} and horizon {} must be positive",
          config.lookback, config.horizon);
  config_.rwkv = rwkv_.config();
  add_module("encoder.", encoder_);
  add_module("compressor.", compressor_);
  add_module("adapter.", adapter_);
  add_module("", rwkv_);
  add_parameter("forecast.weight", head_weight_, Tensor::zeros({config.horizon, config.rwkv.width}));
  add_parameter("forecast.bias", head_bias_, Tensor::zeros({config.horizon}));
  if (config.shortcut) {
    add_parameter("shortcut.weight", shortcut_weight_, Tensor::zeros({config.horizon, config.lookback}));
  }
}

Forecaster::Output Forecaster::forward(const Tensor& lookback) const {
  require(lookback.rank() == 2 && lookback.size(1) == config_.lookback, "forecaster: look-back is {}, expected [B, {}]",
          lookback.str(), config_.lookback);
  const DType type = head_weight_.dtype();
  const Variable window(lookback.to(head_weight_.device()).to(type));
  const InstanceNorm n = instance_norm(window);
  const Variable tokens = adapter_.forward(compressor_.forward(encoder_.encode(n.y)));
  const Variable hidden = rwkv_.forward(tokens);
  const int64_t B = lookback.size(0), T = hidden.size(1);
  const Variable last = reshape(slice_time(hidden, T - 1, T), {B, config_.rwkv.width});
  Variable y = linear(last, head_weight_, head_bias_);
  if (shortcut_weight_.defined()) y = add(y, linear(n.y, shortcut_weight_));
  return {y, n.mean, n.std, denormalise(y, n.mean, n.std)};
}

}  // namespace modrwkv
