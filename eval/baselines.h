// Forecasts that a model must be set beside: the last value, seasonal repetition and means, and a closed-form
// linear map.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/windows.h"

namespace modrwkv {

// past [B, lookback] f32 -> forecast [B, horizon] f32, on the CPU.
using ForecastFunction = std::function<Tensor(const Tensor& past)>;

struct Baseline {
  std::string name;  // "last value", "seasonal naive 24", "ridge, last value removed"
  std::string key;   // for JSON: last, seasonal_naive, ridge
  ForecastFunction forecast;
};

Baseline last_value(int64_t horizon);
Baseline look_back_mean(int64_t horizon);
Baseline seasonal_naive(int64_t season, int64_t horizon);  // the last season again
Baseline seasonal_mean(int64_t season, int64_t horizon);   // the mean of all whole seasons of the look-back

// One linear map with bias from look-back to horizon for all channels, fitted by ridge regression on every
// training window. The Gram matrix is exact, from sums over lags. The strength is the best of 1e-6 .. 10 on the
// validation part (every n-th window, about 500 a channel), or 1e-2 where there is no such window.
// `remove_last` subtracts the last value before and adds it after (NLinear). Missing values are 0.
Baseline ridge(const std::vector<ChannelSeries>& channels, int64_t lookback, int64_t horizon, bool remove_last,
               const std::string& where);

// All of them but the mean; seasonal ones where the season fits into the look-back.
std::vector<Baseline> standard_baselines(const std::vector<ChannelSeries>& channels, int64_t lookback,
                                         int64_t horizon, int64_t season, const std::string& where);

}  // namespace modrwkv
