#include <chrono>
#include <cmath>
#include <filesystem>

#include "core/random.h"
#include "data/series_set.h"
#include "eval/baselines.h"
#include "eval/forecast_scores.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

const std::string kSample = "data/samples/nyc_hourly_2013.csv", kShared = "../shared/data/timeseries/eval/";
constexpr double kRounding = 5.5e-5;  // published with four digits

ForecastScores score(const EvaluationWindows& windows, const Baseline& b) {
  ForecastScores s;
  for (int64_t first = 0; first < windows.size(); first += 1000) {
    const SeriesBatch batch = windows.batch(first, std::min<int64_t>(1000, windows.size() - first));
    s.add(b.forecast(batch.past), batch.future, batch.mask);
  }
  return s;
}

std::vector<ChannelSeries> channels_of(const std::string& path, const std::vector<double>& split) {
  return SeriesSet::make({read_csv(path)}, Split::parse(split)).z_scored();
}

struct Expected {
  Baseline baseline;
  double mse, mae;
};

void expect_scores(const std::vector<ChannelSeries>& channels, int64_t L, int64_t H,
                   const std::vector<Expected>& all) {
  const EvaluationWindows windows(channels, Part::test, L, H, 1, "x");
  for (const Expected& e : all) {
    const ForecastScores s = score(windows, e.baseline);
    EXPECT_NEAR(s.mse(), e.mse, kRounding) << e.baseline.name;
    EXPECT_NEAR(s.mae(), e.mae, kRounding) << e.baseline.name;
  }
}

// y[t] = a y[t-1] + b y[t-2] + noise, and the law without the noise as a forecast of one step.
std::vector<ChannelSeries> autoregression(int64_t n, uint64_t seed, double a = 1.6, double b = -0.99) {
  RandomStream random(seed, Purpose::test);
  ChannelSeries c{0, "ar", {}, n * 7 / 10, n * 8 / 10, n};
  for (int64_t t = 0; t < n; ++t) {
    const auto back = [&](int64_t k) { return t >= k ? double(c.values[size_t(t - k)]) : 0.0; };
    c.values.push_back(float(t < 4 ? random.normal() : a * back(1) + b * back(2) + 0.05 * random.normal()));
  }
  return {c};
}

Baseline true_law(double a, double b) {
  return {"law", "law", [a, b](const Tensor& past) {
            const int64_t n = past.size(1);
            Tensor y = Tensor::empty({past.size(0), 1});
            for (int64_t i = 0; i < past.size(0); ++i) {
              const float* x = past.data<float>() + i * n;
              y.data<float>()[i] = float(a * double(x[n - 1]) + b * double(x[n - 2]));
            }
            return y;
          }};
}

}  // namespace

TEST(Baselines, NaiveForecastsByHand) {
  const Tensor past = Tensor::from<float>({1, 2, 3, 4, 5, 6, 17, 18, 9, 10, 21, 32, 43, 54}, {2, 7});
  const auto values = [&](const Baseline& b) { return b.forecast(past).to_vector<float>(); };
  using V = std::vector<float>;
  EXPECT_EQ(values(last_value(2)), (V{17, 17, 54, 54}));
  EXPECT_EQ(values(seasonal_naive(3, 5)), (V{5, 6, 17, 5, 6, 32, 43, 54, 32, 43}));
  EXPECT_EQ(values(seasonal_naive(7, 2)), (V{1, 2, 18, 9}));
  // Two whole seasons: (2 3 4) and (5 6 17); (9 10 21) and (32 43 54).
  EXPECT_EQ(values(seasonal_mean(3, 4)), (V{3.5, 4.5, 10.5, 3.5, 20.5, 26.5, 37.5, 20.5}));
  EXPECT_EQ(values(seasonal_mean(7, 1)), (V{1, 18}));
  EXPECT_FLOAT_EQ(values(look_back_mean(1))[0], 38.0f / 7);
  expect_error([&] { values(seasonal_naive(8, 1)); }, "season 8 is longer than the look-back of 7");
  expect_error([&] { values(seasonal_mean(8, 1)); }, "season 8 is longer than the look-back of 7");
}

