#include <bit>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "data/series_set.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

const std::string kSample = "data/samples/nyc_hourly_2013.csv";
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct TemporaryFile {
  std::string path = ::testing::TempDir() + "modrwkv_series_set_" + std::to_string(::getpid()) + ".h5";
  ~TemporaryFile() { std::filesystem::remove(path); }
};

RawSeries series(const std::string& name, std::vector<std::vector<float>> values, const char* step = "h") {
  RawSeries s;
  s.name = name;
  for (size_t c = 0; c < values.size(); ++c) s.channels.push_back("c" + std::to_string(c));
  s.values = std::move(values);
  s.step = parse_step(step);
  return s;
}

std::vector<float> ramp(int n) {
  std::vector<float> v;
  for (int i = 0; i < n; ++i) v.push_back(float(i));
  return v;
}

// A set as another writer might make it: two series of 2 x 3 and 1 x 4 values. `change` may spoil a part before
// it is written.
struct Parts {
  std::vector<float> blob = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<uint64_t> off = {0, 6, 10}, len = {3, 4}, chan_off = {0, 2, 3}, train_end = {1, 2},
                        val_end = {2, 3}, test_end = {3, 3};
  std::vector<uint32_t> chan = {2, 1};
  std::vector<uint16_t> freq = {0, 1};
  std::vector<std::string> freq_names = {"h", ""}, names = {"one", "two"}, channel_names = {"a", "b", "c"};
  std::vector<int64_t> start = {0, kUnknownTime};
  std::vector<double> mean = {1, 4, 7.5}, std = {0, 0, 0.5};
  std::string format = "modrwkv.dataset", kind = "series";

  void write(const std::string& path) const {
    FileWriter f(path, format, kind);
    f.write_vector("/ts/blob", blob);
    f.write_vector("/ts/off", off);
    f.write_vector("/ts/len", len);
    f.write_vector("/ts/chan", chan);
    f.write_vector("/ts/chan_off", chan_off);
    f.write_vector("/ts/freq", freq);
    f.write_strings("/ts/freq_names", freq_names);
    f.write_vector("/ts/start", start);
    f.write_vector("/ts/mean", mean);
    f.write_vector("/ts/std", std);
    f.write_vector("/ts/train_end", train_end);
    f.write_vector("/ts/val_end", val_end);
    f.write_vector("/ts/test_end", test_end);
    f.write_strings("/ts/names", names);
    f.write_strings("/ts/channel_names", channel_names);
    f.commit();
  }
};

void expect_refused(const std::function<void(Parts&)>& change, const std::string& text) {
  const TemporaryFile file;
  Parts parts;
  change(parts);
  parts.write(file.path);
  expect_error([&] { SeriesSet::read(file.path); }, text);
  try {
    SeriesSet::read(file.path);
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).rfind(file.path, 0), 0u) << e.what();  // a message begins with the file
  }
}

}  // namespace

TEST(SeriesSet, StatisticsOfTheSample) {
  const SeriesSet set = SeriesSet::make({read_csv(kSample)}, Split::parse({0.8, 0.1, 0.1}));
  EXPECT_EQ(set[0].train_end, 6984);
  EXPECT_EQ(set[0].val_end, 7857);
  EXPECT_EQ(set[0].test_end, 8730);
  // numpy, float64: X[:6984].mean(0) and .std(0) of the CSV
  const double mean[] = {13.89418671, 12.8336197, 11.84965636, 14.78568156, 13.94392182,
                         14.80227663, 63.2825,    66.11306844, 59.8282059};
  const double std[] = {10.755861,   9.639066729, 9.283495893, 10.23539583, 9.644392799,
                        10.07083098, 19.87099823, 19.90278053, 17.9543043};
  for (size_t c = 0; c < 9; ++c) {
    EXPECT_NEAR(set[0].mean[c], mean[c], 1e-7 * mean[c]) << c;  // values are stored in 32 bits
    EXPECT_NEAR(set[0].std[c], std[c], 1e-7 * std[c]) << c;
  }
  const auto z = set.z_scored();
  ASSERT_EQ(z.size(), 9u);
  EXPECT_EQ(z[4].name, "JFK_temp_c");
  EXPECT_NEAR(z[4].values[0], (3.9 - mean[4]) / std[4], 1e-6);
}

