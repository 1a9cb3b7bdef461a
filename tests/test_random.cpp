#include <gtest/gtest.h>

#include "core/random.h"

using namespace modrwkv;

// Known answers of the Random123 distribution (kat_vectors: philox4x32, 10 rounds).
TEST(Philox, EqualsTheKnownAnswers) {
  const auto expect = [](Random4 r, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    EXPECT_EQ(r.word[0], a);
    EXPECT_EQ(r.word[1], b);
    EXPECT_EQ(r.word[2], c);
    EXPECT_EQ(r.word[3], d);
  };
  expect(philox(0, 0, 0, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  expect(philox(~uint64_t(0), ~0u, ~0u, ~0u, ~0u), 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd);
  expect(philox(0x299f31d0a4093822, 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344), 0xd16cfe09, 0x94fdcceb,
         0x5001e420, 0x24126ea1);
}

TEST(RandomStream, HasTheMomentsOfItsDistributions) {
  RandomStream random(7, Purpose::test);
  const int n = 200000;
  double sum = 0, square = 0, normal_sum = 0, normal_square = 0, normal_fourth = 0;
  for (int i = 0; i < n; ++i) {
    const double u = random.uniform(), z = random.normal();
    ASSERT_GT(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    square += u * u;
    normal_sum += z;
    normal_square += z * z;
    normal_fourth += z * z * z * z;
  }
  EXPECT_NEAR(sum / n, 0.5, 0.003);
  EXPECT_NEAR(square / n, 1.0 / 3, 0.003);
  EXPECT_NEAR(normal_sum / n, 0.0, 0.01);
  EXPECT_NEAR(normal_square / n, 1.0, 0.015);
  EXPECT_NEAR(normal_fourth / n, 3.0, 0.1);
}

TEST(RandomStream, BelowIsUniformAndInRange) {
  RandomStream random(8, Purpose::test);
  int count[7] = {};
  for (int i = 0; i < 70000; ++i) ++count[random.below(7)];
  for (const int c : count) EXPECT_NEAR(c, 10000, 400);
}

TEST(RandomStream, DependsOnEveryPartOfItsCounter) {
  const double x = RandomStream(1, Purpose::init, 2, 3).uniform();
  EXPECT_EQ(x, RandomStream(1, Purpose::init, 2, 3).uniform());
  EXPECT_NE(x, RandomStream(2, Purpose::init, 2, 3).uniform());
  EXPECT_NE(x, RandomStream(1, Purpose::test, 2, 3).uniform());
  EXPECT_NE(x, RandomStream(1, Purpose::init, 3, 3).uniform());
  EXPECT_NE(x, RandomStream(1, Purpose::init, 2, 4).uniform());
}
