// bfloat16 as one 16-bit word: the upper half of an IEEE float. Conversions round to nearest even; NaN stays
// NaN.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define MODRWKV_HD __host__ __device__
#else
#define MODRWKV_HD
#endif

namespace modrwkv {

struct bf16 {
  uint16_t bits;
};

MODRWKV_HD inline float to_float(float x) { return x; }
MODRWKV_HD inline double to_float(double x) { return x; }

MODRWKV_HD inline float to_float(bf16 x) {
  const uint32_t word = uint32_t(x.bits) << 16;
  float y;
  memcpy(&y, &word, sizeof y);
  return y;
}

MODRWKV_HD inline bf16 to_bf16(float x) {
#ifdef __CUDA_ARCH__
  bf16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
#else
  uint32_t word;
  memcpy(&word, &x, sizeof word);
  if ((word & 0x7fffffffu) > 0x7f800000u) return bf16{uint16_t((word >> 16) | 0x40u)};  // quiet NaN
  return bf16{uint16_t((word + 0x7fffu + ((word >> 16) & 1u)) >> 16)};
#endif
}

// from_float<T>(x): x in storage type T.
template <class T>
MODRWKV_HD inline T from_float(float x) {
  if constexpr (sizeof(T) == 2) {
    return to_bf16(x);
  } else {
    return T(x);
  }
}

}  // namespace modrwkv