// Expected figures: the description of the sample, and a numpy program of the same definitions for single
// channels.
TEST(Baselines, ScoresOfTheSample) {
  const auto channels = channels_of(kSample, {6984, 873, 873});
  const auto begin = std::chrono::steady_clock::now();
  const Baseline plain = ridge(channels, 336, 48, false, "x"),
                 without_last = ridge(channels, 336, 48, true, "x");
  printf("two ridges of 336 -> 48 took %.2f s\n",
         std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  const EvaluationWindows windows(channels, Part::test, 336, 48, 1, "x");
  EXPECT_EQ(windows.times(), 826);
  expect_scores(channels, 336, 48,
                {{last_value(48), 1.2062, 0.8030},
                 {look_back_mean(48), 0.7984, 0.7506},
                 {seasonal_naive(24, 48), 0.7743, 0.5788},
                 {seasonal_naive(168, 48), 1.0846, 0.7328},
                 {seasonal_mean(24, 48), 0.5015, 0.5122},
                 {seasonal_mean(168, 48), 0.7092, 0.5671},
                 {plain, 0.3839, 0.4395},
                 {without_last, 0.3860, 0.4352}});
  // One channel of nine, JFK departures.
  const auto channel_1 = [&](const Baseline& b) {
    return score(windows, b).grouped(9, [&](int64_t i) { return windows.place(i).channel; })[1];
  };
  EXPECT_NEAR(channel_1(last_value(48)).mse(), 1.809039, 2e-6);
  EXPECT_NEAR(channel_1(seasonal_mean(24, 48)).mae(), 0.107798, 2e-6);
  EXPECT_NEAR(channel_1(plain).mse(), 0.035251, 2e-6);
  EXPECT_NEAR(channel_1(plain).mae(), 0.120847, 2e-6);
  EXPECT_NEAR(channel_1(without_last).mse(), 0.035274, 2e-6);
  // Single forecasts: the first test window of that channel.
  const auto first = plain.forecast(windows.batch(1, 1).past).to_vector<float>();
  EXPECT_NEAR(first[0], 0.182087, 2e-5);
  EXPECT_NEAR(first[24], 0.175369, 2e-5);
  EXPECT_NEAR(first[47], 0.462796, 2e-5);
}

TEST(Ridge, FindsALinearLaw) {
  // No fit of k coefficients on n windows loses more than about k / n of the law's own error on new data; twice
  // that is allowed, and luck on 600 test windows. The law without the last value must have coefficients that
  // add up to 1.
  for (const bool remove_last : {false, true}) {
    const double a = remove_last ? 1.5 : 1.6, b = remove_last ? -0.5 : -0.99;
    const auto channels = autoregression(3000, 5, a, b);
    const EvaluationWindows windows(channels, Part::test, 20, 1, 1, "x");
    const double fit = score(windows, ridge(channels, 20, 1, remove_last, "x")).mse(),
                 law = score(windows, true_law(a, b)).mse();
    EXPECT_NEAR(fit / law, 1, 2 * 21.0 / 2080 + 0.02) << remove_last;
  }
}

TEST(Ridge, SolvesTheNormalEquations) {
  // Against direct sums over every training window, and Gauss elimination.
  auto channels = autoregression(200, 9);
  channels.push_back(channels[0]);
  for (float& v : channels[1].values) v = 0.3f * v * v - 1;
  channels[1].series = 1;
  channels[0].val_end = channels[0].train_end,
  channels[1].val_end = channels[1].train_end;  // no validation part: strength 1e-2
  constexpr int L = 6, H = 2;
  for (const bool remove_last : {false, true}) {
    std::vector<std::vector<double>> windows;
    for (const ChannelSeries& c : channels) {
      for (int64_t t = 0; t + L + H <= c.train_end; ++t) {
        std::vector<double> v(c.values.begin() + t, c.values.begin() + t + L + H);
        const double last = v[L - 1];
        for (double& x : v) x -= remove_last ? last : 0;
        windows.push_back(v);
      }
    }
    const double n = double(windows.size());
    std::vector<double> mean(L + H);
    for (const auto& v : windows)
      for (int i = 0; i < L + H; ++i) mean[size_t(i)] += v[size_t(i)] / n;
    std::vector<std::vector<double>> a(L, std::vector<double>(L + H));  // [xx + lambda | xy]
    for (const auto& v : windows)
      for (size_t i = 0; i < L; ++i)
        for (size_t j = 0; j < L + H; ++j) a[i][j] += (v[i] - mean[i]) * (v[j] - mean[j]) / n;
    for (size_t i = 0; i < L; ++i) a[i][i] += 1e-2;
    for (size_t p = 0; p < L; ++p) {
      for (size_t i = 0; i < L; ++i) {
        if (i == p) continue;
        const double f = a[i][p] / a[p][p];
        for (size_t j = 0; j < L + H; ++j) a[i][j] -= f * a[p][j];
      }
    }
    const Baseline fit = ridge(channels, L, H, remove_last, "x");
    const std::vector<float> x = {0.5f, -1, 2, 0.25f, 1.5f, -0.75f};
    const auto y = fit.forecast(Tensor::from<float>(x, {1, L})).to_vector<float>();
    const double offset = remove_last ? double(x[L - 1]) : 0;
    for (size_t h = 0; h < H; ++h) {
      double expected = mean[L + h] + offset;
      for (size_t i = 0; i < L; ++i) expected += a[i][L + h] / a[i][i] * (double(x[i]) - offset - mean[i]);
      EXPECT_NEAR(y[h], expected, 1e-5) << remove_last;
    }
  }
}

TEST(Ridge, TakesGapsAndRefusesShortParts) {
  auto channels = autoregression(1000, 3);
  for (size_t t = 0; t < 1000; t += 37) channels[0].values[t] = std::numeric_limits<float>::quiet_NaN();
  const EvaluationWindows windows(channels, Part::test, 20, 2, 1, "x");
  const ForecastScores fit = score(windows, ridge(channels, 20, 2, false, "x")),
                       naive = score(windows, last_value(2));
  EXPECT_LT(fit.mse(), naive.mse());
  expect_error([&] { ridge(channels, 700, 2, false, "set.h5"); },
               "set.h5: ridge: no training window of look-back 700 and horizon 2");
}

TEST(Baselines, StandardOnes) {
  const auto channels = autoregression(1000, 3);
  EXPECT_EQ(standard_baselines(channels, 20, 2, 5, "x").size(), 5u);
  EXPECT_EQ(standard_baselines(channels, 20, 2, 21, "x").size(), 3u);  // a season longer than the look-back
}

// Published figures of public sets, where they are at hand: the protocol is right only if the first row agrees.
TEST(Baselines, ScoresOfEtth1) {
  if (!std::filesystem::exists(kShared)) GTEST_SKIP() << kShared << " is not here";
  const auto channels = channels_of(kShared + "ETTh1.csv", {8640, 2880, 2880});
  const auto begin = std::chrono::steady_clock::now();
  const Baseline plain = ridge(channels, 720, 96, false, "x");
  printf("one ridge of 720 -> 96 took %.2f s\n",
         std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  expect_scores(channels, 720, 96,
                {{last_value(96), 1.2944, 0.7132},
                 {look_back_mean(96), 0.7217, 0.5883},
                 {seasonal_naive(24, 96), 0.5122, 0.4333},
                 {seasonal_naive(168, 96), 0.6570, 0.5086},
                 {seasonal_mean(24, 96), 0.3940, 0.4217},
                 {plain, 0.3744, 0.3978},
                 {ridge(channels, 720, 96, true, "x"), 0.3693, 0.3957}});
}

TEST(Baselines, LastValueOfOtherSets) {
  if (!std::filesystem::exists(kShared)) GTEST_SKIP() << kShared << " is not here";
  expect_scores(channels_of(kShared + "ETTh2.csv", {8640, 2880, 2880}), 720, 96,
                {{last_value(96), 0.4317, 0.4216}});
  expect_scores(channels_of(kShared + "exchange_rate.txt.gz", {0.7, 0.1, 0.2}), 720, 96,
                {{last_value(96), 0.0811, 0.1964}});
  expect_scores(channels_of(kShared + "traffic_sensor0.csv.gz", {0.7, 0.1, 0.2}), 720, 96,
                {{last_value(96), 3.0398, 0.9549}, {seasonal_naive(168, 96), 0.6089, 0.2367}});
  expect_scores(channels_of(kShared + "weather.csv.gz", {0.7, 0.1, 0.2}), 720, 96,
                {{last_value(96), 0.2591, 0.2542}});
}
