// Keys of the time mix on CUDA. A "head" is the n channels of one head of one token.
#include "ops/time_mix_keys.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr float kSmallestNorm = 1e-12f;
// Heads of a block in the forward: it needs no shared memory, so small blocks fill an SM just as well.
constexpr int kWarps = 4;
// Warps of a block in the backward, fewer for heads whose sums would not fit. Four such blocks an SM leave a
// thread 64 registers.
constexpr int kBackwardWarps = 8;
constexpr int64_t kSharedBytes = 48 * 1024;

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float inverse_of(float norm) { return 1.0f / (norm < kSmallestNorm ? kSmallestNorm : norm); }

// One warp owns a head, a lane W neighbouring channels at a time (two where rows allow: a head of 64 is one
// access of the warp); the second reading comes from L1. Read 2 n elements, write 3 n and 4 bytes; 14 FLOPs an
// element.
template <class T, int W>
__global__ void time_mix_keys_forward_kernel(const T* k0, const T* a_pre, const T* k_k, const T* k_a, T* k,
                                             T* a_vec, T* b_vec, float* norm, int64_t rows, int n, int heads) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const int64_t at = row * n, first = row % heads * n;
  using P = Pack<T, W>;
  float square = 0;
  for (int i = lane * W; i < n; i += 32 * W) {
    const P x = simt::load_as<P>(k0 + at + i), scale = simt::load_as<P>(k_k + first + i);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float z = to_float(x.v[j]) * to_float(scale.v[j]);
      square += z * z;
    }
  }
  const float length = sqrtf(simt::warp_sum(square)), inverse = inverse_of(length);
  for (int i = lane * W; i < n; i += 32 * W) {
    const P x = simt::load_as<P>(k0 + at + i), scale = simt::load_as<P>(k_k + first + i);
    const P pre = simt::load_as<P>(a_pre + at + i), mix = simt::load_as<P>(k_a + first + i);
    P key, minus, plus;
#pragma unroll
    for (int j = 0; j < W; ++j) {
      const float xj = to_float(x.v[j]), a = sigmoid(to_float(pre.v[j])),
                  kk = xj * to_float(scale.v[j]) * inverse;
      key.v[j] = from_float<T>(xj * (1 + (a - 1) * to_float(mix.v[j])));
      minus.v[j] = from_float<T>(-kk);
      plus.v[j] = from_float<T>(kk * a);
    }
    simt::store_as<P>(k + at + i, key);
    simt::store_as<P>(a_vec + at + i, minus);
    simt::store_as<P>(b_vec + at + i, plus);
  }
  if (lane == 0) norm[row] = length;
}

// A block owns one head of kRowsPerPartial tokens, a warp every so many of these tokens. Formulas in the .cpp.
// Each warp keeps its own sums for k_k and k_a in shared memory, each word read and written by one lane; at the
// end the block adds them in order of the warps. Read 5 n, write 2 n elements a token (the second reading from
// L1); 30 FLOPs an element. dk0, da_pre may be null; part_k_k and part_k_a [parts, channels] are both given or
// both null: then no sums.
template <class T, int W>
__global__ void __launch_bounds__(32 * kBackwardWarps, 4)
    time_mix_keys_backward_kernel(const T* dk, const T* da_vec, const T* db_vec, const T* k0, const T* a_pre,
                                  const T* k_k, const T* k_a, const float* norm, T* dk0, T* da_pre,
                                  float* part_k_k, float* part_k_a, int64_t tokens, int n, int heads) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, packs = n / W;
  const int64_t head = blockIdx.x % heads, part = blockIdx.x / heads, first = head * n,
                channels = int64_t(heads) * n;
  const bool sums = part_k_k != nullptr;
  using P = Pack<T, W>;
  float* const all = sums ? simt::dynamic_shared<float>() : nullptr;  // [warps][k_k or k_a][W][packs]
  float* const sum = sums ? all + warp * 2 * n : nullptr;
  if (sums) {
    for (int p = lane; p < packs; p += 32) {
#pragma unroll
      for (int j = 0; j < 2 * W; ++j) sum[j * packs + p] = 0;
    }
  }
  const int64_t begin = part * kRowsPerPartial, end = min(begin + kRowsPerPartial, tokens);
  for (int64_t t = begin + warp; t < end; t += warps) {
    const int64_t at = t * channels + first;
    const float length = norm[t * heads + head], inverse = inverse_of(length);
    float dot = 0;
    for (int p = lane; p < packs; p += 32) {
      const int i = p * W;
      const P x = simt::load_as<P>(k0 + at + i), scale = simt::load_as<P>(k_k + first + i),
              pre = simt::load_as<P>(a_pre + at + i);
      const P da = simt::load_as<P>(da_vec + at + i), db = simt::load_as<P>(db_vec + at + i);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const float dkk = to_float(db.v[j]) * sigmoid(to_float(pre.v[j])) - to_float(da.v[j]);
        dot += to_float(x.v[j]) * to_float(scale.v[j]) * inverse * dkk;
      }
    }
    dot = simt::warp_sum(dot);
    if (length < kSmallestNorm) dot = 0;
    for (int p = lane; p < packs; p += 32) {
      const int i = p * W;
      const P x = simt::load_as<P>(k0 + at + i), scale = simt::load_as<P>(k_k + first + i),
              pre = simt::load_as<P>(a_pre + at + i);
      const P da = simt::load_as<P>(da_vec + at + i), db = simt::load_as<P>(db_vec + at + i);
      const P g = simt::load_as<P>(dk + at + i), mix = simt::load_as<P>(k_a + first + i);
      P to_k0, to_pre;
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const float xj = to_float(x.v[j]), a = sigmoid(to_float(pre.v[j])), gj = to_float(g.v[j]),
                    ka = to_float(mix.v[j]);
        const float sj = to_float(scale.v[j]), kk = xj * sj * inverse, dbj = to_float(db.v[j]);
        const float dz = (dbj * a - to_float(da.v[j]) - kk * dot) * inverse;
        to_k0.v[j] = from_float<T>(gj * (1 + (a - 1) * ka) + dz * sj);
        to_pre.v[j] = from_float<T>((dbj * kk + gj * xj * ka) * a * (1 - a));
        if (sums) {
          sum[j * packs + p] += dz * xj;
          sum[n + j * packs + p] += gj * xj * (a - 1);
        }
      }
      if (dk0 != nullptr) simt::store_as<P>(dk0 + at + i, to_k0);
      if (da_pre != nullptr) simt::store_as<P>(da_pre + at + i, to_pre);
    }
  }
  if (!sums) return;  // the whole grid
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * n; i += blockDim.x) {
    float total = 0;
    for (int w = 0; w < warps; ++w) total += all[w * 2 * n + i];
    const int word = i < n ? i : i - n;
    (i < n ? part_k_k : part_k_a)[part * channels + first + word % packs * W + word / packs] = total;
  }
}

