// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// 2011). A number is a pure function of (seed, purpose, step, sample, position), so that it is the same on CPU
// and CUDA, at any rank count and after any restart.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>

#include "core/bf16.h"

namespace modrwkv {

// What a number is for; never reuse a value for another purpose.
enum class Purpose : uint32_t { init = 1, window = 2, augment = 3, test = 4, dropout = 5, shuffle = 6 };

struct Random4 {
  uint32_t word[4];
};

// One block of four words for a 128-bit counter and a 64-bit key.
MODRWKV_HD inline Random4 philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Random4{{c0, c1, c2, c3}};
}

// Uniform in (0, 1) with 53 bits, never 0 or 1.
MODRWKV_HD inline double to_unit(uint32_t high, uint32_t low) {
  return (double((uint64_t(high) << 21) ^ (low >> 11)) + 0.5) * 0x1p-53;
}

// A stream of numbers for one (seed, purpose, step, sample); `position` counts them.
class RandomStream {
 public:
  RandomStream(uint64_t seed, Purpose purpose, uint32_t step = 0, uint32_t sample = 0)
      : seed_(seed), purpose_(uint32_t(purpose)), step_(step), sample_(sample) {}

  double uniform() {  // in (0, 1)
    if (next_ == 2) {
      block_ = philox(seed_, position_++, sample_, step_, purpose_);
      next_ = 0;
    }
    const int i = 2 * next_++;
    return to_unit(block_.word[i], block_.word[i + 1]);
  }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  uint64_t below(uint64_t n) {  // in [0, n), n > 0
    const uint64_t k = uint64_t(uniform() * double(n));
    return k < n ? k : n - 1;
  }
  double normal() {  // Box-Muller in f64
    if (have_spare_) {
      have_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2.0 * std::log(uniform())),
                 angle = 2.0 * 3.14159265358979323846 * uniform();
    spare_ = radius * std::sin(angle);
    have_spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  uint64_t seed_;
  uint32_t purpose_, step_, sample_, position_ = 0;
  Random4 block_{};
  int next_ = 2;
  double spare_ = 0;
  bool have_spare_ = false;
};

}  // namespace modrwkv
