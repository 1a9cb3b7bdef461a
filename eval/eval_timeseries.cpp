// Scores a forecaster on a part of a data set, beside its baselines.
#include <fmt/core.h>

#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/parallel.h"
#include "core/program.h"
#include "data/series_set.h"
#include "eval/evaluate_forecast.h"

using namespace modrwkv;

namespace {

struct EvalOptions {
  std::string model, data, dump, part = "test", device = "cpu";
  int64_t stride = 1, season = 24, threads = 0;

  template <class V>
  void fields(V& v) {
    v("model", model, "run folder of train_timeseries, or a model file", Required{});
    v("data", data, "packed data set, made by import", Required{});
    v("part", part, "rows to forecast", Choices{"validation", "test"});
    v("stride", stride, "rows between windows", Range{1, 1 << 20});
    v("season", season, "rows of a season, for the seasonal baselines", Range{1, 1 << 20});
    v("dump", dump, "write /forecast and /target [windows, channels, horizon] to this HDF5 file");
    v("device", device, "cpu, cuda or cuda:N");
    v("threads", threads, "CPU threads, 0: all cores", Range{0, 4096});
  }
};

// Forecasts and targets of a data set with one series, in z-scored units; NaN where a target is missing.
class Dump {
 public:
  Dump(const EvaluationWindows& windows, int64_t channels, int64_t horizon)
      : forecast_(Tensor::empty({windows.times(), channels, horizon})), target_(Tensor::empty_like(forecast_)) {
    require(windows.size() == windows.times() * channels,
            "--dump: {} windows have no known look-back and were skipped", windows.skipped());
  }
  void add(int64_t first, const SeriesBatch& batch, const Tensor& forecast) {
    const int64_t H = forecast.size(1), n = forecast.numel();
    for (int64_t i = 0; i < n; ++i) {
      const bool known = !batch.mask.defined() || batch.mask.data<uint8_t>()[i];
      forecast_.data<float>()[first * H + i] = forecast.data<float>()[i];
      target_.data<float>()[first * H + i] = known ? batch.future.data<float>()[i] : NAN;
    }
  }
  void write(const std::string& path) const {
    FileWriter file(path, "modrwkv.dataset", "forecast");
    file.write("/forecast", forecast_);
    file.write("/target", target_);
    file.commit();
  }

 private:
  Tensor forecast_, target_;
};

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](Arguments& arguments) {
    const auto o =
        parse_options<EvalOptions>(arguments,
                                   "Scores a forecaster beside ridge, seasonal and last-value forecasts, "
                                   "on series z-scored by their training part.");
    if (!o.dump.empty()) {
      require_other_file("--dump", o.dump, {o.data, model_file_of(o.model)});
      require_replaceable_by_hdf5(o.dump, "modrwkv.dataset", "forecast");
    }
    set_threads(int(o.threads));
    const Device device = parse_device(o.device);
    const auto model = load_forecaster(o.model);
    model->to(device, DType::f32);
    const int64_t L = model->config().lookback, H = model->config().horizon;
    const SeriesSet set = SeriesSet::read(o.data);
    const std::vector<ChannelSeries> channels = set.z_scored();
    const EvaluationWindows windows(channels, o.part == "test" ? Part::test : Part::validation, L, H, o.stride,
                                    o.data);
    std::optional<Dump> dump;
    if (!o.dump.empty()) {
      require(set.size() == 1, "--dump: {} holds {} series, only one can be dumped", o.data, set.size());
      dump.emplace(windows, int64_t(channels.size()), H);
    }
    const ForecastScores scores = score_forecasts(windows, model_forecast(*model),
                                                  [&](int64_t first, const SeriesBatch& b, const Tensor& y) {
                                                    if (dump) dump->add(first, b, y);
                                                  });
    if (dump) dump->write(o.dump);
    fmt::print("{:<28} {:>8} {:>8}\n", fmt::format("{} windows, {} -> {}", o.part, L, H), "mse", "mae");
    const auto row = [](const std::string& name, const ForecastScores& s) {
      fmt::print("{:<28} {:>8.4f} {:>8.4f}\n", name, s.mse(), s.mae());
    };
    row(model->config().shortcut ? "model, with linear shortcut" : "model", scores);
    for (const Baseline& b : standard_baselines(channels, L, H, o.season, o.data))
      row(b.name, score_forecasts(windows, b.forecast));
    if (windows.skipped() > 0)
      fmt::print("{} windows without a known look-back were skipped\n", windows.skipped());
    fmt::print("{{\"mse\":{:.6f},\"mae\":{:.6f},\"windows\":{},\"channels\":{}}}\n", scores.mse(), scores.mae(),
               windows.times(), channels.size());
    return kDone;
  });
}
