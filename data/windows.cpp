// Cuts, fills, draws and augments windows.
#include "data/windows.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace modrwkv {
namespace {

// Copies one window; false when its look-back holds no value.
bool cut(const ChannelSeries& c, int64_t start, int64_t lookback, int64_t horizon, float* past, float* future,
         uint8_t* mask) {
  const float* x = c.values.data() + start;
  double sum = 0;
  int64_t known = 0;
  for (int64_t i = 0; i < lookback; ++i) {
    if (std::isnan(x[i])) continue;
    sum += double(x[i]);
    ++known;
  }
  if (known == 0) return false;
  float last = float(sum / double(known));
  for (int64_t i = 0; i < lookback; ++i) past[i] = last = std::isnan(x[i]) ? last : x[i];
  for (int64_t i = 0; i < horizon; ++i) {
    const float y = x[lookback + i];
    mask[i] = !std::isnan(y);
    future[i] = mask[i] ? y : 0.0f;
  }
  return true;
}

struct Buffers {
  SeriesBatch batch;
  Buffers(int64_t count, int64_t lookback, int64_t horizon) {
    batch.past = Tensor::empty({count, lookback});
    batch.future = Tensor::empty({count, horizon});
    batch.mask = Tensor::empty({count, horizon}, DType::u8);
  }
  SeriesBatch finish() {
    const uint8_t* m = batch.mask.data<uint8_t>();
    if (std::all_of(m, m + batch.mask.numel(), [](uint8_t x) { return x != 0; })) batch.mask = Tensor();
    return std::move(batch);
  }
};

}  // namespace

const char* name_of(Part part) {
  constexpr const char* names[] = {"training", "validation", "test"};
  return names[int(part)];
}

EvaluationWindows::EvaluationWindows(const std::vector<ChannelSeries>& channels, Part part, int64_t lookback,
                                     int64_t horizon, int64_t stride, const std::string& where)
    : channels_(channels), lookback_(lookback), horizon_(horizon) {
  const auto first_row = [&](const ChannelSeries& c) {
    return part == Part::train ? lookback : part == Part::validation ? c.train_end : c.val_end;
  };
  const auto end_row = [&](const ChannelSeries& c) {
    return part == Part::train ? c.train_end : part == Part::validation ? c.val_end : c.test_end;
  };
  int64_t longest = 0;
  for (size_t begin = 0, end; begin < channels.size(); begin = end) {  // the channels of one series
    const ChannelSeries& c = channels[begin];
    for (end = begin; end < channels.size() && channels[end].series == c.series; ++end) continue;
    longest = std::max(longest, end_row(c) - first_row(c));
    for (int64_t origin = std::max(first_row(c), lookback); origin + horizon <= end_row(c); origin += stride) {
      ++times_;
      for (size_t i = begin; i < end; ++i) {
        const float* x = channels[i].values.data() + origin - lookback;
        if (std::all_of(x, x + lookback, [](float v) { return std::isnan(v); })) {
          ++skipped_;
        } else {
          places_.push_back({int64_t(i), origin});
        }
      }
    }
  }
  require(!places_.empty(),
          "{}: no {} window: look-back {} and horizon {} do not fit, the longest {} part has {} rows", where,
          name_of(part), lookback, horizon, name_of(part), longest);
}

SeriesBatch EvaluationWindows::batch(int64_t first, int64_t count) const {
  Buffers b(count, lookback_, horizon_);
  for (int64_t i = 0; i < count; ++i) {
    const Place& p = place(first + i);
    cut(channels_[size_t(p.channel)], p.origin - lookback_, lookback_, horizon_,
        b.batch.past.data<float>() + i * lookback_, b.batch.future.data<float>() + i * horizon_,
        b.batch.mask.data<uint8_t>() + i * horizon_);
  }
  return b.finish();
}

TrainingWindows::TrainingWindows(const std::vector<ChannelSeries>& channels, int64_t lookback, int64_t horizon,
                                 double mix, double flip, uint64_t seed, const std::string& where)
    : channels_(channels), lookback_(lookback), horizon_(horizon), mix_(mix), flip_(flip), seed_(seed) {
  int64_t longest = 0;
  for (const ChannelSeries& c : channels_) {
    longest = std::max(longest, c.train_end);
    const int64_t n = c.train_end - lookback - horizon + 1;
    if (n <= 0 ||
        std::all_of(c.values.begin(), c.values.begin() + c.train_end, [](float v) { return std::isnan(v); }))
      continue;
    usable_.push_back(&c);
    distinct_ += n;
  }
  require(!usable_.empty() || longest < lookback + horizon,
          "{}: no training window: every training part that is long enough holds no value", where);
  require(!usable_.empty(),
          "{}: no training window: look-back {} and horizon {} need {} rows, the longest training part has {}",
          where, lookback, horizon, lookback + horizon, longest);
}

void TrainingWindows::sample(uint64_t k, float* past, float* future, uint8_t* mask) const {
  RandomStream random(seed_, Purpose::window, uint32_t(k >> 32), uint32_t(k));
  const auto draw = [&](float* p, float* f, uint8_t* m) {
    for (int attempt = 0; attempt < 10000; ++attempt) {  // until the look-back holds a value
      const ChannelSeries& c = *usable_[random.below(usable_.size())];
      const int64_t start = int64_t(random.below(uint64_t(c.train_end - lookback_ - horizon_ + 1)));
      if (cut(c, start, lookback_, horizon_, p, f, m)) return;
    }
    fail("windows: 10000 draws found no look-back that holds a value");
  };
  draw(past, future, mask);
  RandomStream choice(seed_, Purpose::augment, uint32_t(k >> 32), uint32_t(k));
  const bool mixed = choice.uniform() < mix_;
  const float c = float(choice.uniform(0.5, 1.0));
  const float sign = choice.uniform() < flip_ ? -1.0f : 1.0f;
  if (mixed) {
    std::vector<float> p(static_cast<size_t>(lookback_)), f(static_cast<size_t>(horizon_));
    std::vector<uint8_t> m(static_cast<size_t>(horizon_));
    draw(p.data(), f.data(), m.data());
    for (int64_t i = 0; i < lookback_; ++i) past[i] = c * past[i] + (1 - c) * p[size_t(i)];
    for (int64_t i = 0; i < horizon_; ++i) {
      future[i] = c * future[i] + (1 - c) * f[size_t(i)];
      mask[i] &= m[size_t(i)];
      if (!mask[i]) future[i] = 0;
    }
  }
  for (int64_t i = 0; i < lookback_; ++i) past[i] *= sign;
  for (int64_t i = 0; i < horizon_; ++i) future[i] *= sign;
}

SeriesBatch TrainingWindows::batch(int64_t first, int64_t count) const {
  Buffers b(count, lookback_, horizon_);
  for (int64_t i = 0; i < count; ++i) {
    sample(uint64_t(first + i), b.batch.past.data<float>() + i * lookback_,
           b.batch.future.data<float>() + i * horizon_, b.batch.mask.data<uint8_t>() + i * horizon_);
  }
  return b.finish();
}

}  // namespace modrwkv
