// Sums of errors in double.
#include "eval/forecast_scores.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace modrwkv {

void ForecastScores::add(const Tensor& forecast, const Tensor& target, const Tensor& mask) {
  require(forecast.rank() == 2 && forecast.shape() == target.shape() &&
              (!mask.defined() || mask.shape() == target.shape()),
          "scores: forecast is {}, target is {}", forecast.str(), target.str());
  const int64_t rows = target.size(0), horizon = target.size(1);
  const float* f = forecast.data<float>();
  const float* y = target.data<float>();
  const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    ErrorSum sum;
    for (int64_t i = r * horizon; i < (r + 1) * horizon; ++i) {
      if (known && !known[i]) continue;
      const double e = double(f[i]) - double(y[i]);
      sum.square += e * e;
      sum.absolute += std::fabs(e);
      ++sum.count;
    }
    windows_.push_back(sum);
    window_mse_.push_back(sum.mse());
    total_.add(sum);
  }
}

int64_t ForecastScores::window_at(double quantile) const {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < windows(); ++i)
    if (window(i).count > 0) order.push_back(i);
  if (order.empty()) return -1;
  // A forecast of NaN is the worst.
  const auto error = [&](int64_t i) { return std::isnan(window(i).mse()) ? INFINITY : window(i).mse(); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return error(a) < error(b); });
  return order[size_t(std::lround(std::clamp(quantile, 0.0, 1.0) * double(order.size() - 1)))];
}

}  // namespace modrwkv
