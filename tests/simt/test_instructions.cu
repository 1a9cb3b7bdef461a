// Tensor core instructions: a GEMM of cp.async, ldmatrix and mma against double, and what is left of it when a
// barrier or a wait is missing.
#include <cmath>

#include "simt_test.h"

namespace simt_test {
namespace {

using simt::bf16;

// What a GEMM lacks.
enum Mutant { kNone, kNoCopyWait, kNoBarrierBeforeRead, kNoBarrierBeforeRefill };

constexpr int kTile = 64, kDepth = 32, kPad = 8;
template <bool TransB>
struct Stage {
  bf16 a[kTile][kDepth + kPad];
  bf16 b[TransB ? kTile : kDepth][(TransB ? kDepth : kTile) + kPad];
};

// C[m,n] = A[m,k] B; B is stored [k,n], or [n,k] with TransB. m and n are multiples of 64, k of 8. Four warps
// own a 64 x 64 tile, 32 x 32 each; two stages of k alternate.
template <bool TransB, Mutant M>
__global__ __launch_bounds__(128) void gemm(int n, int k, const bf16* a, const bf16* b, float* c) {
  Stage<TransB>* stages = simt::dynamic_shared<Stage<TransB>>();
  const int warp = int(threadIdx.x) / 32, lane = simt::lane();
  const int row0 = int(blockIdx.y) * kTile, column0 = int(blockIdx.x) * kTile;

  const auto fetch = [&](int s, int k0) {
    for (int i = int(threadIdx.x); i < kTile * kDepth / 8; i += int(blockDim.x)) {
      const int r = i / (kDepth / 8), q = i % (kDepth / 8) * 8;
      const bool valid = k0 + q < k;
      simt::cp_async16(&stages[s].a[r][q], valid ? a + (row0 + r) * k + k0 + q : a, valid);
      if constexpr (TransB) {
        simt::cp_async16(&stages[s].b[r][q], valid ? b + (column0 + r) * k + k0 + q : b, valid);
      } else {
        const int kr = i / (kTile / 8), kq = i % (kTile / 8) * 8;
        const bool in = k0 + kr < k;
        simt::cp_async16(&stages[s].b[kr][kq], in ? b + (k0 + kr) * n + column0 + kq : b, in);
      }
    }
    simt::cp_async_commit();
  };

  float sum[2][4][4] = {};
  fetch(0, 0);
  for (int k0 = 0, s = 0; k0 < k; k0 += kDepth, s ^= 1) {
    const bool more = k0 + kDepth < k;
    if (more) fetch(s ^ 1, k0 + kDepth);
    if (M != kNoCopyWait) {
      if (more) {
        simt::cp_async_wait<1>();
      } else {
        simt::cp_async_wait<0>();
      }
    }
    if (M != kNoBarrierBeforeRead) __syncthreads();
    for (int kk = 0; kk < kDepth; kk += 16) {
      unsigned fa[2][4], fb[2][4];
      for (int i = 0; i < 2; ++i) {
        simt::ldmatrix_x4<false>(fa[i], &stages[s].a[warp / 2 * 32 + i * 16 + lane % 16][kk + lane / 16 * 8]);
      }
      for (int j = 0; j < 2; ++j) {
        const int c0 = warp % 2 * 32 + j * 16;
        if constexpr (TransB) {
          simt::ldmatrix_x4<false>(fb[j], &stages[s].b[c0 + lane % 8 + lane / 16 * 8][kk + lane / 8 % 2 * 8]);
        } else {
          simt::ldmatrix_x4<true>(fb[j], &stages[s].b[kk + lane % 16][c0 + lane / 16 * 8]);
        }
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) {
          const unsigned pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          simt::mma(sum[i][j], fa[i], pair);
        }
      }
    }
    if (M != kNoBarrierBeforeRefill) __syncthreads();
  }
  if (M == kNoCopyWait) simt::cp_async_wait<0>();
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int h = 0; h < 2; ++h) {
        const int r = row0 + warp / 2 * 32 + i * 16 + lane / 4 + 8 * h,
                  q = column0 + warp % 2 * 32 + j * 8 + lane % 4 * 2;
        simt::store_as(c + r * n + q, make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]));
      }
    }
  }
}

std::vector<bf16> random_bf16(size_t n, uint64_t seed) {
  std::vector<bf16> x(n);
  for (auto& v : x) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    v = simt::to_bf16(float(int(seed >> 40) % 2001 - 1000) / 1000.0f);
  }
  return x;
}

// The largest error as a share of sum |a| |b|, infinity where the result is NaN.
template <bool TransB, Mutant M = kNone>
double error_of_gemm(int m, int n, int k) {
  const auto a = random_bf16(size_t(m * k), 1), b = random_bf16(size_t(k * n), 2);
  const Array<bf16> da(a), db(b);
  const Array<float> dc(size_t(m * n));
  simt::launch<gemm<TransB, M>>({{n / kTile, m / kTile}, 128, 2 * sizeof(Stage<TransB>), stream()}, n, k, da,
                                db, dc);
  const auto c = dc.values();
  double worst = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0, scale = 0;
      for (int p = 0; p < k; ++p) {
        const double x = double(simt::to_float(a[size_t(i * k + p)])) *
                         double(simt::to_float(b[size_t(TransB ? j * k + p : p * n + j)]));
        sum += x;
        scale += std::fabs(x);
      }
      const double error = std::fabs(double(c[size_t(i * n + j)]) - sum) / scale;
      worst = error >= worst ? error : (error == error ? worst : INFINITY);
    }
  }
  return worst;
}

