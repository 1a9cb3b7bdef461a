#include <cmath>

#include "eval/forecast_scores.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

Tensor f32(const std::vector<float>& values, const Shape& shape) { return Tensor::from<float>(values, shape); }

}  // namespace

TEST(ForecastScores, SumsAndDividesOnce) {
  ForecastScores s;
  s.add(f32({1, 2, 3, 4}, {2, 2}), f32({1, 4, 0, 5}, {2, 2}), Tensor());  // errors 0 -2 3 -1
  s.add(f32({0, 0}, {1, 2}), f32({4, 9}, {1, 2}),
        Tensor::from<uint8_t>({1, 0}, {1, 2}));       // error -4, the other masked
  EXPECT_DOUBLE_EQ(s.mse(), (4 + 9 + 1 + 16) / 5.0);  // not the mean of the batches' or windows' means
  EXPECT_DOUBLE_EQ(s.mae(), (2 + 3 + 1 + 4) / 5.0);
  EXPECT_EQ(s.windows(), 3);
  EXPECT_EQ(s.total().count, 5);
  EXPECT_EQ(s.window_mse(), (std::vector<double>{2, 5, 16}));
  EXPECT_DOUBLE_EQ(s.window(1).mae(), 2);
}

TEST(ForecastScores, MaskedValuesDoNotCountWhateverTheyAre) {
  ForecastScores s;
  s.add(f32({NAN, 1}, {1, 2}), f32({INFINITY, 3}, {1, 2}), Tensor::from<uint8_t>({0, 1}, {1, 2}));
  EXPECT_EQ(s.mse(), 4);
  s.add(f32({7, 7}, {1, 2}), f32({0, 0}, {1, 2}), Tensor::from<uint8_t>({0, 0}, {1, 2}));
  EXPECT_EQ(s.mse(), 4);
  EXPECT_TRUE(std::isnan(s.window_mse()[1]));
}

TEST(ForecastScores, NanForecastsStayVisible) {
  ForecastScores s;
  s.add(f32({NAN, 1}, {2, 1}), f32({0, 1}, {2, 1}), Tensor());
  EXPECT_TRUE(std::isnan(s.mse()));
  EXPECT_EQ(s.window_at(0), 1);
  EXPECT_EQ(s.window_at(1), 0);  // the worst
}

TEST(ForecastScores, DoubleSums) {
  // 2^24 + 1 cannot be counted up in 32 bits.
  ForecastScores s;
  const Tensor zero = Tensor::zeros({1, 3});
  s.add(f32({4096, 1, 1}, {1, 3}), zero, Tensor());
  EXPECT_DOUBLE_EQ(s.mse() * 3, 16777218.0);
}

TEST(ForecastScores, GroupsAddUpToTheTotal) {
  ForecastScores s;
  const Tensor y = random_tensor({12, 5}, 3).to(DType::f32), f = random_tensor({12, 5}, 4).to(DType::f32);
  s.add(f, y, Tensor());
  const auto by_channel = s.grouped(3, [](int64_t i) { return i % 3; });
  ErrorSum all;
  for (int64_t c = 0; c < 3; ++c) {
    ForecastScores alone;
    for (int64_t i = c; i < 12; i += 3) alone.add(f.slice(i, i + 1), y.slice(i, i + 1), Tensor());
    EXPECT_DOUBLE_EQ(by_channel[size_t(c)].mse(), alone.mse());
    EXPECT_DOUBLE_EQ(by_channel[size_t(c)].mae(), alone.mae());
    all.add(by_channel[size_t(c)]);
  }
  EXPECT_NEAR(all.mse(), s.mse(), 1e-15);
  EXPECT_EQ(all.count, 60);
}

TEST(ForecastScores, WindowsByQuantile) {
  ForecastScores s;
  EXPECT_EQ(s.window_at(0.5), -1);
  s.add(f32({3, 1, 4, 2, 0}, {5, 1}), Tensor::zeros({5, 1}), Tensor());
  EXPECT_EQ(s.window_at(0), 4);
  EXPECT_EQ(s.window_at(0.5), 3);
  EXPECT_EQ(s.window_at(1), 2);
}

TEST(ForecastScores, RefusesWhatDoesNotFit) {
  ForecastScores s;
  expect_error(
      [&] {
        s.add(Tensor::zeros({2, 3}), Tensor::zeros({2, 4}), Tensor());
      },
      "scores: forecast is f32 [2, 3]");
  expect_error(
      [&] {
        s.add(Tensor::zeros({2, 3}), Tensor::zeros({2, 3}), Tensor::zeros({2, 2}, DType::u8));
      },
      "scores:");
  EXPECT_TRUE(std::isnan(s.mse()));
}
