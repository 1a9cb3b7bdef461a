#include <cmath>
#include <map>
#include <set>

#include "core/random.h"
#include "data/windows.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Values that tell where they come from: 1000 * channel + row.
ChannelSeries channel(int64_t series, int64_t id, int64_t train, int64_t validation, int64_t test,
                      int64_t unused = 0) {
  ChannelSeries c{series, "c" + std::to_string(id), {}, train, train + validation, train + validation + test};
  for (int64_t t = 0; t < c.test_end + unused; ++t) c.values.push_back(float(1000 * id + t));
  return c;
}

std::vector<float> row(const Tensor& t, int64_t i) { return t.slice(i, i + 1).to_vector<float>(); }

std::vector<float> run(float from, int n) {
  std::vector<float> v;
  for (int i = 0; i < n; ++i) v.push_back(from + float(i));
  return v;
}

bool same(const SeriesBatch& a, const SeriesBatch& b) {
  return a.past.to_vector<float>() == b.past.to_vector<float>() &&
         a.future.to_vector<float>() == b.future.to_vector<float>() && a.mask.defined() == b.mask.defined() &&
         (!a.mask.defined() || a.mask.to_vector<uint8_t>() == b.mask.to_vector<uint8_t>());
}

}  // namespace

TEST(EvaluationWindows, CountIsPartMinusHorizonPlusOne) {
  // The published counts at horizon 96; they do not depend on the look-back.
  struct Set {
    int64_t train, validation, test, windows;
  };
  for (const Set& s : {Set{8640, 2880, 2880, 2785},
                       {34560, 11520, 11520, 11425},
                       {36887, 5270, 10539, 10444},
                       {24544, 3508, 7012, 6917},
                       {5311, 760, 1517, 1422},
                       {12280, 1756, 3508, 3413}}) {
    const std::vector<ChannelSeries> c = {channel(0, 0, s.train, s.validation, s.test, 20)};
    for (const int64_t lookback : {96, 720}) {
      EXPECT_EQ(EvaluationWindows(c, Part::test, lookback, 96, 1, "x").size(), s.windows);
      EXPECT_EQ(EvaluationWindows(c, Part::validation, lookback, 96, 1, "x").size(), s.validation - 96 + 1);
      EXPECT_EQ(EvaluationWindows(c, Part::train, lookback, 96, 1, "x").size(), s.train - 96 - lookback + 1);
    }
  }
}

TEST(EvaluationWindows, FirstAndLastWindow) {
  const std::vector<ChannelSeries> c = {channel(0, 1, 20, 10, 8, 5), channel(0, 2, 20, 10, 8, 5)};
  const EvaluationWindows test(c, Part::test, 6, 3, 1, "x"), train(c, Part::train, 6, 3, 1, "x");
  ASSERT_EQ(test.size(), 2 * 6);
  EXPECT_EQ(test.times(), 6);
  const SeriesBatch b = test.batch(0, test.size());
  EXPECT_FALSE(b.mask.defined());
  EXPECT_EQ(row(b.past, 0), run(1024, 6));     // reaches back into the validation part
  EXPECT_EQ(row(b.future, 0), run(1030, 3));   // the first test row
  EXPECT_EQ(row(b.past, 1), run(2024, 6));     // channels of one time are neighbours
  EXPECT_EQ(row(b.future, 11), run(2035, 3));  // ends with the last test row
  EXPECT_EQ(row(train.batch(0, 1).past, 0), run(1000, 6));
  EXPECT_EQ(test.place(11).channel, 1);
  EXPECT_EQ(test.place(11).origin, 35);
  EXPECT_TRUE(same(test.batch(4, 3), SeriesBatch{b.past.slice(4, 7), b.future.slice(4, 7), Tensor()}));
}

TEST(EvaluationWindows, Stride) {
  const std::vector<ChannelSeries> c = {channel(0, 0, 20, 10, 9)};
  for (int64_t stride = 1; stride < 12; ++stride) {
    const EvaluationWindows w(c, Part::test, 4, 3, stride, "x");
    ASSERT_EQ(w.size(), 6 / stride + 1);  // origins 30, 30 + stride, .. <= 36
    for (int64_t i = 0; i < w.size(); ++i) EXPECT_EQ(w.place(i).origin, 30 + i * stride);
  }
}

TEST(EvaluationWindows, SeriesOfManyLengths) {
  // The second is too short for a window, the third for a whole look-back at its first test rows.
  const std::vector<ChannelSeries> c = {channel(0, 0, 20, 10, 8), channel(1, 1, 20, 10, 2),
                                        channel(2, 2, 2, 1, 9)};
  const EvaluationWindows w(c, Part::test, 6, 3, 1, "x");
  std::map<int64_t, std::vector<int64_t>> origins;
  for (int64_t i = 0; i < w.size(); ++i) origins[w.place(i).channel].push_back(w.place(i).origin);
  EXPECT_EQ(origins[0].size(), 6u);
  EXPECT_FALSE(origins.contains(1));
  EXPECT_EQ(origins[2], (std::vector<int64_t>{6, 7, 8, 9}));
  expect_error([&] { EvaluationWindows(c, Part::test, 6, 20, 1, "set.h5"); },
               "set.h5: no test window: look-back 6 and horizon 20");
}

