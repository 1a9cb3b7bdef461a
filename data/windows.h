// Windows of series: a look-back and the horizon that follows it, in z-scored units. Pure functions of their
// index, so that the k-th training window of a run is the same whatever the batch, the threads or the restarts.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

// One channel of one series, z-scored by its training part. Rows [0, train_end) are for training, [train_end,
// val_end) for validation, [val_end, test_end) for the test. NaN is a missing value.
struct ChannelSeries {
  int64_t series = 0;  // channels of one series are neighbours and share their rows
  std::string name;
  std::vector<float> values;
  int64_t train_end = 0, val_end = 0, test_end = 0;
};

enum class Part { train, validation, test };
const char* name_of(Part part);

struct SeriesBatch {
  Tensor
      past;  // [B, lookback] f32; missing values are filled with the last one seen, else with the window's mean
  Tensor future;  // [B, horizon] f32; missing values are 0
  Tensor mask;    // [B, horizon] u8, 1 where future is known; undefined where all of it is
};

// All windows of a part: the first forecast row of the first window is the first row of the part, and the
// look-back reaches back into what lies before (in the training part it starts at row 0). Ordered by series,
// then time, then channel.
class EvaluationWindows {
 public:
  // `channels` must outlive this object. Throws when no window fits; `where` begins the message.
  EvaluationWindows(const std::vector<ChannelSeries>& channels, Part part, int64_t lookback, int64_t horizon,
                    int64_t stride, const std::string& where);
  int64_t size() const { return int64_t(places_.size()); }
  int64_t times() const { return times_; }      // of all series together
  int64_t skipped() const { return skipped_; }  // windows whose look-back holds no value
  struct Place {
    int64_t channel, origin;  // origin: row of the first forecast value
  };
  const Place& place(int64_t i) const { return places_[size_t(i)]; }
  SeriesBatch batch(int64_t first, int64_t count) const;

 private:
  const std::vector<ChannelSeries>& channels_;
  int64_t lookback_, horizon_, times_ = 0, skipped_ = 0;
  std::vector<Place> places_;
};

// Random windows of the training parts: channel, then time, both uniform. With probability `mix` a window is
// the sum of two, c and 1 - c, c uniform in [0.5, 1]; with probability `flip` it changes its sign.
class TrainingWindows {
 public:
  TrainingWindows(const std::vector<ChannelSeries>& channels, int64_t lookback, int64_t horizon, double mix,
                  double flip, uint64_t seed, const std::string& where);
  int64_t distinct() const { return distinct_; }          // windows there are
  SeriesBatch batch(int64_t first, int64_t count) const;  // windows first, first + 1, .. of the run

 private:
  struct Draw {
    const ChannelSeries* channel;
    int64_t start;
  };
  void sample(uint64_t k, float* past, float* future, uint8_t* mask) const;

  const std::vector<ChannelSeries>& channels_;
  std::vector<const ChannelSeries*> usable_;  // long enough
  int64_t lookback_, horizon_, distinct_ = 0;
  double mix_, flip_;
  uint64_t seed_;
};

}  // namespace modrwkv
