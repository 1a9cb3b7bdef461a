// Keys of the time mix: CPU code, checks and the tape.
#include "ops/time_mix_keys.h"

#include <cmath>

#include "core/error.h"
#include "core/vmath.h"
#include "ops/row_chunks.h"

namespace modrwkv {
namespace {

constexpr double kSmallestNorm = 1e-12;
constexpr int64_t kMostHeadChannels = 4096;  // on CUDA: the sums of a head must fit into shared memory

namespace cpu {

// One head of one token. NaN goes through the comparison.
template <class T>
void head_forward(int64_t n, const T* __restrict__ k0, const T* __restrict__ a_pre, const T* __restrict__ k_k,
                  const T* __restrict__ k_a, T* __restrict__ k, T* __restrict__ a_vec, T* __restrict__ b_vec,
                  T* __restrict__ norm) {
  T square = 0;
  for (int64_t i = 0; i < n; ++i) square += k0[i] * k_k[i] * (k0[i] * k_k[i]);
  const T length = std::sqrt(square);
  const T inverse = T(1) / (length < T(kSmallestNorm) ? T(kSmallestNorm) : length);
  for (int64_t i = 0; i < n; ++i) {
    const T a = vmath::sigmoid(a_pre[i]), kk = k0[i] * k_k[i] * inverse;
    k[i] = k0[i] * (T(1) + (a - T(1)) * k_a[i]);
    a_vec[i] = -kk;
    b_vec[i] = kk * a;
  }
  *norm = length;
}

// dkk = db_vec a - da_vec;  dz = (dkk - kk <kk, dkk>) / |z|;  dk0 = dk (1 + (a - 1) k_a) + dz k_k;
// da = db_vec kk + dk k0 k_a;  dk_k += dz k0;  dk_a += dk k0 (a - 1). `a` and `dkk` are scratch.
template <class T>
void head_backward(int64_t n, T norm, const T* __restrict__ dk, const T* __restrict__ da_vec,
                   const T* __restrict__ db_vec, const T* __restrict__ k0, const T* __restrict__ a_pre,
                   const T* __restrict__ k_k, const T* __restrict__ k_a, T* __restrict__ dk0,
                   T* __restrict__ da_pre, T* __restrict__ dk_k, T* __restrict__ dk_a, T* __restrict__ a,
                   T* __restrict__ dkk) {
  const bool floored = norm < T(kSmallestNorm);
  const T inverse = T(1) / (floored ? T(kSmallestNorm) : norm);
  T dot = 0;
  for (int64_t i = 0; i < n; ++i) {
    a[i] = vmath::sigmoid(a_pre[i]);
    dkk[i] = db_vec[i] * a[i] - da_vec[i];
    dot += k0[i] * k_k[i] * inverse * dkk[i];
  }
  if (floored) dot = 0;
  for (int64_t i = 0; i < n; ++i) {
    const T kk = k0[i] * k_k[i] * inverse, dz = (dkk[i] - kk * dot) * inverse;
    dk0[i] = dk[i] * (T(1) + (a[i] - T(1)) * k_a[i]) + dz * k_k[i];
    da_pre[i] = (db_vec[i] * kk + dk[i] * k0[i] * k_a[i]) * a[i] * (T(1) - a[i]);
    dk_k[i] += dz * k0[i];
    dk_a[i] += dk[i] * k0[i] * (a[i] - T(1));
  }
}

void time_mix_keys_forward(const Tensor& k0, const Tensor& a_pre, const Tensor& k_k, const Tensor& k_a,
                           int64_t heads, Tensor& k, Tensor& a_vec, Tensor& b_vec, Tensor& norm) {
  const int64_t n = k0.size(-1) / heads;
  for_cpu_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(norm.numel(), 1 + (1 << 13) / (n + 1), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t at = r * n, h = r % heads * n;
        head_forward(n, k0.data<T>() + at, a_pre.data<T>() + at, k_k.data<T>() + h, k_a.data<T>() + h,
                     k.data<T>() + at, a_vec.data<T>() + at, b_vec.data<T>() + at, norm.data<T>() + r);
      }
    });
  });
}

