// Keys of the time mix on CUDA. A "head" is the n channels of one head of one token.
#include "ops/time_mix_keys.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr float kSmallestNorm = 1e-12f;
constexpr int kWarps = 4;             // heads of a block in the forward
constexpr int kTokensPerPartial = 16; // tokens of a block in the backward: few enough to fill a GPU, many enough to keep sums short

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float inverse_of(float norm) { return 1.0f / (norm < kSmallestNorm ? kSmallestNorm : norm); }

// One warp owns a head and reads it twice, the second time from L1. Read 2 n elements, write 3 n and 4 bytes; 14 FLOPs an element.
template <class T>
__global__ void time_mix_keys_forward_kernel(const T* k0, const T* a_pre, const T* k_k, const T* k_a, T* k, T* a_vec, T* b_vec,
                                             float* norm, int64_t rows, int n, int heads) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32, at = row * n;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const int64_t first = row % heads * n;
  float square = 0;
  for (int i = lane; i < n; i += 32) {
    const float z = to_float(k0[at + i]) * to_float(k_k[first + i]);
    square += z * z;
  }
  const float length = sqrtf(simt::warp_sum(square)), inverse = inverse_of(length);
  for (int i = lane; i < n; i += 32) {
    const float x = to_float(k0[at + i]), a = sigmoid(to_float(a_pre[at + i])), kk = x * to_float(k_k[first + i]) * inverse;
    k[at + i] = from_float<T>(x * (1 + (a - 1) * to_float(k_a[first + i])));
    a_vec[at + i] = from_float<T>(-kk);
    b_vec[at + i] = from_float<T>(kk * a);
  }
  if (lane == 0) norm[row] = length;
}

// One warp owns one head of kTokensPerPartial tokens, and with it the sums of that head's channels, which lie in shared memory,
// each read and written by one lane only. Formulas in the .cpp. Read 5 n, write 2 n elements a token; 30 FLOPs an element.
template <class T>
__global__ void time_mix_keys_backward_kernel(const T* dk, const T* da_vec, const T* db_vec, const T* k0, const T* a_pre, const T* k_k,
                                              const T* k_a, const float* norm, T* dk0, T* da_pre, float* dk_k, float* dk_a,
                                              int64_t tokens, int n, int heads) {
  const int lane = threadIdx.x, head = blockIdx.x;
  const int64_t first = int64_t(head) * n, channels = int64_t(heads) * n;
  float* sum_kk = simt::dynamic_shared<float>();
  float* sum_ka = sum_kk + n;
  for (int i = lane; i < n; i += 32) sum_kk[i] = sum_ka[i] = 0;
  const int64_t begin = int64_t(blockIdx.y) * kTokensPerPartial, end = min(begin + kTokensPerPartial, tokens);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t at = t * channels + first;
    const float length = norm[t * heads + head], inverse = inverse_of(length);
    float dot = 0;
    for (int i = lane; i < n; i += 32) {
      const float a = sigmoid(to_float(a_pre[at + i]));
      const float dkk = to_float(db_vec[at + i]) * a - to_float(da_vec[at + i]);
      dot += to_float(k0[at + i]) * to_float(k_k[first + i]) * inverse * dkk;
    }
    dot = simt::warp_sum(dot);
    if (length < kSmallestNorm) dot = 0;
    for (int i = lane; i < n; i += 32) {
      const float x = to_float(k0[at + i]), a = sigmoid(to_float(a_pre[at + i])), g = to_float(dk[at + i]);
      const float ka = to_float(k_a[first + i]), kk_scale = to_float(k_k[first + i]), kk = x * kk_scale * inverse;
      const float db = to_float(db_vec[at + i]), dz = (db * a - to_float(da_vec[at + i]) - kk * dot) * inverse;
      if (dk0) dk0[at + i] = from_float<T>(g * (1 + (a - 1) * ka) + dz * kk_scale);
      if (da_pre) da_pre[at + i] = from_float<T>((db * kk + g * x * ka) * a * (1 - a));
      sum_kk[i] += dz * x;
      sum_ka[i] += g * x * (a - 1);
    }
  }
  for (int i = lane; i < n; i += 32) {
    dk_k[blockIdx.y * channels + first + i] = sum_kk[i];
    dk_a[blockIdx.y * channels + first + i] = sum_ka[i];
  }
}

}  // namespace

void time_mix_keys_forward(const Tensor& k0, const Tensor& a_pre, const Tensor& k_k, const Tensor& k_a, int64_t heads, Tensor& k,
                           Tensor& a_vec, Tensor& b_vec, Tensor& norm) {
  const int64_t rows = norm.numel();
  if (rows == 0) return;
  for_cuda_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<time_mix_keys_forward_kernel<T>>({unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()}, k0.data<T>(),
                                                  a_pre.data<T>(), k_k.data<T>(), k_a.data<T>(), k.data<T>(), a_vec.data<T>(),
                                                  b_vec.data<T>(), norm.data<float>(), rows, int(k0.size(-1) / heads), int(heads));
  });
}

void time_mix_keys_backward(const Tensor& dk, const Tensor& da_vec, const Tensor& db_vec, const Tensor& k0, const Tensor& a_pre,
                            const Tensor& k_k, const Tensor& k_a, int64_t heads, const Tensor& norm, Tensor& dk0, Tensor& da_pre,
                            Tensor& dk_k, Tensor& dk_a) {
  const int64_t channels = k0.size(-1), n = channels / heads, tokens = norm.numel() / heads;
  if (channels == 0) return;
  const int64_t parts = std::max<int64_t>(1, ceil_div(tokens, kTokensPerPartial));
  Tensor sum_kk, sum_ka;
  {
    const MemoryScope scope(MemoryTag::workspace);
    sum_kk = Tensor::empty({parts, channels}, DType::f32, k0.device());
    sum_ka = Tensor::empty_like(sum_kk);
  }
  for_cuda_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    const dim3 grid{unsigned(heads), unsigned(parts)};
    simt::launch<time_mix_keys_backward_kernel<T>>(
        {grid, 32, size_t(2 * n) * sizeof(float), current_stream()}, dk.data<T>(), da_vec.data<T>(), db_vec.data<T>(), k0.data<T>(),
        a_pre.data<T>(), k_k.data<T>(), k_a.data<T>(), norm.data<float>(), dk0.defined() ? dk0.data<T>() : nullptr,
        da_pre.defined() ? da_pre.data<T>() : nullptr, sum_kk.data<float>(), sum_ka.data<float>(), tokens, int(n), int(heads));
  });
  if (dk_k.defined()) column_sum(sum_kk, dk_k);
  if (dk_a.defined()) column_sum(sum_ka, dk_a);
}

}  // namespace modrwkv::cuda
