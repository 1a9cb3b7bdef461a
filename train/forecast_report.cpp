// Scores, figures and the page of a forecaster's run.
#include "train/forecast_report.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/metrics.h"
#include "eval/evaluate_forecast.h"
#include "train/report.h"

namespace modrwkv {
namespace {

PlotSeries line(const std::string& label, int64_t from, const std::vector<double>& y, PlotColor color,
                bool dashed = false) {
  PlotSeries s;
  s.label = label;
  for (size_t i = 0; i < y.size(); ++i) s.x.push_back(double(from + int64_t(i)));
  s.y = y;
  s.color = color;
  s.dashed = dashed;
  return s;
}

// One window in the units of its channel: the last look-back values, truth, forecast with its band, and two
// baselines.
Plot window_plot(const Series& series, int64_t channel, const SeriesBatch& window, const Forecaster& model,
                 int64_t season) {
  const int64_t L = window.past.size(1), H = window.future.size(1), shown = std::min(L, 3 * H);
  const double mean = series.mean[size_t(channel)],
               std = series.std[size_t(channel)] > 0 ? series.std[size_t(channel)] : 1;
  const auto units = [&](double z) { return mean + std * z; };
  const auto row = [&](const Tensor& t, int64_t from) {
    std::vector<double> v;
    for (int64_t i = from; i < t.numel(); ++i) v.push_back(units(double(t.data<float>()[i])));
    return v;
  };
  const NoGrad scope;
  const Forecaster::Output out = model.forward(window.past);
  const Tensor forecast = out.forecast.value();
  Plot p;
  p.x_label = "rows from the forecast on";
  p.y_label = series.raw.channels[size_t(channel)];
  if (model.residual_quantiles().defined()) {
    PlotBand band;
    band.label = "80 % band";
    for (int64_t h = 0; h < H; ++h) {
      const double y = double(forecast.data<float>()[h]), scale = double(out.std.value().data<float>()[0]);
      band.x.push_back(double(h));
      band.low.push_back(units(y + scale * residual_at(model.residual_quantiles(), h, 0.1)));
      band.high.push_back(units(y + scale * residual_at(model.residual_quantiles(), h, 0.9)));
    }
    p.bands.push_back(band);
  }
  std::vector<double> truth = row(window.future, 0);
  for (int64_t h = 0; h < H; ++h) {
    if (window.mask.defined() && !window.mask.data<uint8_t>()[h]) truth[size_t(h)] = NAN;
  }
  p.series.push_back(line("", -shown, row(window.past, L - shown), PlotColor::gray));
  if (season > 1 && season <= L) {
    p.series.push_back(line("seasonal mean", 0, row(seasonal_mean(season, H).forecast(window.past), 0),
                            PlotColor::green, true));
  }
  p.series.push_back(
      line("last value", 0, row(last_value(H).forecast(window.past), 0), PlotColor::orange, true));
  p.series.push_back(line("truth", 0, truth, PlotColor::ink));
  p.series.push_back(line("forecast", 0, row(forecast, 0), PlotColor::blue));
  p.markers.push_back({-0.5, ""});
  return p;
}

}  // namespace

void write_forecast_report(const std::string& run_folder, const SeriesSet& set, const std::string& set_name,
                           int64_t season, const std::vector<OptionRow>& options) {
  const auto model = load_forecaster(run_folder);
  const int64_t L = model->config().lookback, H = model->config().horizon;
  const std::vector<ChannelSeries> channels = set.z_scored();
  const bool has_test = std::any_of(channels.begin(), channels.end(),
                                    [H](const ChannelSeries& c) { return c.test_end - c.val_end >= H; });
  const Part part = has_test ? Part::test : Part::validation;
  const EvaluationWindows windows(channels, part, L, H, 1, set_name);
  const ForecastScores scores = score_forecasts(windows, model_forecast(*model));

  Report report;
  report.title = fmt::format("{}: {} rows ahead", set_name, H);
  report.summary = fmt::format(
      "ModRWKV forecaster with {} parameters, look-back {}. Scores on the {} part ({} windows of {} channels), "
      "z-scored "
      "by the training part.",
      model->parameter_count(), L, name_of(part), windows.times(), channels.size());
  ReportTable table;
  table.title = "Scores";
  table.note =
      "Mean over all windows, steps and channels; the weights were chosen by the validation part alone.";
  table.columns = {"forecast", "MSE", "MAE"};
  const auto row = [&](const std::string& name, const ForecastScores& s, bool ours) {
    table.rows.push_back({{name, fmt::format("{:.4f}", s.mse()), fmt::format("{:.4f}", s.mae())}, ours});
  };
  row(model->config().shortcut ? "model, with linear shortcut" : "model", scores, true);
  for (const Baseline& b : standard_baselines(channels, L, H, season, set_name))
    row(b.name, score_forecasts(windows, b.forecast), false);
  report.tables.push_back(table);

  const std::vector<double> percentiles = {10, 50, 90};
  const std::vector<size_t> chosen = windows_at_percentiles(scores.window_mse(), percentiles);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const EvaluationWindows::Place& place = windows.place(int64_t(chosen[i]));
    const Series& series = set[channels[size_t(place.channel)].series];
    int64_t first = place.channel;  // channels of a series are neighbours
    while (first > 0 && channels[size_t(first - 1)].series == channels[size_t(place.channel)].series) --first;
    std::string when = fmt::format("row {}", place.origin);
    if (series.raw.start != kUnknownTime && series.raw.step.known())
      when = format_time(add_steps(series.raw.start, series.raw.step, place.origin));
    report.figures.push_back(
        {window_plot(series, place.channel - first, windows.batch(int64_t(chosen[i]), 1), *model, season),
         fmt::format("{}th percentile by error: {} from {}, MSE {:.3f}", percentiles[i],
                     channels[size_t(place.channel)].name, when, scores.window_mse()[chosen[i]])});
  }
  report.metrics = read_metrics(join_path(run_folder, "metrics.jsonl"));
  report.options = options;
  write_file(join_path(run_folder, "report.html"), make_report(report));
}

}  // namespace modrwkv