TEST(SeriesSet, Splits) {
  const auto parts = [](int64_t rows, std::vector<double> split) {
    const SeriesSet set = SeriesSet::make({series("s", {ramp(int(rows))})}, Split::parse(split));
    return std::vector<int64_t>{set[0].train_end, set[0].val_end - set[0].train_end,
                                set[0].test_end - set[0].val_end};
  };
  using P = std::vector<int64_t>;
  EXPECT_EQ(parts(17420, {8640, 2880, 2880}), (P{8640, 2880, 2880}));  // later rows are unused
  EXPECT_EQ(parts(52696, {0.7, 0.1, 0.2}), (P{36887, 5270, 10539}));   // published
  EXPECT_EQ(parts(7588, {0.7, 0.1, 0.2}), (P{5311, 760, 1517}));
  EXPECT_EQ(parts(17544, {0.7, 0.1, 0.2}), (P{12280, 1756, 3508}));
  EXPECT_EQ(parts(10, {0.7, 0.1, 0.2}), (P{7, 1, 2}));
  EXPECT_EQ(parts(10, {1, 0, 0}), (P{10, 0, 0}));
  EXPECT_EQ(parts(11, {0.5, 0.25, 0.25}), (P{5, 4, 2}));  // validation takes the rest
  expect_error([] { Split::parse({0.5, 0.5}); }, "expected three");
  expect_error([] { Split::parse({0.5, 0.5, 0.5}); }, "more than 1");
  expect_error([] { Split::parse({10, -1, 2}); }, "negative");
  expect_error([] { Split::parse({10.5, 1, 2}); }, "neither");
  expect_error([] { Split::parse({0, 0.5, 0.5}); }, "training part is empty");
  expect_error([&] { parts(9, {5, 3, 2}); }, "s: has 9 rows, --split asks for 10");
}

TEST(SeriesSet, ShortSeriesOfACollectionAreTold) {
  std::vector<std::string> told;
  const SeriesSet set =
      SeriesSet::make({series("a", {ramp(9)}), series("b", {ramp(10)})}, Split::parse({5, 3, 2}),
                      [&](const std::string& line) { told.push_back(line); });
  EXPECT_EQ(set.size(), 1);
  EXPECT_EQ(set[0].raw.name, "b");
  EXPECT_EQ(told, std::vector<std::string>{"a: has 9 rows, --split asks for 10"});
}

TEST(SeriesSet, ConstantAndUnknownChannels) {
  std::vector<float> constant(1000, 0.1f), gap = {kNan, 1, 3, kNan, 100}, none = {kNan, kNan, kNan, kNan, 7};
  constant.back() = 5;  // outside of the training part
  const SeriesSet set =
      SeriesSet::make({series("a", {constant}), series("b", {gap, none})}, Split::parse({0.8, 0, 0.2}));
  EXPECT_EQ(set[0].mean[0], double(0.1f));
  EXPECT_EQ(set[0].std[0], 0);
  EXPECT_EQ(set[1].mean, (std::vector<double>{2, 0}));
  EXPECT_EQ(set[1].std, (std::vector<double>{1, 0}));
  const auto z = set.z_scored();
  EXPECT_EQ(z[0].values[0], 0);
  EXPECT_EQ(z[0].values.back(), float(5 - double(0.1f)));  // a standard deviation of 0 counts as 1
  EXPECT_TRUE(std::isnan(z[1].values[3]));
  EXPECT_EQ(z[1].values[4], 98);
  EXPECT_EQ(z[2].values[4], 7);
  EXPECT_EQ(z[2].series, 1);
}

