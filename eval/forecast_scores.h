// Scores of forecasts: errors are summed over all windows, steps and channels and divided once.
#pragma once
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

// Errors of some steps together.
struct ErrorSum {
  double square = 0, absolute = 0;
  int64_t count = 0;
  double mse() const { return square / double(count); }  // NaN when nothing counted
  double mae() const { return absolute / double(count); }
  void add(const ErrorSum& other) { square += other.square, absolute += other.absolute, count += other.count; }
};

class ForecastScores {
 public:
  // forecast, target [B, horizon] f32 on the CPU; mask u8 like them, or undefined: where it is 0 nothing
  // counts.
  void add(const Tensor& forecast, const Tensor& target, const Tensor& mask);
  double mse() const { return total_.mse(); }  // NaN when nothing counted
  double mae() const { return total_.mae(); }
  const ErrorSum& total() const { return total_; }
  int64_t windows() const { return int64_t(window_mse_.size()); }
  const std::vector<double>& window_mse() const {
    return window_mse_;
  }  // one a window, NaN where all is masked
  const ErrorSum& window(int64_t i) const { return windows_[size_t(i)]; }
  // The windows summed by a number that group(i) gives window i, in [0, groups): its channel, its series.
  template <class Group>
  std::vector<ErrorSum> grouped(int64_t groups, Group&& group) const {
    std::vector<ErrorSum> sums(static_cast<size_t>(groups));
    for (int64_t i = 0; i < windows(); ++i) sums[size_t(group(i))].add(window(i));
    return sums;
  }
  // The window with known targets at a quantile of the MSE: 0 the best, 0.5 the median, 1 the worst; -1 where
  // there is none.
  int64_t window_at(double quantile) const;

 private:
  ErrorSum total_;
  std::vector<ErrorSum> windows_;
  std::vector<double> window_mse_;
};

}  // namespace modrwkv
