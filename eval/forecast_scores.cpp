// Sums of errors in double.
#include "eval/forecast_scores.h"

#include <cmath>

#include "core/error.h"

namespace modrwkv {

void ForecastScores::add(const Tensor& forecast, const Tensor& target, const Tensor& mask) {
  require(forecast.rank() == 2 && forecast.shape() == target.shape() && (!mask.defined() || mask.shape() == target.shape()),
          "scores: forecast is {}, target is {}", forecast.str(), target.str());
  const int64_t rows = target.size(0), horizon = target.size(1);
  const float* f = forecast.data<float>();
  const float* y = target.data<float>();
  const uint8_t* known = mask.defined() ? mask.data<uint8_t>() : nullptr;
  for (int64_t r = 0; r < rows; ++r) {
    double square = 0, absolute = 0;
    int64_t count = 0;
    for (int64_t i = r * horizon; i < (r + 1) * horizon; ++i) {
      if (known && !known[i]) continue;
      const double e = double(f[i]) - double(y[i]);
      square += e * e;
      absolute += std::fabs(e);
      ++count;
    }
    window_mse_.push_back(square / double(count));
    square_ += square;
    absolute_ += absolute;
    count_ += count;
  }
}

}  // namespace modrwkv
