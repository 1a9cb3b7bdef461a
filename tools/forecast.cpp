// Forecasts the rows after the end of a CSV with a trained forecaster.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/parallel.h"
#include "core/program.h"
#include "data/csv.h"
#include "eval/evaluate_forecast.h"
#include "train/plot.h"

using namespace modrwkv;

namespace {

struct ForecastOptions {
  std::string model, csv, out, plot, freq, device = "cpu";
  std::vector<std::string> columns;
  std::vector<double> quantiles;
  int64_t horizon = 0, threads = 0;

  template <class V>
  void fields(V& v) {
    v("model", model, "run folder of train_timeseries, or a model file", Required{});
    v("csv", csv, "history, one column a channel; its newest rows are the look-back", Required{});
    v("horizon", horizon, "rows to forecast, 0: as trained; beyond that forecasts are fed back",
      Range{0, 1 << 20});
    v("out", out, "CSV to write", Required{});
    v("plot", plot, "SVG to draw");
    v("quantiles", quantiles, "levels in (0, 1) to write as columns and draw as a band, such as 0.1,0.9");
    v("columns", columns, "names of the columns to forecast; all without it");
    v("freq", freq, "step of the rows where the file has no dates: h, D, 15min, ..");
    v("device", device, "cpu, cuda or cuda:N");
    v("threads", threads, "CPU threads, 0: all cores", Range{0, 4096});
  }
};

// Forecasts of all channels: values and, per level, quantiles, [channel][step].
struct Forecasts {
  std::vector<std::vector<double>> value;
  std::vector<std::vector<std::vector<double>>> quantile;  // [level]
};

// The newest look-back of every channel, missing values filled with the last one seen.
Tensor look_back(const RawSeries& s, int64_t L, const std::string& path) {
  const int64_t C = int64_t(s.values.size());
  require(s.rows() >= L, "{}: has {} rows, the model needs {}", path, s.rows(), L);
  Tensor past = Tensor::empty({C, L});
  for (int64_t c = 0; c < C; ++c) {
    const float* x = s.values[size_t(c)].data() + s.rows() - L;
    const float* known = std::find_if(x, x + L, [](float v) { return !std::isnan(v); });
    require(known != x + L, "{}: column {}: no value in the last {} rows", path, s.channels[size_t(c)], L);
    float last = *known;
    for (int64_t i = 0; i < L; ++i) past.data<float>()[c * L + i] = last = std::isnan(x[i]) ? last : x[i];
  }
  return past;
}

Forecasts forecast(const Forecaster& model, Tensor past, int64_t horizon, const std::vector<double>& levels) {
  const int64_t C = past.size(0), L = past.size(1), H = model.config().horizon;
  Forecasts f;
  f.value.resize(size_t(C));
  f.quantile.assign(levels.size(), std::vector<std::vector<double>>(static_cast<size_t>(C)));
  const NoGrad scope;
  for (int64_t done = 0; done < horizon; done += H) {
    const Forecaster::Output out = model.forward(past);
    const Tensor y = out.forecast.value().to(DType::f32).to(kCpu),
                 std = out.std.value().to(DType::f32).to(kCpu);
    const int64_t steps = std::min(H, horizon - done);
    for (int64_t c = 0; c < C; ++c) {
      for (int64_t h = 0; h < steps; ++h) {
        const double value = double(y.data<float>()[c * H + h]), scale = double(std.data<float>()[c]);
        f.value[size_t(c)].push_back(value);
        for (size_t q = 0; q < levels.size(); ++q) {
          f.quantile[q][size_t(c)].push_back(value +
                                             scale * residual_at(model.residual_quantiles(), h, levels[q]));
        }
      }
    }
    // The next look-back: what is left of this one, and the forecast.
    Tensor next = Tensor::empty_like(past);
    for (int64_t c = 0; c < C; ++c) {
      for (int64_t i = 0; i < L; ++i) {
        next.data<float>()[c * L + i] =
            i + H < L ? past.data<float>()[c * L + i + H] : y.data<float>()[c * H + i + H - L];
      }
    }
    past = next;
  }
  return f;
}

std::string stamp(const RawSeries& s, int64_t row) {
  if (s.start == kUnknownTime || !s.step.known()) return std::to_string(row);
  return format_time(add_steps(s.start, s.step, row));
}

std::string to_csv(const RawSeries& s, const Forecasts& f, const std::vector<double>& levels) {
  const auto quoted = [](const std::string& name) {
    if (name.find_first_of(",\"\n") == std::string::npos) return name;
    std::string q = "\"";
    for (const char c : name) q += c == '"' ? "\"\"" : std::string(1, c);
    return q + "\"";
  };
  std::string text = "date";
  for (const std::string& name : s.channels) {
    text += "," + quoted(name);
    for (const double q : levels) text += "," + quoted(fmt::format("{}_q{}", name, q));
  }
  text += "\n";
  for (size_t h = 0; h < f.value[0].size(); ++h) {
    text += stamp(s, s.rows() + int64_t(h));
    for (size_t c = 0; c < f.value.size(); ++c) {
      text += fmt::format(",{:.6g}", f.value[c][h]);
      for (size_t q = 0; q < levels.size(); ++q) text += fmt::format(",{:.6g}", f.quantile[q][c][h]);
    }
    text += "\n";
  }
  return text;
}

// The first channel: its newest rows, the forecast, and the band between the lowest and the highest level.
Plot plot_of(const RawSeries& s, const Forecasts& f, const std::vector<double>& levels) {
  Plot p;
  p.title = s.channels[0];
  p.x_label = "rows from the forecast on";
  const int64_t horizon = int64_t(f.value[0].size()), shown = std::min(s.rows(), 3 * horizon);
  PlotSeries history{"history", {}, {}, PlotColor::gray, false},
      future{"forecast", {}, {}, PlotColor::blue, false};
  for (int64_t i = 0; i < shown; ++i) {
    history.x.push_back(double(i - shown));
    history.y.push_back(double(s.values[0][size_t(s.rows() - shown + i)]));
  }
  for (int64_t h = 0; h < horizon; ++h) future.x.push_back(double(h));
  future.y = f.value[0];
  if (levels.size() >= 2) {
    const auto [low, high] = std::minmax_element(levels.begin(), levels.end());
    p.bands.push_back({fmt::format("{} to {}", *low, *high), future.x,
                       f.quantile[size_t(low - levels.begin())][0],
                       f.quantile[size_t(high - levels.begin())][0], PlotColor::blue});
  }
  p.series = {history, future};
  p.markers.push_back({-0.5, stamp(s, s.rows())});
  return p;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](Arguments& arguments) {
    const auto o = parse_options<ForecastOptions>(
        arguments,
        "Forecasts the rows after the end of a CSV. The look-back normalises itself, so that "
        "the file needs no statistics.");
    const std::string model_file = model_file_of(o.model);
    require_other_file("--out", o.out, {o.csv, model_file});
    require_replaceable_by_text(o.out);
    if (!o.plot.empty()) {
      require_other_file("--plot", o.plot, {o.csv, model_file, o.out});
      require_replaceable_by_text(o.plot);
      require(is_directory(parent_directory(o.plot)), "--plot {}: there is no folder {}", o.plot,
              parent_directory(o.plot));
    }
    set_threads(int(o.threads));
    const Device device = parse_device(o.device);
    const auto model = load_forecaster(o.model);
    model->to(device, DType::f32);
    std::vector<double> levels = o.quantiles;
    for (const double q : levels) require(q > 0 && q < 1, "--quantiles {}: expected levels between 0 and 1", q);
    require(levels.empty() || model->residual_quantiles().defined(),
            "{}: holds no held-out residuals, --quantiles needs them", o.model);
    const bool draws_band = levels.empty() && model->residual_quantiles().defined();
    if (draws_band && !o.plot.empty()) levels = {0.1, 0.9};
    const RawSeries series = read_csv(o.csv, {o.freq, o.columns});
    const int64_t H = model->config().horizon, horizon = o.horizon > 0 ? o.horizon : H;
    if (horizon > H)
      warn("--horizon {} is beyond the {} rows that the model was trained for: forecasts are fed back", horizon,
           H);
    const Forecasts f = forecast(*model, look_back(series, model->config().lookback, o.csv), horizon, levels);
    for (size_t c = 0; c < f.value.size(); ++c) {
      for (const double y : f.value[c]) {
        require(std::isfinite(y), "{}: column {}: its forecast is not finite; are its values too large?", o.csv,
                series.channels[c]);
      }
    }
    write_file(o.out, to_csv(series, f, draws_band ? std::vector<double>() : levels));
    if (!o.plot.empty()) write_file(o.plot, plot_svg(plot_of(series, f, levels)));
    fmt::print("{}: {} rows, {} channels, from {}\n", o.out, horizon, series.channels.size(),
               stamp(series, series.rows()));
    return kDone;
  });
}
