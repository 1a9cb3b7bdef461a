#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

using namespace modrwkv;

TEST(Schedule, WarmsUpLinearly) {
  for (const ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::wsd}) {
    const Schedule s{kind, 2.0, 100, 10, 0.05, 0.2};
    for (int64_t i = 0; i < 10; ++i) EXPECT_DOUBLE_EQ(learning_rate(s, i), 0.2 * double(i + 1));
  }
}

TEST(Schedule, CosineEndsAtItsFinalFraction) {
  const Schedule s{ScheduleKind::cosine, 2.0, 110, 10, 0.05, 0.2};
  EXPECT_DOUBLE_EQ(learning_rate(s, 109), 0.1);
  EXPECT_NEAR(learning_rate(s, 59), 1.05, 1e-12);  // half way: the mean of peak and end
  EXPECT_NEAR(learning_rate(s, 34), 2.0 * (0.05 + 0.95 * 0.5 * (1 + std::cos(M_PI / 4))), 1e-12);
  for (int64_t i = 11; i < 110; ++i) EXPECT_LT(learning_rate(s, i), learning_rate(s, i - 1));
}

TEST(Schedule, WsdIsStableUntilItsDecay) {
  const Schedule s{ScheduleKind::wsd, 1.0, 100, 5, 0.0, 0.2};
  for (int64_t i = 5; i < 80; ++i) EXPECT_EQ(learning_rate(s, i), 1.0);
  EXPECT_NEAR(learning_rate(s, 84), 1 - std::sqrt(5.0 / 20), 1e-12);
  EXPECT_NEAR(learning_rate(s, 99), 0.0, 1e-12);
  Schedule longer = s;
  longer.steps = 200;  // a run that goes on had the same rates before its decay
  for (int64_t i = 0; i < 80; ++i) EXPECT_EQ(learning_rate(longer, i), learning_rate(s, i));
}