TEST(EvaluationWindows, MissingValues) {
  std::vector<ChannelSeries> c = {channel(0, 0, 8, 0, 8)};
  auto& x = c[0].values;
  x = {kNan, 1, kNan, 3, kNan, kNan, kNan, kNan, kNan, 9, kNan, 11, 12, kNan, kNan, 15};
  const EvaluationWindows w(c, Part::test, 4, 2, 1, "x");
  // The look-back of origin 8 is rows 4..7, of 9 rows 5..8: none is known. Seven windows less two.
  EXPECT_EQ(w.skipped(), 2);
  ASSERT_EQ(w.size(), 5);
  EXPECT_EQ(w.times(), 7);
  const SeriesBatch b = w.batch(0, 5);
  EXPECT_EQ(row(b.past, 0),
            (std::vector<float>{9, 9, 9, 9}));  // before the first value: the mean of the window
  ASSERT_TRUE(b.mask.defined());
  for (int64_t i = 0; i < 5; ++i) {
    const int64_t origin = w.place(i).origin;
    // The definition, written slowly.
    double sum = 0;
    int known = 0;
    for (int64_t t = origin - 4; t < origin; ++t) {
      if (!std::isnan(x[size_t(t)])) sum += double(x[size_t(t)]), ++known;
    }
    float last = float(sum / known);
    for (int64_t t = 0; t < 4; ++t) {
      const float v = x[size_t(origin - 4 + t)];
      if (!std::isnan(v)) last = v;
      EXPECT_EQ(row(b.past, i)[size_t(t)], last) << i << " " << t;
    }
    for (int64_t h = 0; h < 2; ++h) {
      const float v = x[size_t(origin + h)];
      EXPECT_EQ(b.mask.data<uint8_t>()[i * 2 + h], std::isnan(v) ? 0 : 1);
      EXPECT_EQ(row(b.future, i)[size_t(h)], std::isnan(v) ? 0 : v);
    }
  }
}

TEST(TrainingWindows, StayInTheTrainingPart) {
  const std::vector<ChannelSeries> c = {channel(0, 1, 30, 10, 10), channel(1, 2, 9, 500, 10),
                                        channel(2, 3, 10, 500, 10)};
  const TrainingWindows w(c, 7, 3, 0, 0, 5, "x");
  EXPECT_EQ(w.distinct(), 21 + 1);  // the second is one row too short
  std::map<float, int> first_values;
  const SeriesBatch b = w.batch(0, 4000);
  for (int64_t i = 0; i < 4000; ++i) {
    const float first = row(b.past, i)[0];
    ++first_values[first];
    EXPECT_EQ(row(b.past, i), run(first, 7));
    EXPECT_EQ(row(b.future, i), run(first + 7, 3));
  }
  // Channels are equally likely, then times: 2000 of 4000 draws, and 2000 / 21 each. Five standard deviations
  // are allowed.
  EXPECT_EQ(first_values.size(), 22u);
  EXPECT_NEAR(first_values[3000], 2000, 5 * std::sqrt(4000 * 0.25));
  for (int t = 0; t < 21; ++t)
    EXPECT_NEAR(first_values[float(1000 + t)], 2000.0 / 21, 5 * std::sqrt(2000.0 / 21)) << t;
  expect_error(
      [&] { TrainingWindows(c, 30, 1, 0, 0, 0, "set.h5"); },
      "set.h5: no training window: look-back 30 and horizon 1 need 31 rows, the longest training part has 30");
}

TEST(TrainingWindows, ArePureFunctionsOfSeedAndIndex) {
  const std::vector<ChannelSeries> c = {channel(0, 1, 300, 1, 1), channel(0, 2, 300, 1, 1)};
  const TrainingWindows w(c, 16, 4, 0.5, 0.5, 7, "x"), again(c, 16, 4, 0.5, 0.5, 7, "x"),
      other(c, 16, 4, 0.5, 0.5, 8, "x");
  const int64_t far = (int64_t(1) << 33) + 5;
  for (const int64_t k : {int64_t(0), int64_t(100), far}) {
    const SeriesBatch whole = w.batch(k, 8);
    for (int64_t i = 0; i < 8; ++i) {  // whatever the batch
      const SeriesBatch one = again.batch(k + i, 1);
      EXPECT_EQ(one.past.to_vector<float>(), row(whole.past, i));
      EXPECT_EQ(one.future.to_vector<float>(), row(whole.future, i));
    }
    EXPECT_FALSE(same(whole, other.batch(k, 8)));
  }
  EXPECT_FALSE(same(w.batch(0, 8), w.batch(int64_t(1) << 32, 8)));  // the high half of the index counts
  EXPECT_NE(row(w.batch(0, 2).past, 0), row(w.batch(0, 2).past, 1));
}

