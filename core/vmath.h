// exp, sigmoid and tanh for the inner loops of CPU ops, written so that the compiler vectorises them. Relative
// error at most about 1e-7 (float) over the whole range; NaN and infinities keep their meaning. double uses the
// library's functions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace modrwkv::vmath {

// exp(x) = 2^k * exp(r), r = x - k ln 2 in two steps, |r| <= ln(2)/2; degree-7 Taylor polynomial. Every product
// and sum is an fma: the build allows re-association, which would merge the two reduction constants.
inline float exp(float x) {
  const float low = -87.33654f, high = 88.72283f;
  float c = x < low ? low : x;  // keeps NaN
  c = c > high ? high : c;
  const float k = std::floor(std::fma(c, 1.44269504f, 0.5f));
  float r = std::fma(k, -0.693359375f, c);
  r = std::fma(k, 2.12194440e-4f, r);
  float p = 1.0f / 5040;
  p = std::fma(p, r, 1.0f / 720);
  p = std::fma(p, r, 1.0f / 120);
  p = std::fma(p, r, 1.0f / 24);
  p = std::fma(p, r, 1.0f / 6);
  p = std::fma(p, r, 0.5f);
  p = std::fma(p, r, 1.0f);
  p = std::fma(p, r, 1.0f);
  const int32_t half = int32_t(k) >> 1;  // in two factors: 2^128 is not a float
  const int32_t first = (half + 127) << 23, second = (int32_t(k) - half + 127) << 23;
  float s1, s2;
  memcpy(&s1, &first, 4);
  memcpy(&s2, &second, 4);
  float y = p * s1 * s2;
  y = x < low ? 0.0f : y;
  y = x > high ? HUGE_VALF : y;
  return x != x ? x : y;
}

inline double exp(double x) { return std::exp(x); }

template <class T>
T sigmoid(T x) {
  return T(1) / (T(1) + exp(-x));
}

// tanh(x) = sign(x) (1 - e) / (1 + e), e = exp(-2|x|); near 0 the odd series, where 1 - e cancels.
inline float tanh(float x) {
  const float a = std::fabs(x), e = exp(-2.0f * a);
  const float far = (1.0f - e) / (1.0f + e);
  const float s = a * a;
  float p = -0.008863235f;
  p = std::fma(p, s, 0.021869488f);
  p = std::fma(p, s, -0.053968254f);
  p = std::fma(p, s, 0.13333334f);
  p = std::fma(p, s, -0.33333334f);
  const float near = std::fma(a * s, p, a);
  return std::copysign(a < 0.4f ? near : far, x);
}

inline double tanh(double x) { return std::tanh(x); }

}  // namespace modrwkv::vmath
