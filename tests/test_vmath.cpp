#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "core/vmath.h"

using namespace modrwkv;

namespace {

// Largest relative error against double over floats of every magnitude up to `limit`.
double worst(float limit, const std::function<double(float)>& tested,
             const std::function<double(double)>& exact) {
  double w = 0;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += 40009) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      float x;
      const uint32_t word = bits | sign;
      memcpy(&x, &word, 4);
      if (!(std::fabs(x) <= limit)) continue;
      const double e = exact(double(x));
      if (std::fabs(e) < 1e-37) continue;  // denormal results keep fewer digits
      w = std::max(w, std::fabs(tested(x) - e) / std::fabs(e));
    }
  }
  return w;
}

const float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST(VMath, IsExactToAFewRoundings) {
  EXPECT_LT(worst(
                87.0f, [](float x) { return vmath::exp(x); }, [](double x) { return std::exp(x); }),
            1e-7);
  EXPECT_LT(
      worst(
          85.0f, [](float x) { return vmath::sigmoid(x); }, [](double x) { return 1 / (1 + std::exp(-x)); }),
      2e-7);
  EXPECT_LT(worst(
                1e30f, [](float x) { return vmath::tanh(x); }, [](double x) { return std::tanh(x); }),
            2e-7);
}

TEST(VMath, KeepsNanAndInfinity) {
  EXPECT_TRUE(std::isnan(vmath::exp(kNan)));
  EXPECT_TRUE(std::isnan(vmath::tanh(kNan)));
  EXPECT_TRUE(std::isnan(vmath::sigmoid(kNan)));
  EXPECT_EQ(vmath::exp(-kInf), 0.0f);
  EXPECT_EQ(vmath::exp(kInf), kInf);
  EXPECT_EQ(vmath::exp(89.0f), kInf);
  EXPECT_EQ(vmath::exp(-100.0f), 0.0f);
  EXPECT_EQ(vmath::tanh(kInf), 1.0f);
  EXPECT_EQ(vmath::tanh(-kInf), -1.0f);
  EXPECT_EQ(vmath::sigmoid(-kInf), 0.0f);
}