// fp32 sums of at most 128 exact products: well below 128 half-ulps of sum |a| |b|.
constexpr double kTolerance = 1.5e-6;

TEST_F(Simt, GemmOfTensorCoreInstructions) {
  for (const auto copies : {simt::Copies::late, simt::Copies::early}) {
    simt::set_copies(copies);
    for (const auto order : kOrders) {
      simt::set_schedule(order, 4);
      SCOPED_TRACE(simt::name_of(order));
      EXPECT_LT(error_of_gemm<false>(128, 64, 128), kTolerance);
      EXPECT_LT(error_of_gemm<true>(64, 128, 128), kTolerance);
      EXPECT_LT(error_of_gemm<false>(64, 64, 72), kTolerance) << "k is zero-filled to a multiple of 32";
      EXPECT_LT(error_of_gemm<true>(64, 64, 40), kTolerance);
    }
  }
}

// A broken GEMM must show under at least one of ascending, descending and greedy.
template <Mutant M>
bool caught() {
  for (const auto order : {simt::Schedule::ascending, simt::Schedule::descending, simt::Schedule::greedy}) {
    simt::set_schedule(order, 1);
    try {
      if (!(error_of_gemm<false, M>(64, 64, 128) < kTolerance)) return true;
    } catch (const simt::Fault&) {
      return true;
    }
  }
  return false;
}

TEST_F(Simt, BrokenGemmsAreCaught) {
  EXPECT_TRUE(caught<kNoCopyWait>());
  EXPECT_TRUE(caught<kNoBarrierBeforeRead>());
  EXPECT_TRUE(caught<kNoBarrierBeforeRefill>());
  EXPECT_FALSE(caught<kNone>());
}

// ldmatrix by its definition, element by element.
template <bool Trans>
__global__ void matrices(unsigned* out) {
  auto& s = simt::shared<uint16_t[4][8][8], Trans>();
  for (int i = simt::lane(); i < 256; i += 32) (&s[0][0][0])[i] = uint16_t(i);
  __syncwarp();
  unsigned r[4];
  simt::ldmatrix_x4<Trans>(r, s[simt::lane() / 8][simt::lane() % 8]);
  for (int m = 0; m < 4; ++m) out[simt::lane() * 4 + m] = r[m];
}

TEST_F(Simt, LdmatrixElements) {
  const Array<unsigned> plain(128), transposed(128);
  simt::launch<matrices<false>>({1, 32, 0, stream()}, plain);
  simt::launch<matrices<true>>({1, 32, 0, stream()}, transposed);
  const auto p = plain.values(), t = transposed.values();
  for (int l = 0; l < 32; ++l) {
    for (int m = 0; m < 4; ++m) {
      const int r = l / 4, c = 2 * (l % 4);
      EXPECT_EQ(p[size_t(l * 4 + m)], unsigned(64 * m + 8 * r + c) | unsigned(64 * m + 8 * r + c + 1) << 16);
      EXPECT_EQ(t[size_t(l * 4 + m)], unsigned(64 * m + 8 * c + r) | unsigned(64 * m + 8 * (c + 1) + r) << 16);
    }
  }
}

// Copies land at the wait that covers their group, not before: what was there becomes NaN at issue.
__global__ void two_groups(const float* from, float* out) {
  auto& s = simt::shared<float[8]>();
  simt::cp_async16(s, from);
  simt::cp_async_commit();
  simt::cp_async16(s + 4, from, false);
  simt::cp_async_commit();
  out[0] = s[0];
  simt::cp_async_wait<1>();
  out[1] = s[0];
  out[2] = s[4];
  simt::cp_async_wait<0>();
  out[3] = s[4];
}

TEST_F(Simt, CopiesArriveAtTheirWait) {
  const Array<float> from(std::vector<float>{7, 7, 7, 7}), out(4);
  simt::launch<two_groups>({1, 1, 0, stream()}, from, out);
  const auto late = out.values();
  EXPECT_TRUE(std::isnan(late[0]));
  EXPECT_EQ(late[1], 7);
  EXPECT_TRUE(std::isnan(late[2]));
  EXPECT_EQ(late[3], 0);
  simt::set_copies(simt::Copies::early);
  simt::launch<two_groups>({1, 1, 0, stream()}, from, out);
  EXPECT_EQ(out.values(), (std::vector<float>{7, 7, 0, 0}));
}

__global__ void vectors(const bf16* from, bf16* to, unsigned* packed) {
  auto v = simt::load_as<simt::vec<bf16, 8>>(from + 8 * threadIdx.x);
  for (int i = 0; i < 8; ++i) v[i] = simt::to_bf16(simt::to_float(v[i]) * 2);
  simt::store_as(to + 8 * threadIdx.x, v);
  packed[threadIdx.x] = simt::pack_bf16(1.0f, -2.0f);
}

TEST_F(Simt, VectorsOfEight) {
  const auto x = random_bf16(16, 3);
  const Array<bf16> from(x), to(16);
  const Array<unsigned> packed(2);
  simt::launch<vectors>({1, 2, 0, stream()}, from, to, packed);
  const auto y = to.values();
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(simt::to_float(y[i]), 2 * simt::to_float(x[i]));
  EXPECT_EQ(packed.values()[1], 0xc0003f80u);
}

}  // namespace
}  // namespace simt_test