void time_mix_keys_backward(const Tensor& dk, const Tensor& da_vec, const Tensor& db_vec, const Tensor& k0,
                            const Tensor& a_pre, const Tensor& k_k, const Tensor& k_a, int64_t heads,
                            const Tensor& norm, Tensor& dk0, Tensor& da_pre, Tensor& dk_k, Tensor& dk_a) {
  const int64_t n = k0.size(-1) / heads;
  for_cpu_float("time_mix_keys", k0.dtype(), [&](auto t) {
    using T = decltype(t);
    for_row_chunks<T>(
        norm.numel() / heads, 4 * n * heads, {dk_k, dk_a},
        [&](int64_t begin, int64_t end, const ChunkSums<T>& sums) {
          std::vector<T> scratch(size_t(6 * n));  // also takes what is not wanted
          T* const s = scratch.data();
          for (int64_t r = begin * heads; r < end * heads; ++r) {
            const int64_t at = r * n, h = r % heads * n;
            head_backward(n, norm.data<T>()[r], dk.data<T>() + at, da_vec.data<T>() + at, db_vec.data<T>() + at,
                          k0.data<T>() + at, a_pre.data<T>() + at, k_k.data<T>() + h, k_a.data<T>() + h,
                          dk0.defined() ? dk0.data<T>() + at : s,
                          da_pre.defined() ? da_pre.data<T>() + at : s + n, sums[0] ? sums[0] + h : s + 2 * n,
                          sums[1] ? sums[1] + h : s + 3 * n, s + 4 * n, s + 5 * n);
          }
        });
  });
}

}  // namespace cpu
}  // namespace

std::vector<Variable> time_mix_keys(const Variable& k0, const Variable& a_pre, const Variable& k_k,
                                    const Variable& k_a, int64_t heads) {
  const Shape& s = k0.shape();
  require(s.rank() >= 1 && heads >= 1 && s[-1] % heads == 0, "time_mix_keys: k0 {} cannot be cut into {} heads",
          k0.value().str(), heads);
  require(a_pre.shape() == s && a_pre.dtype() == k0.dtype() && a_pre.device() == k0.device(),
          "time_mix_keys: k0 is {}, a_pre is {}; shape, type and device must agree", k0.value().str(),
          a_pre.value().str());
  for (const Variable* p : {&k_k, &k_a}) {
    require((p->shape() == Shape{s[-1]} || p->shape() == Shape{1, 1, s[-1]}) && p->dtype() == k0.dtype() &&
                p->device() == k0.device(),
            "time_mix_keys: k0 is {}, {} is {}, expected {} [{}]", k0.value().str(), p == &k_k ? "k_k" : "k_a",
            p->value().str(), name_of(k0.dtype()), s[-1]);
  }
  const int64_t n = s[-1] / heads, rows = n == 0 ? 0 : k0.value().numel() / n;
  require(!k0.device().is_cuda() || n <= kMostHeadChannels,
          "time_mix_keys: heads of {} channels, on CUDA at most {}", n, kMostHeadChannels);
  const DType statistics = k0.dtype() == DType::bf16 ? DType::f32 : k0.dtype();
  std::vector<Tensor> out;
  for (int i = 0; i < 3; ++i) out.push_back(Tensor::empty_like(k0.value()));
  Tensor norm = Tensor::empty({rows}, statistics, k0.device());
  run(k0.device(), cpu::time_mix_keys_forward, cuda::time_mix_keys_forward, k0.value(), a_pre.value(),
      k_k.value(), k_a.value(), heads, out[0], out[1], out[2], norm);
  return record(
      "time_mix_keys", out, {k0, a_pre, k_k, k_a},
      [heads, k0 = k0.value(), a_pre = a_pre.value(), k_k = k_k.value(), k_a = k_a.value(), norm](Grads& g) {
        Tensor dk0 = g.wants(0) ? g.write(0) : Tensor(), da_pre = g.wants(1) ? g.write(1) : Tensor();
        Tensor dk_k = g.wants(2) ? g.write_param(2) : Tensor(), dk_a = g.wants(3) ? g.write_param(3) : Tensor();
        run(k0.device(), cpu::time_mix_keys_backward, cuda::time_mix_keys_backward, g.out(0), g.out(1),
            g.out(2), k0, a_pre, k_k, k_a, heads, norm, dk0, da_pre, dk_k, dk_a);
      });
}

}  // namespace modrwkv
