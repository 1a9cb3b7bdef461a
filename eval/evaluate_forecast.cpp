// Scoring in batches, and residual quantiles.
#include "eval/evaluate_forecast.h"

#include <algorithm>
#include <cmath>

#include "core/log.h"

namespace modrwkv {
namespace {

constexpr int64_t kBatch = 256;

}  // namespace

ForecastFunction model_forecast(const Forecaster& model) {
  return [&model](const Tensor& past) {
    const NoGrad scope;
    return model.forward(past).forecast.value().to(DType::f32).to(kCpu);
  };
}

ForecastScores score_forecasts(const EvaluationWindows& windows, const ForecastFunction& forecast,
                               const ForecastSink& sink) {
  ForecastScores scores;
  Progress progress("evaluate", windows.size(), "windows");
  for (int64_t first = 0; first < windows.size(); first += kBatch) {
    const SeriesBatch batch = windows.batch(first, std::min(kBatch, windows.size() - first));
    const Tensor y = forecast(batch.past);
    scores.add(y, batch.future, batch.mask);
    if (sink) sink(first, batch, y);
    progress.update(std::min(first + kBatch, windows.size()));
  }
  return scores;
}

Tensor residual_quantiles(const Forecaster& model, const EvaluationWindows& windows) {
  const int64_t H = model.config().horizon;
  std::vector<std::vector<float>> by_step(static_cast<size_t>(H));
  for (int64_t first = 0; first < windows.size(); first += kBatch) {
    const SeriesBatch batch = windows.batch(first, std::min(kBatch, windows.size() - first));
    const NoGrad scope;
    const Forecaster::Output out = model.forward(batch.past);
    const Tensor y = out.forecast.value().to(DType::f32).to(kCpu),
                 std = out.std.value().to(DType::f32).to(kCpu);
    for (int64_t i = 0; i < y.numel(); ++i) {
      if (batch.mask.defined() && !batch.mask.data<uint8_t>()[i]) continue;
      by_step[size_t(i % H)].push_back((batch.future.data<float>()[i] - y.data<float>()[i]) /
                                       std.data<float>()[i / H]);
    }
  }
  Tensor quantiles = Tensor::zeros({H, kLevels});
  for (int64_t h = 0; h < H; ++h) {
    std::vector<float>& r = by_step[size_t(h)];
    if (r.empty()) continue;
    std::sort(r.begin(), r.end());
    for (int64_t k = 0; k < kLevels; ++k) {
      // The ceil((n + 1) q)-th smallest of n residuals covers a new one with probability at least q.
      const double rank = std::ceil(double(r.size() + 1) * double(k + 1) / double(kLevels + 1));
      quantiles.data<float>()[h * kLevels + k] = r[size_t(std::clamp(rank, 1.0, double(r.size()))) - 1];
    }
  }
  return quantiles;
}

double residual_at(const Tensor& quantiles, int64_t step, double level) {
  const int64_t n = quantiles.size(1);
  const double at = std::clamp(level * double(n + 1) - 1, 0.0, double(n - 1));
  const int64_t below = std::min(int64_t(at), n - 2);
  const float* q = quantiles.data<float>() + step * n + below;
  return double(q[0]) + (at - double(below)) * (double(q[1]) - double(q[0]));
}

}  // namespace modrwkv
