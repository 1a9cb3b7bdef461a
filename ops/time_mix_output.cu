// End of the time mix on CUDA. A "head" is the n channels of one head of one token.
#include "ops/time_mix_output.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

// Heads of a block in the forward: it needs no shared memory, so small blocks fill an SM just as well.
constexpr int kWarps = 4;
// Warps of a block in the backward, fewer for heads whose sums would not fit. Four such blocks an SM leave a
// thread 64 registers.
constexpr int kBackwardWarps = 8;
constexpr int64_t kSharedBytes = 48 * 1024;

template <class T>
struct Inputs {
  const T *y, *r, *k, *v, *g, *r_k, *weight, *bias;
};
template <class T>
struct Gradients {  // null: not wanted
  T *y, *r, *k, *v, *g;
};
struct Partials {  // [parts, channels], all given or all null: no sums
  float *r_k, *weight, *bias;
};

template <class T, int W>
__device__ inline void load(const T* p, float (&v)[W]) {
  const auto pack = simt::load_as<Pack<T, W>>(p);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] = to_float(pack.v[j]);
}

// p null: nothing
template <class T, int W>
__device__ inline void store(T* p, int64_t at, const float (&v)[W]) {
  if (p == nullptr) return;
  Pack<T, W> pack;
#pragma unroll
  for (int j = 0; j < W; ++j) pack.v[j] = from_float<T>(v[j]);
  simt::store_as<Pack<T, W>>(p + at, pack);
}

// One warp owns a head, a lane W neighbouring channels at a time (two where rows allow: a head of 64 is one
// access of the warp). y is read three times, r_k and the like once, all but the first from L1. Read 5 n
// elements, write n and 8 bytes; 16 FLOPs an element.
template <class T, int W>
__global__ void time_mix_output_forward_kernel(Inputs<T> in, T* out, float* mean, float* rstd, int64_t rows,
                                               int n, int heads, float eps) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const int64_t at = row * n, first = row % heads * n;
  float sum = 0, bonus = 0, square = 0;
  for (int i = lane * W; i < n; i += 32 * W) {
    float y[W], r[W], k[W], r_k[W];
    load(in.y + at + i, y);
    load(in.r + at + i, r);
    load(in.k + at + i, k);
    load(in.r_k + first + i, r_k);
#pragma unroll
    for (int j = 0; j < W; ++j) {
      sum += y[j];
      bonus += r[j] * k[j] * r_k[j];
    }
  }
  const float m = simt::warp_sum(sum) / n;
  bonus = simt::warp_sum(bonus);
  for (int i = lane * W; i < n; i += 32 * W) {
    float y[W];
    load(in.y + at + i, y);
#pragma unroll
    for (int j = 0; j < W; ++j) square += (y[j] - m) * (y[j] - m);
  }
  const float s = 1.0f / sqrtf(simt::warp_sum(square) / n + eps);
  for (int i = lane * W; i < n; i += 32 * W) {
    float y[W], v[W], g[W], weight[W], bias[W];
    load(in.y + at + i, y);
    load(in.v + at + i, v);
    load(in.g + at + i, g);
    load(in.weight + first + i, weight);
    load(in.bias + first + i, bias);
#pragma unroll
    for (int j = 0; j < W; ++j) y[j] = ((y[j] - m) * s * weight[j] + bias[j] + bonus * v[j]) * g[j];
    store(out, at + i, y);
  }
  if (lane == 0) {
    mean[row] = m;
    rstd[row] = s;
  }
}

