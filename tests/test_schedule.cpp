#include <gtest/gtest.h>

#include <cmath>

#include "tests/op_test.h"
#include "train/schedule.h"

using namespace modrwkv;
using modrwkv::testing::expect_error;

namespace {

Schedule recipe() {
  return {.kind = ScheduleKind::cosine, .peak = 2e-3, .steps = 700, .warmup = 50, .final_fraction = 0.05};
}

Schedule stable(int64_t steps, DecayShape shape = DecayShape::one_minus_sqrt) {
  return {.kind = ScheduleKind::wsd,
          .peak = 4e-4,
          .steps = steps,
          .warmup = 10,
          .final_fraction = 0.1,
          .decay_fraction = 0.2,
          .decay_shape = shape};
}

}  // namespace

TEST(LearningRate, WarmUpRisesLinearlyToThePeak) {
  for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::wsd}) {
    Schedule s = recipe();
    s.kind = kind;
    for (int64_t step = 0; step < 50; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(s, step), 2e-3 * double(step + 1) / 50);
    EXPECT_EQ(learning_rate(s, 49), 2e-3);
  }
}

TEST(LearningRate, ConstantStaysAtThePeak) {
  Schedule s = recipe();
  s.kind = ScheduleKind::constant;
  for (const int64_t step : {50, 51, 699, 10000}) EXPECT_EQ(learning_rate(s, step), 2e-3);
}

TEST(LearningRate, CosineEndsAtItsFractionAtTheLastStep) {
  const Schedule s = recipe();
  EXPECT_DOUBLE_EQ(learning_rate(s, 699), 0.05 * 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 700), 0.05 * 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1 << 20), 0.05 * 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 50 + 324), 2e-3 * (0.05 + 0.95 / 2));          // x = 1/2
  EXPECT_NEAR(learning_rate(s, 50 + 649 / 3), 2e-3 * (0.05 + 0.95 * 0.75), 1e-5);  // x = 1/3 (217 / 650)
  for (int64_t step = 50; step < 699; ++step) {
    const double x = double(step - 49) / 650;
    EXPECT_NEAR(learning_rate(s, step), 2e-3 * (0.05 + 0.95 * std::pow(std::cos(M_PI * x / 2), 2)), 1e-17);
    EXPECT_GT(learning_rate(s, step), learning_rate(s, step + 1));
  }
}

TEST(LearningRate, StableUntilTheDecayOfTheGivenShape) {
  const Schedule root = stable(1000), line = stable(1000, DecayShape::linear);
  EXPECT_EQ(decay_start(root), 800);
  for (const int64_t step : {10, 500, 799}) EXPECT_EQ(learning_rate(root, step), 4e-4);
  EXPECT_DOUBLE_EQ(learning_rate(root, 849), 4e-4 * (0.1 + 0.9 * 0.5));  // x = 1/4
  EXPECT_DOUBLE_EQ(learning_rate(line, 849), 4e-4 * (0.1 + 0.9 * 0.75));
  EXPECT_DOUBLE_EQ(learning_rate(line, 899), 4e-4 * (0.1 + 0.9 * 0.5));
  for (const Schedule& s : {root, line}) {
    EXPECT_LT(learning_rate(s, 800), 4e-4);
    EXPECT_DOUBLE_EQ(learning_rate(s, 999), 4e-5);
    EXPECT_DOUBLE_EQ(learning_rate(s, 5000), 4e-5);
  }
}

TEST(LearningRate, ALongerRunGoesOnFromBeforeTheDecay) {
  const Schedule shorter = stable(1000), longer = stable(3000);
  for (int64_t step = 0; step < decay_start(shorter); ++step) {
    EXPECT_EQ(learning_rate(shorter, step), learning_rate(longer, step));
  }
  EXPECT_EQ(learning_rate(longer, 2399), 4e-4);
  EXPECT_LT(learning_rate(longer, 2400), 4e-4);
}

TEST(LearningRate, OddSizesAreLegal) {
  Schedule s = recipe();
  s.steps = 20;  // ends within the warm-up
  EXPECT_DOUBLE_EQ(learning_rate(s, 19), 2e-3 * 20 / 50);
  EXPECT_EQ(learning_rate(s, 49), 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 50), 1e-4);  // nothing left to fall through
  s.warmup = 0;
  s.steps = 1;
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1e-4);
  Schedule w = stable(40);
  w.decay_fraction = 0;
  EXPECT_EQ(learning_rate(w, 39), 4e-4);
  w.decay_fraction = 1;  // the decay begins where the warm-up ends
  EXPECT_EQ(decay_start(w), 10);
  EXPECT_DOUBLE_EQ(learning_rate(w, 39), 4e-5);
}

TEST(LearningRate, RefusesWhatMakesNoSense) {
  Schedule s = recipe();
  expect_error([&] { learning_rate(s, -1); }, "schedule: step -1");
  s.decay_fraction = 1.5;
  expect_error([&] { learning_rate(s, 1); }, "schedule: decay fraction 1.5, expected 0 to 1");
  expect_error([] { parse_schedule("cosin"); }, "schedule cosin: expected constant, cosine or wsd");
  EXPECT_EQ(parse_schedule("wsd"), ScheduleKind::wsd);
}
