// Scores of forecasts: errors are summed over all windows, steps and channels and divided once.
#pragma once
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

class ForecastScores {
 public:
  // forecast, target [B, horizon] f32 on the CPU; mask u8 like them, or undefined: where it is 0 nothing counts.
  void add(const Tensor& forecast, const Tensor& target, const Tensor& mask);
  double mse() const { return square_ / double(count_); }  // NaN when nothing counted
  double mae() const { return absolute_ / double(count_); }
  int64_t windows() const { return int64_t(window_mse_.size()); }
  const std::vector<double>& window_mse() const { return window_mse_; }  // one a window, NaN where all is masked

 private:
  double square_ = 0, absolute_ = 0;
  int64_t count_ = 0;
  std::vector<double> window_mse_;
};

}  // namespace modrwkv