// A block owns one head of kRowsPerPartial tokens, a warp every so many of these tokens. Formulas in the .cpp.
// Each warp keeps its own sums for r_k, weight and bias in shared memory, each word read and written by one
// lane; at the end the block adds them in order of the warps. Read 6 n, write 5 n elements a token (the second
// reading from L1); 45 FLOPs an element.
template <class T, int W>
__global__ void __launch_bounds__(32 * kBackwardWarps, 4)
    time_mix_output_backward_kernel(Inputs<T> in, const T* dout, const float* mean, const float* rstd,
                                    Gradients<T> d, Partials partial, int64_t tokens, int n, int heads) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, packs = n / W;
  const int64_t head = blockIdx.x % heads, part = blockIdx.x / heads, first = head * n,
                channels = int64_t(heads) * n;
  const bool sums = partial.r_k != nullptr;
  float* const all = sums ? simt::dynamic_shared<float>() : nullptr;  // [warps][r_k, weight, bias][W][packs]
  float* const sum = sums ? all + warp * 3 * n : nullptr;
  if (sums) {
    for (int p = lane; p < packs; p += 32) {
#pragma unroll
      for (int j = 0; j < 3 * W; ++j) sum[j * packs + p] = 0;
    }
  }
  const int64_t begin = part * kRowsPerPartial, end = min(begin + kRowsPerPartial, tokens);
  for (int64_t t = begin + warp; t < end; t += warps) {
    const int64_t at = t * channels + first;
    const float m = mean[t * heads + head], s = rstd[t * heads + head];
    float bonus = 0, ds = 0, sum_q = 0, sum_qh = 0;
    for (int p = lane; p < packs; p += 32) {
      const int i = p * W;
      float go[W], g[W], y[W], r[W], k[W], v[W], r_k[W], weight[W];
      load(dout + at + i, go);
      load(in.g + at + i, g);
      load(in.y + at + i, y);
      load(in.r + at + i, r);
      load(in.k + at + i, k);
      load(in.v + at + i, v);
      load(in.r_k + first + i, r_k);
      load(in.weight + first + i, weight);
#pragma unroll
      for (int j = 0; j < W; ++j) {
        const float o = go[j] * g[j], q = o * weight[j];
        bonus += r[j] * k[j] * r_k[j];
        ds += o * v[j];
        sum_q += q;
        sum_qh += q * (y[j] - m) * s;
      }
    }
    bonus = simt::warp_sum(bonus);
    ds = simt::warp_sum(ds);
    const float mean_q = simt::warp_sum(sum_q) / n;
    const float mean_qh = simt::warp_sum(sum_qh) / n;
    for (int p = lane; p < packs; p += 32) {
      const int i = p * W;
      float go[W], g[W], y[W], r[W], k[W], v[W], r_k[W], weight[W], bias[W];
      load(dout + at + i, go);
      load(in.g + at + i, g);
      load(in.y + at + i, y);
      load(in.r + at + i, r);
      load(in.k + at + i, k);
      load(in.v + at + i, v);
      load(in.r_k + first + i, r_k);
      load(in.weight + first + i, weight);
      load(in.bias + first + i, bias);
#pragma unroll
      for (int j = 0; j < W; ++j) {  // each input's register takes its gradient
        const float o = go[j] * g[j], h = (y[j] - m) * s, rj = r[j];
        if (sums) {
          sum[j * packs + p] += ds * rj * k[j];
          sum[n + j * packs + p] += o * h;
          sum[2 * n + j * packs + p] += o;
        }
        g[j] = go[j] * (h * weight[j] + bias[j] + bonus * v[j]);
        v[j] = bonus * o;
        r[j] = ds * k[j] * r_k[j];
        k[j] = ds * rj * r_k[j];
        y[j] = s * (o * weight[j] - mean_q - h * mean_qh);
      }
      store(d.y, at + i, y);
      store(d.r, at + i, r);
      store(d.k, at + i, k);
      store(d.v, at + i, v);
      store(d.g, at + i, g);
    }
  }
  if (!sums) return;  // the whole grid
  __syncthreads();
  for (int i = threadIdx.x; i < 3 * n; i += blockDim.x) {
    float total = 0;
    for (int w = 0; w < warps; ++w) total += all[w * 3 * n + i];
    const int which = i / n, word = i % n;
    float* const to = which == 0 ? partial.r_k : which == 1 ? partial.weight : partial.bias;
    to[part * channels + first + word % packs * W + word / packs] = total;
  }
}