TEST(TrainingWindows, SignFlip) {
  const std::vector<ChannelSeries> c = {channel(0, 1, 300, 1, 1)};
  const SeriesBatch plain = TrainingWindows(c, 8, 4, 0, 0, 3, "x").batch(0, 2000),
                    flipped = TrainingWindows(c, 8, 4, 0, 1, 3, "x").batch(0, 2000),
                    half = TrainingWindows(c, 8, 4, 0, 0.5, 3, "x").batch(0, 2000);
  int negative = 0;
  for (int64_t i = 0; i < 2000; ++i) {
    std::vector<float> p = row(plain.past, i), f = row(plain.future, i);
    for (float& v : p) v = -v;
    for (float& v : f) v = -v;
    EXPECT_EQ(row(flipped.past, i), p);
    EXPECT_EQ(row(flipped.future, i), f);
    const bool is_negative = row(half.past, i)[0] < 0;
    EXPECT_EQ(row(half.past, i), is_negative ? p : row(plain.past, i));
    EXPECT_EQ(row(half.future, i)[0] < 0, is_negative);  // both or neither
    negative += is_negative;
  }
  EXPECT_NEAR(negative, 1000, 5 * std::sqrt(500.0));
}

TEST(TrainingWindows, MixingIsASumOfTwoWindows) {
  // Channel 0 is 0, channel 1 is 1 everywhere: a mixed window shows its weight.
  std::vector<ChannelSeries> c = {channel(0, 0, 100, 1, 1), channel(1, 0, 100, 1, 1)};
  for (float& v : c[0].values) v = 0;
  for (float& v : c[1].values) v = 1;
  constexpr int kDraws = 8000;
  const SeriesBatch b = TrainingWindows(c, 5, 2, 1, 0, 11, "x").batch(0, kDraws),
                    half = TrainingWindows(c, 5, 2, 0.5, 0, 11, "x").batch(0, kDraws);
  int whole = 0, low = 0, high = 0, still_whole = 0;
  double sum = 0;
  for (int64_t i = 0; i < kDraws; ++i) {
    const float w = row(b.past, i)[0];
    for (const float v : row(b.past, i)) ASSERT_EQ(v, w);
    for (const float v : row(b.future, i)) ASSERT_EQ(v, w);  // look-back and target together
    ASSERT_TRUE(w >= 0 && w <= 1) << w;
    const bool pure = w < 1e-6f || w > 1 - 1e-6f;
    whole += pure;
    low += !pure && w < 0.5f;
    high += !pure && w >= 0.5f;
    if (!pure) sum += std::max(w, 1 - w);
    const float h = row(half.past, i)[0];
    still_whole += h < 1e-6f || h > 1 - 1e-6f;
  }
  EXPECT_NEAR(whole, kDraws / 2, 5 * std::sqrt(kDraws * 0.25));  // both windows of one channel
  EXPECT_NEAR(low, high, 5 * std::sqrt(kDraws * 0.5));
  EXPECT_NEAR(sum / (low + high), 0.75, 5 * 0.5 / std::sqrt(12.0 * (low + high)));  // c is uniform in [0.5, 1]
  EXPECT_NEAR(still_whole, kDraws * 0.75, 5 * std::sqrt(kDraws * 0.25));
}

TEST(TrainingWindows, MixedTargetsAreKnownWhereBothAre) {
  std::vector<ChannelSeries> c = {channel(0, 0, 200, 1, 1)};
  for (size_t t = 0; t < c[0].values.size(); ++t) c[0].values[t] = t % 5 == 0 ? kNan : 1;
  const SeriesBatch b = TrainingWindows(c, 10, 10, 1, 1, 2, "x").batch(0, 400);
  ASSERT_TRUE(b.mask.defined());
  std::set<int> known;
  for (int64_t i = 0; i < 400; ++i) {
    int n = 0;
    for (int64_t h = 0; h < 10; ++h) {
      const bool m = b.mask.data<uint8_t>()[i * 10 + h];
      EXPECT_NEAR(row(b.future, i)[size_t(h)], m ? -1 : 0, 1e-6);
      n += m;
    }
    for (const float v : row(b.past, i)) EXPECT_NEAR(v, -1, 1e-6);
    known.insert(n);
  }
  EXPECT_EQ(known, (std::set<int>{6, 8}));  // gaps of both, at the same or at other places
}

TEST(TrainingWindows, LookBacksWithoutAValueAreDrawnAgain) {
  std::vector<ChannelSeries> c = {channel(0, 0, 400, 1, 1), channel(1, 1, 100, 1, 1)};
  for (size_t t = 0; t < 390; ++t) c[0].values[t] = kNan;
  for (float& v : c[1].values) v = kNan;  // never known: left out
  const TrainingWindows w(c, 8, 2, 0, 0, 1, "x");
  const SeriesBatch b = w.batch(0, 50);
  for (const float v : b.past.to_vector<float>()) EXPECT_GE(v, 390);
  c[0].values.assign(402, kNan);
  expect_error([&] { TrainingWindows(c, 8, 2, 0, 0, 1, "x"); }, "x: no training window");
}