TEST(SeriesSet, RoundTrip) {
  const TemporaryFile file;
  RawSeries a = series("Grüße/1", {{1, kNan, 3, 4, 5}, {6, 7, 8, 9, 1e30f}}, "15min"),
            b = series("b", {ramp(7)}, "");
  a.start = 1357020000;
  const SeriesSet set = SeriesSet::make({a, b}, Split::parse({3, 1, 1}));
  set.write(file.path);
  const SeriesSet again = SeriesSet::read(file.path);
  ASSERT_EQ(again.size(), 2);
  EXPECT_EQ(again.hash(), set.hash());
  for (int64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(again[i].raw.name, set[i].raw.name);
    EXPECT_EQ(again[i].raw.channels, set[i].raw.channels);
    EXPECT_EQ(again[i].raw.start, set[i].raw.start);
    EXPECT_EQ(again[i].raw.step, set[i].raw.step);
    EXPECT_EQ(again[i].mean, set[i].mean);
    EXPECT_EQ(again[i].std, set[i].std);
    EXPECT_EQ(again[i].test_end, set[i].test_end);
    EXPECT_EQ(again[i].raw.missing(), set[i].raw.missing());
  }
  EXPECT_EQ(again[0].raw.values[1], a.values[1]);
  // What the layout promises to other readers: variable-major values, the missing one a quiet NaN of fixed
  // bits.
  const FileReader h5(file.path);
  const auto blob = h5.read_vector<float>("/ts/blob");
  ASSERT_EQ(blob.size(), 17u);
  EXPECT_EQ(std::bit_cast<uint32_t>(blob[1]), 0x7FC00000u);
  EXPECT_EQ(blob[5], 6);
  EXPECT_EQ(h5.read_vector<uint64_t>("/ts/off"), (std::vector<uint64_t>{0, 10, 17}));
  EXPECT_EQ(h5.read_vector<uint64_t>("/ts/chan_off"), (std::vector<uint64_t>{0, 2, 3}));
  EXPECT_EQ(h5.read_vector<int64_t>("/ts/start")[1], INT64_MIN);
  EXPECT_EQ(h5.header().kind, "series");
}

TEST(SeriesSet, WritesTheSameBytesTwice) {
  const TemporaryFile file;
  const SeriesSet set = SeriesSet::make({series("a", {ramp(9)})}, Split::parse({0.5, 0.2, 0.3}));
  set.write(file.path);
  const std::string first = read_file(file.path);
  set.write(file.path);
  EXPECT_EQ(read_file(file.path), first);
}

TEST(SeriesSet, RefusesForeignAndHostileFiles) {
  expect_refused([](Parts& p) { p.kind = "text"; }, "is a data set of text, expected series");
  expect_refused([](Parts& p) { p.format = "modrwkv.model"; }, "modrwkv.model");
  expect_refused([](Parts& p) { p.off = {0, 5, 10}; }, "series 0 (one)");
  expect_refused([](Parts& p) { p.off = {0, 6, 11}; }, "/ts/off");
  expect_refused([](Parts& p) { p.off = {0, 12, 10}; }, "/ts/off");
  // 2 * len overflows to 6.
  expect_refused(
      [](Parts& p) {
        p.len[0] = (uint64_t(1) << 63) + 3;
        p.train_end[0] = 2;
      },
      "series 0 (one)");
  expect_refused([](Parts& p) { p.chan = {0, 1}; }, "series 0 (one)");
  expect_refused([](Parts& p) { p.chan_off = {0, 1, 3}; }, "series 0 (one)");
  expect_refused([](Parts& p) { p.train_end[1] = 4; }, "series 1 (two)");
  expect_refused([](Parts& p) { p.test_end[1] = 5; }, "series 1 (two)");
  expect_refused([](Parts& p) { p.freq[1] = 2; }, "series 1 (two)");
  expect_refused([](Parts& p) { p.freq_names[0] = "eternity"; },
                 "/ts/freq_names: unknown frequency 'eternity'");
  expect_refused([](Parts& p) { p.mean[2] = NAN; }, "series 1 (two): mean nan");
  expect_refused([](Parts& p) { p.std[2] = -1; }, "standard deviation -1");
  expect_refused([](Parts& p) { p.blob[7] = INFINITY; }, "series 1 (two): holds an infinite value");
  expect_refused([](Parts& p) { p.names.pop_back(); }, "/ts/names");
  expect_refused([](Parts& p) { p.mean.pop_back(); }, "/ts/mean");
  expect_refused([](Parts& p) { p.len.pop_back(); }, "/ts/len");
  const TemporaryFile file;
  Parts().write(file.path);
  const SeriesSet fine = SeriesSet::read(file.path);  // and what is not spoilt is read
  EXPECT_EQ(fine[0].raw.values[1], (std::vector<float>{4, 5, 6}));
  EXPECT_EQ(fine[1].raw.start, kUnknownTime);
  expect_error([] { SeriesSet::read(kSample); }, kSample);
}