template <class T>
Inputs<T> pointers(const TimeMixOutput& in) {
  return {in.y.data<T>(), in.r.data<T>(),   in.k.data<T>(),      in.v.data<T>(),
          in.g.data<T>(), in.r_k.data<T>(), in.weight.data<T>(), in.bias.data<T>()};
}

// Two channels a lane where all rows and heads start at a multiple of two elements.
template <class T>
bool in_pairs(int64_t n, const Inputs<T>& in, std::initializer_list<const void*> others) {
  const auto fits = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % (2 * sizeof(T)) == 0; };
  bool all = n % 2 == 0;
  const std::initializer_list<const void*> own = {in.y, in.r, in.k, in.v, in.g, in.r_k, in.weight, in.bias};
  for (const void* p : own) all = all && fits(p);
  for (const void* p : others) all = all && fits(p);
  return all;
}

}  // namespace

void time_mix_output_forward(TimeMixOutput& in, double eps, Tensor& out) {
  const int64_t rows = in.mean.numel(), heads = in.r_k.size(0), n = in.r_k.size(1);
  if (rows == 0) return;
  for_cuda_float("time_mix_output", out.dtype(), [&](auto t) {
    using T = decltype(t);
    const simt::dims dims(unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream());
    const Inputs<T> from = pointers<T>(in);
    if (in_pairs<T>(n, from, {out.raw()})) {
      simt::launch<time_mix_output_forward_kernel<T, 2>>(dims, from, out.data<T>(), in.mean.data<float>(),
                                                         in.rstd.data<float>(), rows, int(n), int(heads),
                                                         float(eps));
    } else {
      simt::launch<time_mix_output_forward_kernel<T, 1>>(dims, from, out.data<T>(), in.mean.data<float>(),
                                                         in.rstd.data<float>(), rows, int(n), int(heads),
                                                         float(eps));
    }
  });
}

void time_mix_output_backward(const TimeMixOutput& in, const Tensor& dout, TimeMixOutputGradients& d) {
  const int64_t heads = in.r_k.size(0), n = in.r_k.size(1), channels = heads * n,
                tokens = in.mean.numel() / heads;
  const bool sums = d[5].defined() || d[6].defined() || d[7].defined();
  if (channels == 0 || (tokens == 0 && !sums)) return;
  std::array<Tensor, 3> partial;
  Partials to{};
  if (sums) {
    for (Tensor& p : partial) p = partial_sums(tokens, channels, dout.device());
    to = {partial[0].data<float>(), partial[1].data<float>(), partial[2].data<float>()};
  }
  const int64_t parts = std::max<int64_t>(1, ceil_div(tokens, kRowsPerPartial)),
                warp_bytes = sums ? 3 * n * 4 : 0;
  int warps = kBackwardWarps;
  while (warps > 1 && warps * warp_bytes > kSharedBytes) warps /= 2;
  for_cuda_float("time_mix_output", dout.dtype(), [&](auto t) {
    using T = decltype(t);
    const auto place = [&](size_t i) { return d[i].defined() ? d[i].data<T>() : nullptr; };
    const Gradients<T> out{place(0), place(1), place(2), place(3), place(4)};
    const Inputs<T> from = pointers<T>(in);
    const simt::dims dims(unsigned(parts * heads), 32 * warps, size_t(warps * warp_bytes), current_stream());
    if (in_pairs<T>(n, from, {dout.raw(), out.y, out.r, out.k, out.v, out.g})) {
      simt::launch<time_mix_output_backward_kernel<T, 2>>(dims, from, dout.data<T>(), in.mean.data<float>(),
                                                          in.rstd.data<float>(), out, to, tokens, int(n),
                                                          int(heads));
    } else {
      simt::launch<time_mix_output_backward_kernel<T, 1>>(dims, from, dout.data<T>(), in.mean.data<float>(),
                                                          in.rstd.data<float>(), out, to, tokens, int(n),
                                                          int(heads));
    }
  });
  for (size_t i = 0; i < 3; ++i) {
    if (d[5 + i].defined()) column_sum(partial[i], d[5 + i]);
  }
}

}  // namespace modrwkv::cuda
