// Trains a ModRWKV forecaster on a packed set of series: WaveNet encoder, conv1d compressor, adapter, RWKV-7,
// linear head.
#include <fmt/core.h>

#include <cmath>

#include "core/log.h"
#include "core/parallel.h"
#include "core/program.h"
#include "data/loader.h"
#include "data/series_set.h"
#include "data/windows.h"
#include "eval/evaluate_forecast.h"
#include "models/forecaster.h"
#include "ops/instance_norm.h"
#include "ops/mse.h"
#include "train/forecast_report.h"
#include "train/loop.h"

using namespace modrwkv;

namespace {

struct TimeseriesOptions {
  LoopOptions loop;
  int64_t lookback = 720, horizon = 96, season = 24, patch = 0, residual = 16, skip = 32, encoder_width = 64,
          dilations = 0;
  int64_t compress_kernel = 5, compress_stride = 4, adapter_scale = 4, layers = 1, width = 64, head_size = 64,
          eval_stride = 23;
  double mix = 1.0, flip = 0.5;
  bool shortcut = false;

  TimeseriesOptions() { loop.steps = 1100; }

  template <class V>
  void fields(V& v) {
    loop.fields(v);
    v.group("forecast");
    v("lookback", lookback, "values that a forecast sees", Range{1, 1 << 20});
    v("horizon", horizon, "values that it predicts", Range{1, 1 << 20});
    v("season", season, "values of a season, for the default patch and the baselines", Range{1, 1 << 20});
    v("eval-stride", eval_stride,
      "values between validation windows; coprime to the season, so that every hour is met", Range{1, 1 << 20},
      Resumable{});
    v("mix", mix, "probability that a training window is a mixture of two", Range{0, 1});
    v("flip", flip, "probability that a training window changes its sign", Range{0, 1});
    v.group("model");
    v("patch", patch,
      "values of a series that make one step of the encoder; 0: the divisor of --season nearest to lookback / "
      "90",
      Range{0, 4096});
    v("residual", residual, "WaveNet: residual channels", Range{1, 4096});
    v("skip", skip, "WaveNet: skip channels", Range{1, 4096});
    v("encoder-width", encoder_width, "WaveNet: width of its tokens", Range{1, 16384});
    v("dilations", dilations, "WaveNet: blocks, with dilations 1, 2, 4 ..; 0: as many as cover the look-back",
      Range{0, 30});
    v("compress-kernel", compress_kernel, "conv1d compressor: kernel, 0: none", Range{0, 64});
    v("compress-stride", compress_stride, "conv1d compressor: stride", Range{1, 64});
    v("adapter-scale", adapter_scale, "hidden width of the adapter over --width: 2, 4 or 8", Range{2, 8});
    v("layers", layers, "RWKV-7 blocks, 0: none (an ablation)", Range{0, 1000});
    v("width", width, "RWKV-7 width", Range{8, 65536});
    v("head-size", head_size, "RWKV-7 head size", Range{8, 256});
    v("shortcut", shortcut, "add a linear map from the look-back to the forecast");
  }

  ForecasterConfig config() const {
    ForecasterConfig c;
    c.lookback = lookback;
    c.horizon = horizon;
    c.encoder = {patch ? patch : default_patch(), residual, skip, encoder_width, 2, dilations};
    if (dilations == 0) {
      c.encoder.blocks = 1;
      while (c.encoder.receptive_field() < c.encoder.steps(lookback)) ++c.encoder.blocks;
    }
    c.compressor = {compress_kernel, compress_stride};
    c.adapter.scale = adapter_scale;
    c.rwkv.layers = layers;
    c.rwkv.width = width;
    c.rwkv.head_size = head_size;
    c.shortcut = shortcut;
    return c;
  }

 private:
  int64_t default_patch() const {
    const double wanted = double(lookback) / 90;
    int64_t best = 1;
    for (int64_t p = 1; p <= season; ++p) {
      if (season % p == 0 && std::fabs(double(p) - wanted) < std::fabs(double(best) - wanted)) best = p;
    }
    return best;
  }
};

class ForecastTask : public Task {
 public:
  ForecastTask(const TimeseriesOptions& o, const SeriesSet& set, Device device)
      : set_hash_(set.hash()),
        channels_(set.z_scored()),
        training_(channels_, o.lookback, o.horizon, o.mix, o.flip, uint64_t(o.loop.seed), o.loop.data),
        validation_(channels_, Part::validation, o.lookback, o.horizon, o.eval_stride, o.loop.data),
        model_(o.config(), uint64_t(o.loop.seed)) {
    const std::string& p = o.loop.precision;
    if (!o.loop.init.empty()) {
      const std::string file = model_file_of(o.loop.init);
      model_.load(read_model_file(file).tensors, file);
    }
    model_.to(device, p == "bf16" ? DType::bf16 : p == "f64" ? DType::f64 : DType::f32);
  }

  Module& model() override { return model_; }
  std::string config_json() const override { return model_.config().to_json(); }
  std::string summary() const override {
    return fmt::format("{} parameters, {} tokens a window, {} training windows", model_.parameter_count(),
                       tokens_per_sample(), training_.distinct());
  }
  uint64_t dataset_hash() const override { return set_hash_; }
  int64_t samples_per_epoch() const override { return training_.distinct(); }
  double flops_per_sample() const override { return model_.config().forward_flops(); }
  int64_t tokens_per_sample() const override { return model_.config().tokens(); }

  void start(int64_t first_batch, int64_t size) override {
    loader_ = std::make_unique<Loader<SeriesBatch>>(
        [this, size](int64_t k) { return training_.batch(k * size, size); }, first_batch);
  }

  // Mean square error in the units of the window.
  Variable next_loss() override {
    const SeriesBatch batch = loader_->next();
    const Forecaster::Output out = model_.forward(batch.past);
    const auto place = [&](const Tensor& t) { return t.defined() ? t.to(out.normalised.device()) : t; };
    const Variable target(place(batch.future).to(out.normalised.dtype()));
    return mse(out.normalised, normalise_with(target, out.mean, out.std).value(), place(batch.mask));
  }

  // Mean square error in z-scored units.
  Json validate() override {
    const ForecastScores scores = score_forecasts(validation_, model_forecast(model_));
    return Json::object().set("mse", scores.mse()).set("mae", scores.mae());
  }

  std::vector<NamedTensor> buffers() override {
    return {{"forecast.residual_quantiles", residual_quantiles(model_, validation_), 0, true}};
  }

 private:
  uint64_t set_hash_;
  std::vector<ChannelSeries> channels_;
  TrainingWindows training_;
  EvaluationWindows validation_;
  Forecaster model_;
  std::unique_ptr<Loader<SeriesBatch>> loader_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](Arguments& arguments) {
    const auto o = parse_options<TimeseriesOptions>(
        arguments,
        "Trains a forecaster (WaveNet encoder, conv1d compressor, adapter, RWKV-7) on a packed set of series.");
    const Device device = prepare_device(o.loop);
    const SeriesSet set = SeriesSet::read(o.loop.data);
    ForecastTask task(o, set, device);
    const RunResult result = run_training(o.loop, task, options_to_toml(o), [&](const std::string& before) {
      refuse_changed_options(o, before, o.loop.out + "/options.toml");
    });
    if (result.exit_code != kDone) return result.exit_code;
    write_forecast_report(o.loop.out, set, o.loop.data, o.season, describe_options(o));
    fmt::print("{}\n", result.best.dump());
    return kDone;
  });
}
