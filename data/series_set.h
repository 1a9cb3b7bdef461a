// A packed set of series (format modrwkv.dataset, kind series): values, names, times, and for every channel the
// mean and standard deviation of its training part. Windows are not stored: they follow from look-back and
// horizon (data/windows.h).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "data/csv.h"
#include "data/windows.h"

namespace modrwkv {

// Lengths of the training, validation and test part: rows, or fractions of a series (train = floor(a n), test =
// floor(c n), validation the rest).
struct Split {
  double train = 0.7, validation = 0.1, test = 0.2;
  bool fractions = true;
  static Split parse(const std::vector<double>& parts);  // three numbers; all of them at most 1: fractions
};

struct Series {
  RawSeries raw;
  int64_t train_end = 0, val_end = 0, test_end = 0;  // rows; those from test_end on are not used
  std::vector<double> mean,
      std;  // of the training part, a channel each; population std, 0 where it is constant or unknown
};

class SeriesSet {
 public:
  // Applies the split and computes the statistics. A series too short for the split is refused, or, where there
  // is a `report`, told to it and left out.
  static SeriesSet make(std::vector<RawSeries> raw, const Split& split,
                        const std::function<void(const std::string&)>& report = {});
  static SeriesSet read(const std::string& path);  // refuses other kinds of files by name
  void write(const std::string& path) const;

  int64_t size() const { return int64_t(series_.size()); }
  const Series& operator[](int64_t i) const { return series_[size_t(i)]; }
  std::vector<ChannelSeries> z_scored() const;  // every channel; a standard deviation of 0 counts as 1
  uint64_t hash() const;                        // of values and parts

 private:
  std::vector<Series> series_;
};

}  // namespace modrwkv