// Two channels a lane where all rows and heads start at a multiple of two elements.
template <class T>
bool in_pairs(int64_t n, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (reinterpret_cast<uintptr_t>(p) % (2 * sizeof(T)) != 0) return false;
  }
  return n % 2 == 0;
}

}  // namespace

void time_mix_keys_forward(const Tensor& k0, const Tensor& a_pre, const Tensor& k_k, const Tensor& k_a,
                           int64_t heads, Tensor& k, Tensor& a_vec, Tensor& b_vec, Tensor& norm) {
  const int64_t rows = norm.numel(), n = k0.size(-1) / heads;
  if (rows == 0) return;
  for_cuda_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    const simt::dims dims(unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream());
    if (in_pairs<T>(n, {k0.raw(), a_pre.raw(), k_k.raw(), k_a.raw(), k.raw(), a_vec.raw(), b_vec.raw()})) {
      simt::launch<time_mix_keys_forward_kernel<T, 2>>(
          dims, k0.data<T>(), a_pre.data<T>(), k_k.data<T>(), k_a.data<T>(), k.data<T>(), a_vec.data<T>(),
          b_vec.data<T>(), norm.data<float>(), rows, int(n), int(heads));
    } else {
      simt::launch<time_mix_keys_forward_kernel<T, 1>>(
          dims, k0.data<T>(), a_pre.data<T>(), k_k.data<T>(), k_a.data<T>(), k.data<T>(), a_vec.data<T>(),
          b_vec.data<T>(), norm.data<float>(), rows, int(n), int(heads));
    }
  });
}

void time_mix_keys_backward(const Tensor& dk, const Tensor& da_vec, const Tensor& db_vec, const Tensor& k0,
                            const Tensor& a_pre, const Tensor& k_k, const Tensor& k_a, int64_t heads,
                            const Tensor& norm, Tensor& dk0, Tensor& da_pre, Tensor& dk_k, Tensor& dk_a) {
  const int64_t channels = k0.size(-1), n = channels / heads, tokens = norm.numel() / heads;
  const bool sums = dk_k.defined() || dk_a.defined();
  if (channels == 0 || (tokens == 0 && !sums)) return;
  Tensor part_k_k, part_k_a;
  if (sums) {
    part_k_k = partial_sums(tokens, channels, k0.device());
    part_k_a = partial_sums(tokens, channels, k0.device());
  }
  const int64_t parts = std::max<int64_t>(1, ceil_div(tokens, kRowsPerPartial)),
                warp_bytes = sums ? 2 * n * 4 : 0;
  int warps = kBackwardWarps;
  while (warps > 1 && warps * warp_bytes > kSharedBytes) warps /= 2;
  for_cuda_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    T* pk0 = dk0.defined() ? dk0.data<T>() : nullptr;
    T* ppre = da_pre.defined() ? da_pre.data<T>() : nullptr;
    float* pkk = sums ? part_k_k.data<float>() : nullptr;
    float* pka = sums ? part_k_a.data<float>() : nullptr;
    const simt::dims dims(unsigned(parts * heads), 32 * warps, size_t(warps * warp_bytes), current_stream());
    if (in_pairs<T>(n, {dk.raw(), da_vec.raw(), db_vec.raw(), k0.raw(), a_pre.raw(), k_k.raw(), k_a.raw(), pk0,
                        ppre})) {
      simt::launch<time_mix_keys_backward_kernel<T, 2>>(
          dims, dk.data<T>(), da_vec.data<T>(), db_vec.data<T>(), k0.data<T>(), a_pre.data<T>(), k_k.data<T>(),
          k_a.data<T>(), norm.data<float>(), pk0, ppre, pkk, pka, tokens, int(n), int(heads));
    } else {
      simt::launch<time_mix_keys_backward_kernel<T, 1>>(
          dims, dk.data<T>(), da_vec.data<T>(), db_vec.data<T>(), k0.data<T>(), a_pre.data<T>(), k_k.data<T>(),
          k_a.data<T>(), norm.data<float>(), pk0, ppre, pkk, pka, tokens, int(n), int(heads));
    }
  });
  if (dk_k.defined()) column_sum(part_k_k, dk_k);
  if (dk_a.defined()) column_sum(part_k_a, dk_a);
}

}  // namespace modrwkv::cuda
