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
  const double wavenet = double(encoder.patch) * R +
                         double(encoder.blocks) * (2 * double(encoder.kernel) * R * R + R * S) +
                         double(encoder.blocks - 1) * R * R + S * S + S * E;
  const double low_rank = 2 * D * double(r.rank_w + r.rank_a + r.rank_g);
  const double block =
      4 * D * D + 2 * D * F + low_rank + 4.5 * D * double(r.head_size);  // 9 N^2 FLOPs a head: the recurrence
  const double adapter_cost = E * double(adapter.scale) * D + double(adapter.scale) * D * D;
  return 2 *
         (n0 * wavenet + n1 * (double(compressor.kernel) * E * E + adapter_cost + double(r.layers) * block) +
          D * double(horizon) + (shortcut ? double(lookback * horizon) : 0));
}

std::string ForecasterConfig::to_json() const {
  Json j = Json::object();
  j.set("model", "modrwkv.forecaster")
      .set("lookback", lookback)
      .set("horizon", horizon)
      .set("shortcut", shortcut);
  j.set("encoder", Json::object()
                       .set("kind", "wavenet")
                       .set("patch", encoder.patch)
                       .set("residual", encoder.residual)
                       .set("skip", encoder.skip)
                       .set("out", encoder.out)
                       .set("kernel", encoder.kernel)
                       .set("blocks", encoder.blocks));
  j.set("compressor", Json::object().set("kernel", compressor.kernel).set("stride", compressor.stride));
  j.set("adapter", Json::object().set("scale", adapter.scale));
  j.set("rwkv", Json::object()
                    .set("layers", rwkv.layers)
                    .set("width", rwkv.width)
                    .set("head_size", rwkv.head_size)
                    .set("ffn", rwkv.ffn)
                    .set("vocab", rwkv.vocab)
                    .set("rank_w", rwkv.rank_w)
                    .set("rank_a", rwkv.rank_a)
                    .set("rank_v", rwkv.rank_v)
                    .set("rank_g", rwkv.rank_g));
  return j.canonical();
}

ForecasterConfig ForecasterConfig::from_json(const std::string& text, const std::string& file) {
  const Json j = Json::parse(text, file);
  const Json* model = j.find("model");
  require(model && model->is_string() && model->as_string() == "modrwkv.forecaster",
          "{}: holds no forecaster (its configuration says {})", file, model ? model->dump() : "nothing");
  try {
    ForecasterConfig c;
    c.lookback = j.get_int("lookback");
    c.horizon = j.get_int("horizon");
    c.shortcut = j.get_bool("shortcut");
    const Json &e = j.at("encoder"), &r = j.at("rwkv");
    c.encoder = {e.get_int("patch"), e.get_int("residual"), e.get_int("skip"),
                 e.get_int("out"),   e.get_int("kernel"),   e.get_int("blocks")};
    c.compressor = {j.at("compressor").get_int("kernel"), j.at("compressor").get_int("stride")};
    c.adapter = {j.at("adapter").get_int("scale")};
    c.rwkv = {r.get_int("layers"), r.get_int("width"),  r.get_int("head_size"),
              r.get_int("ffn"),    r.get_int("vocab"),  r.get_int("rank_w"),
              r.get_int("rank_a"), r.get_int("rank_v"), r.get_int("rank_g")};
    return c;
  } catch (const Error& error) {
    fail("{}: configuration: {}", file, error.what());
  }
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
  require(lookback.rank() == 2 && lookback.size(1) == config_.lookback,
          "forecaster: look-back is {}, expected [B, {}]", lookback.str(), config_.lookback);
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

std::unique_ptr<Forecaster> load_forecaster(const std::string& path) {
  const std::string file = model_file_of(path);
  const ModelFile model = read_model_file(file);
  auto forecaster = std::make_unique<Forecaster>(ForecasterConfig::from_json(model.config_json, file), 0);
  forecaster->load(model.tensors, file);
  if (const Tensor* q = model.find("forecast.residual_quantiles")) {
    require(q->rank() == 2 && q->size(0) == forecaster->config().horizon && q->size(1) > 1,
            "{}: forecast.residual_quantiles is {}", file, q->str());
    forecaster->set_residual_quantiles(*q);
  }
  return forecaster;
}

}  // namespace modrwkv
