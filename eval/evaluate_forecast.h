// Runs a forecaster or a baseline over the windows of a part and scores it.
#pragma once
#include <functional>

#include "data/windows.h"
#include "eval/baselines.h"
#include "eval/forecast_scores.h"
#include "models/forecaster.h"

namespace modrwkv {

// The model as a function of z-scored look-backs; `model` must outlive it.
ForecastFunction model_forecast(const Forecaster& model);

// Called with each batch of windows [first, first + B), after it was scored.
using ForecastSink = std::function<void(int64_t first, const SeriesBatch& batch, const Tensor& forecast)>;
ForecastScores score_forecasts(const EvaluationWindows& windows, const ForecastFunction& forecast,
                               const ForecastSink& sink = {});

// Quantiles, by step, of what the model left over on held-out windows, in units of a window's standard
// deviation: row h of [horizon, kLevels] holds the levels 1/(kLevels + 1), 2/(kLevels + 1), .. (split conformal
// prediction). From them `forecast` draws its band.
constexpr int64_t kLevels = 199;
Tensor residual_quantiles(const Forecaster& model, const EvaluationWindows& windows);

// The entry of such quantiles at a level in (0, 1), between the stored ones by interpolation.
double residual_at(const Tensor& quantiles, int64_t step, double level);

}  // namespace modrwkv
