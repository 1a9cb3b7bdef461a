// Splits, statistics, and the HDF5 layout of a set of series.
#include "data/series_set.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"

namespace modrwkv {
namespace {

constexpr uint64_t kMostValues = uint64_t(1) << 34;

void compute_statistics(Series& s) {
  for (const std::vector<float>& v : s.raw.values) {
    double sum = 0, square = 0;
    int64_t n = 0;
    for (int64_t i = 0; i < s.train_end; ++i) {
      if (std::isnan(v[size_t(i)])) continue;
      sum += double(v[size_t(i)]);
      ++n;
    }
    const double mean = n > 0 ? sum / double(n) : 0;
    for (int64_t i = 0; i < s.train_end; ++i) {
      if (!std::isnan(v[size_t(i)])) square += (double(v[size_t(i)]) - mean) * (double(v[size_t(i)]) - mean);
    }
    s.mean.push_back(mean);
    s.std.push_back(n > 0 ? std::sqrt(square / double(n)) : 0);
  }
}

}  // namespace

Split Split::parse(const std::vector<double>& parts) {
  require(parts.size() == 3, "--split: {} numbers, expected three: training, validation, test", parts.size());
  Split s{parts[0], parts[1], parts[2], true};
  for (const double p : parts) require(p >= 0 && std::isfinite(p), "--split: {} is negative", p);
  for (const double p : parts) require(p < 1e15, "--split: {} rows are more than any series has", p);
  s.fractions = parts[0] <= 1 && parts[1] <= 1 && parts[2] <= 1;
  require(!s.fractions || parts[0] + parts[1] + parts[2] <= 1 + 1e-9,
          "--split {},{},{}: fractions add up to more than 1", parts[0], parts[1], parts[2]);
  for (const double p : parts)
    require(s.fractions || p == std::floor(p), "--split: {} is neither a number of rows nor a fraction", p);
  require(parts[0] > 0, "--split: the training part is empty");
  return s;
}

SeriesSet SeriesSet::make(std::vector<RawSeries> raw, const Split& split,
                          const std::function<void(const std::string&)>& report) {
  SeriesSet set;
  for (RawSeries& r : raw) {
    Series s;
    const int64_t n = r.rows();
    if (split.fractions) {
      // A fraction such as 0.1 lies a little beside its decimal value, which must not cost a row.
      const auto rows = [n](double f) { return int64_t(std::floor(f * double(n) + 1e-9 * double(n))); };
      s.train_end = rows(split.train);
      s.val_end = n - rows(split.test);
      s.test_end = n;
    } else {
      s.train_end = int64_t(split.train);
      s.val_end = s.train_end + int64_t(split.validation);
      s.test_end = s.val_end + int64_t(split.test);
      if (s.test_end > n) {
        const std::string line = fmt::format("{}: has {} rows, --split asks for {}", r.name, n, s.test_end);
        if (!report) throw Error(line);
        report(line);
        continue;
      }
    }
    s.raw = std::move(r);
    compute_statistics(s);
    set.series_.push_back(std::move(s));
  }
  require(!set.series_.empty(), "import: no series");
  return set;
}

void SeriesSet::write(const std::string& path) const {
  FileWriter file(path, "modrwkv.dataset", "series");
  std::vector<uint64_t> off = {0}, chan_off = {0}, len, train_end, val_end, test_end;
  std::vector<uint32_t> chan;
  std::vector<uint16_t> freq;
  std::vector<int64_t> start;
  std::vector<double> mean, std;
  std::vector<std::string> names, channel_names, freq_names;
  for (const Series& s : series_) {
    const uint64_t channels = s.raw.channels.size(), rows = uint64_t(s.raw.rows());
    off.push_back(off.back() + channels * rows);
    chan_off.push_back(chan_off.back() + channels);
    chan.push_back(uint32_t(channels));
    len.push_back(rows);
    train_end.push_back(uint64_t(s.train_end));
    val_end.push_back(uint64_t(s.val_end));
    test_end.push_back(uint64_t(s.test_end));
    start.push_back(s.raw.start);
    mean.insert(mean.end(), s.mean.begin(), s.mean.end());
    std.insert(std.end(), s.std.begin(), s.std.end());
    names.push_back(s.raw.name);
    channel_names.insert(channel_names.end(), s.raw.channels.begin(), s.raw.channels.end());
    const std::string step = s.raw.step.str();
    auto at = std::find(freq_names.begin(), freq_names.end(), step);
    if (at == freq_names.end()) at = freq_names.insert(freq_names.end(), step);
    freq.push_back(uint16_t(at - freq_names.begin()));
  }
  file.create("/ts/blob", ElementType::f32, {off.back()});
  for (const Series& s : series_) {
    for (const std::vector<float>& v : s.raw.values)
      file.append("/ts/blob", v.data(), v.size() * sizeof(float));
  }
  file.write_vector("/ts/off", off);
  file.write_vector("/ts/chan", chan);
  file.write_vector("/ts/len", len);
  file.write_vector("/ts/chan_off", chan_off);
  file.write_vector("/ts/freq", freq);
  file.write_strings("/ts/freq_names", freq_names);
  file.write_vector("/ts/start", start);
  file.write_vector("/ts/mean", mean);
  file.write_vector("/ts/std", std);
  file.write_vector("/ts/train_end", train_end);
  file.write_vector("/ts/val_end", val_end);
  file.write_vector("/ts/test_end", test_end);
  file.write_strings("/ts/names", names);
  file.write_strings("/ts/channel_names", channel_names);
  file.commit();
}

SeriesSet SeriesSet::read(const std::string& path) {
  const FileReader file(path);
  file.require_format("modrwkv.dataset");
  require(file.header().kind == "series", "{}: is a data set of {}, expected series", path, file.header().kind);
  const DatasetInfo blob = file.info("/ts/blob", {ElementType::f32, {-1}});
  require(blob.elements <= kMostValues, "{}: /ts/blob: {} values, at most {} are read", path, blob.elements,
          kMostValues);
  std::vector<float> values(blob.elements);
  file.read_all(blob, values.data());
  const std::vector<uint64_t> off = file.read_offsets("/ts/off", blob.elements);
  const int64_t m = int64_t(off.size()) - 1;
  const auto names = file.read_strings("/ts/names"), channel_names = file.read_strings("/ts/channel_names"),
             freq_names = file.read_strings("/ts/freq_names");
  const auto chan_off = file.read_offsets("/ts/chan_off", channel_names.size());
  const auto chan = file.read_vector<uint32_t>("/ts/chan", {m});
  const auto freq = file.read_vector<uint16_t>("/ts/freq", {m});
  const auto len = file.read_vector<uint64_t>("/ts/len", {m}),
             train_end = file.read_vector<uint64_t>("/ts/train_end", {m}),
             val_end = file.read_vector<uint64_t>("/ts/val_end", {m}),
             test_end = file.read_vector<uint64_t>("/ts/test_end", {m});
  const auto start = file.read_vector<int64_t>("/ts/start", {m});
  const auto channels = int64_t(channel_names.size());
  const auto mean = file.read_vector<double>("/ts/mean", {channels}),
             std = file.read_vector<double>("/ts/std", {channels});
  require(int64_t(names.size()) == m && int64_t(chan_off.size()) == m + 1,
          "{}: /ts/names: {} names for {} series", path, names.size(), m);
  SeriesSet set;
  for (size_t i = 0; i < size_t(m); ++i) {
    const uint64_t rows = len[i], n = chan[i];
    // rows is checked by division: n * rows may overflow in a hostile file.
    const uint64_t count = off[i + 1] - off[i];
    require(n > 0 && count % n == 0 && count / n == rows && chan_off[i + 1] - chan_off[i] == n &&
                freq[i] < freq_names.size() && train_end[i] <= val_end[i] && val_end[i] <= test_end[i] &&
                test_end[i] <= rows,
            "{}: series {} ({}): its lengths and parts do not agree", path, i, names[i]);
    Series s;
    s.raw.name = names[i];
    s.raw.start = start[i];
    try {
      s.raw.step = parse_step(freq_names[freq[i]]);
    } catch (const Error& e) {
      fail("{}: /ts/freq_names: {}", path, e.what());
    }
    s.train_end = int64_t(train_end[i]);
    s.val_end = int64_t(val_end[i]);
    s.test_end = int64_t(test_end[i]);
    for (uint64_t c = 0; c < n; ++c) {
      const float* first = values.data() + off[i] + c * rows;
      s.raw.channels.push_back(channel_names[chan_off[i] + c]);
      s.raw.values.emplace_back(first, first + rows);
      s.mean.push_back(mean[chan_off[i] + c]);
      s.std.push_back(std[chan_off[i] + c]);
      require(std::isfinite(s.mean.back()) && std::isfinite(s.std.back()) && s.std.back() >= 0,
              "{}: series {} ({}): mean {} and standard deviation {}", path, i, names[i], s.mean.back(),
              s.std.back());
      require(std::none_of(first, first + rows, [](float x) { return std::isinf(x); }),
              "{}: series {} ({}): holds an infinite value", path, i, names[i]);
    }
    set.series_.push_back(std::move(s));
  }
  require(!set.series_.empty(), "{}: holds no series", path);
  return set;
}

std::vector<ChannelSeries> SeriesSet::z_scored() const {
  std::vector<ChannelSeries> all;
  for (size_t i = 0; i < series_.size(); ++i) {
    const Series& s = series_[i];
    for (size_t c = 0; c < s.raw.channels.size(); ++c) {
      ChannelSeries z{int64_t(i), s.raw.channels[c], s.raw.values[c], s.train_end, s.val_end, s.test_end};
      const double mean = s.mean[c], std = s.std[c] > 0 ? s.std[c] : 1;
      for (float& x : z.values) x = float((double(x) - mean) / std);
      all.push_back(std::move(z));
    }
  }
  return all;
}

uint64_t SeriesSet::hash() const {
  Xxh64 hash;
  for (const Series& s : series_) {
    const int64_t ends[] = {s.train_end, s.val_end, s.test_end};
    hash.add(ends, sizeof ends);
    for (const std::vector<float>& v : s.raw.values) hash.add(v.data(), v.size() * sizeof(float));
  }
  return hash.value();
}

}  // namespace modrwkv
