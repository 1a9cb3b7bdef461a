// ModRWKV for time series: WaveNet encoder -> conv1d compressor -> adapter -> RWKV-7 -> linear head on the last
// token.
//
// One channel at a time. The look-back is normalised by its own mean and standard deviation; the head forecasts
// in these units.
#pragma once
#include <memory>
#include <string>

#include "models/adapter.h"
#include "models/compressor.h"
#include "models/rwkv7.h"
#include "models/wavenet.h"

namespace modrwkv {

struct ForecasterConfig {
  int64_t lookback = 336, horizon = 48;
  WaveNetConfig encoder;
  CompressorConfig compressor;
  AdapterConfig adapter;
  Rwkv7Config rwkv;
  bool shortcut = false;  // one more linear map from the normalised look-back to the forecast

  int64_t tokens() const { return Compressor::tokens(compressor, encoder.steps(lookback)); }
  double forward_flops() const;  // multiply-adds of one window, times two; element-wise work is not counted
  std::string to_json() const;   // the model file's /config/json
  static ForecasterConfig from_json(const std::string& text, const std::string& file);
};

class Forecaster : public Module {
 public:
  Forecaster(const ForecasterConfig& config, uint64_t seed);
  const ForecasterConfig& config() const { return config_; }

  struct Output {
    Variable normalised;  // [B, horizon] forecast in units of the window
    Variable mean, std;   // [B] of the window
    Variable forecast;    // [B, horizon] in units of the input
  };
  // Quantiles of held-out residuals that a trained model carries (eval/evaluate_forecast.h); undefined in a new
  // one.
  const Tensor& residual_quantiles() const { return residual_quantiles_; }
  void set_residual_quantiles(Tensor quantiles) { residual_quantiles_ = std::move(quantiles); }

  Output forward(const Tensor& lookback) const;  // [B, lookback], f32 or f64; computed in the parameters' type

 private:
  ForecasterConfig config_;
  Init init_;
  WaveNet encoder_;
  Compressor compressor_;
  Adapter adapter_;
  Rwkv7 rwkv_;
  Variable head_weight_, head_bias_, shortcut_weight_;
  Tensor residual_quantiles_;
};

// The forecaster of a model file, or of a run folder (its model.h5), in f32 on the CPU.
std::unique_ptr<Forecaster> load_forecaster(const std::string& path);

}  // namespace modrwkv
