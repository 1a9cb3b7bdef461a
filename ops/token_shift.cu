// Token shift on CUDA: all mixes in one pass.
#include "ops/token_shift.h"

#include <algorithm>
#include <type_traits>

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerThread = 4;  // forward
constexpr int kWarps = 8;          // backward
constexpr int kRowsPerWarp = int(kRowsPerPartial) / kWarps;

template <class T>
struct Mixes {
  const T* mix[kMaxMixes];    // behind the last one: any of them
  T* y[kMaxMixes];            // forward; null: not wanted
  const T* dy[kMaxMixes];     // backward; null: zero
  float* partial[kMaxMixes];  // backward, [parts, channels]; null: not wanted
};

template <int W>
__device__ inline void clear(float (&v)[W]) {
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] = 0;
}

template <class T, int W>
__device__ inline void load(const T* p, float (&v)[W]) {
  const auto pack = simt::load_as<Pack<T, W>>(p);
#pragma unroll
  for (int j = 0; j < W; ++j) v[j] = to_float(pack.v[j]);
}

template <class T, int W>
__device__ inline void store(T* p, const float (&v)[W]) {
  Pack<T, W> pack;
#pragma unroll
  for (int j = 0; j < W; ++j) pack.v[j] = from_float<T>(v[j]);
  simt::store_as<Pack<T, W>>(p, pack);
}

// Channels c.. of what stands before step t of sequence b, `row` = b steps + t: the row above, `previous`, or
// zeros.
template <class T, int W>
__device__ inline void load_before(const T* x, const T* previous, const uint8_t* reset, int64_t row, int64_t t,
                                   int64_t b, int64_t channels, int64_t c, float (&v)[W]) {
  const bool cut = reset != nullptr && reset[row] != 0;
  const T* from = t > 0                 ? x + (row - 1) * channels + c
                  : previous != nullptr ? previous + b * channels + c
                                        : nullptr;
  if (from != nullptr && !cut) {
    load(from, v);
  } else {
    clear(v);
  }
}

// A thread owns W neighbouring channels (16 bytes where rows allow) of kRowsPerThread rows, for which it keeps
// the mixes in registers. Read 1 element (the row above comes from L1), write N; 2 N + 1 FLOPs. Bound by its
// writes.
template <class T, int N, int W>
__global__ void __launch_bounds__(kThreads)
    token_shift_forward_kernel(const T* x, const T* previous, const uint8_t* reset, Mixes<T> m, int64_t rows,
                               int64_t steps, int64_t channels) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x, packs = channels / W;
  const int64_t begin = i / packs * kRowsPerThread, end = min(begin + kRowsPerThread, rows), c = i % packs * W;
  if (begin >= rows) return;
  Pack<T, W> mix[N];
#pragma unroll
  for (int k = 0; k < N; ++k) mix[k] = simt::load_as<Pack<T, W>>(m.mix[k] + c);
  int64_t t = begin % steps, b = begin / steps;
  for (int64_t row = begin; row < end; ++row) {
    float now[W], delta[W], y[W];
    load(x + row * channels + c, now);
    load_before(x, previous, reset, row, t, b, channels, c, delta);
#pragma unroll
    for (int j = 0; j < W; ++j) delta[j] -= now[j];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (m.y[k] == nullptr) continue;
#pragma unroll
      for (int j = 0; j < W; ++j) y[j] = now[j] + delta[j] * to_float(mix[k].v[j]);
      store(m.y[k] + row * channels + c, y);
    }
    if (++t == steps) t = 0, ++b;
  }
}

// Everything in one pass. With s[t] = sum over i of dy_i[t] mix_i: dx[t] = sum of dy_i[t] - s[t] + s[t+1], the
// last term only where step t+1 sees row t; dprevious = s[0]; dmix_i = sum over rows of dy_i (before - x). A
// block owns 32 W channels of kRowsPerPartial rows, a warp kRowsPerWarp of these rows, a lane W channels (8
// bytes of bf16, 16 of f32: twice that would not leave registers for 2 N W mixes and sums). A warp walks from
// its last row to its first, so that s[t+1] is at hand. Read N + 1 elements (1 + 1 / kRowsPerWarp times, the
// excess from L1 or L2) and write 1, read and write 8 N / kRowsPerPartial bytes an element; 7 N FLOPs.
template <class T, int N, int W>
__global__ void __launch_bounds__(32 * kWarps)
    token_shift_backward_kernel(const T* x, const T* previous, const uint8_t* reset, Mixes<T> m, T* dx,
                                T* dprevious, bool learns, int64_t rows, int64_t steps, int64_t channels) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column_blocks = (channels + 32 * W - 1) / (32 * W), part = blockIdx.x / column_blocks;
  const int64_t first = blockIdx.x % column_blocks * 32 * W, c = first + lane * W;
  const int64_t begin = part * kRowsPerPartial + warp * kRowsPerWarp, end = min(begin + kRowsPerWarp, rows);
  float sum[N][W];
#pragma unroll
  for (int k = 0; k < N; ++k) clear(sum[k]);
  if (c < channels && begin < end) {
    float mix[N][W];
#pragma unroll
    for (int k = 0; k < N; ++k) load(m.mix[k] + c, mix[k]);
    int64_t t = (end - 1) % steps, b = (end - 1) / steps;
    float next[W];  // s of the row below, 0 where that row does not see this one
    clear(next);
    if (dx != nullptr && t + 1 < steps && !(reset != nullptr && reset[end] != 0)) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (m.dy[k] == nullptr) continue;
        float g[W];
        load(m.dy[k] + end * channels + c, g);
#pragma unroll
        for (int j = 0; j < W; ++j) next[j] += g[j] * mix[k][j];
      }
    }
    for (int64_t row = end - 1; row >= begin; --row) {
      const int64_t at = row * channels + c;
      const bool cut = reset != nullptr && reset[row] != 0;
      float delta[W], direct[W], shifted[W];
      clear(delta);
      clear(direct);
      clear(shifted);
      if (learns) {
        float now[W];
        load(x + at, now);
        load_before(x, previous, reset, row, t, b, channels, c, delta);
#pragma unroll
        for (int j = 0; j < W; ++j) delta[j] -= now[j];
      }
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (m.dy[k] == nullptr) continue;
        float g[W];
        load(m.dy[k] + at, g);
#pragma unroll
        for (int j = 0; j < W; ++j) {
          direct[j] += g[j];
          shifted[j] += g[j] * mix[k][j];
          sum[k][j] += g[j] * delta[j];
        }
      }
      if (dx != nullptr) {
#pragma unroll
        for (int j = 0; j < W; ++j) direct[j] += next[j] - shifted[j];
        store(dx + at, direct);
      }
#pragma unroll
      for (int j = 0; j < W; ++j) next[j] = cut ? 0.0f : shifted[j];
      if (t == 0) {
        if (dprevious != nullptr) store(dprevious + b * channels + c, next);
        clear(next);
        t = steps, --b;
      }
      --t;
    }
  }
  if (!learns) return;  // the whole grid
  struct Sums {
    float of[kWarps][N][W][32];  // by lane last: no bank conflicts
  };
  auto& s = simt::shared<Sums>();
#pragma unroll
  for (int k = 0; k < N; ++k) {
#pragma unroll
    for (int j = 0; j < W; ++j) s.of[warp][k][j][lane] = sum[k][j];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < N * W * 32; i += 32 * kWarps) {
    const int k = i / (W * 32), j = i / 32 % W;
    const int64_t column = first + i % 32 * W + j;
    float* partial = nullptr;
#pragma unroll
    for (int l = 0; l < N; ++l) partial = l == k ? m.partial[l] : partial;  // no indexed access to parameters
    if (partial == nullptr || column >= channels) continue;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += s.of[w][k][j][i % 32];
    partial[part * channels + column] = total;
  }
}

// Calls body with the N of the kernel to run: RWKV-7 has 6 mixes and 1; what lies between leaves some unused.
template <class Body>
void for_count(size_t n, Body&& body) {
  if (n == 1) return body(std::integral_constant<int, 1>{});
  body(std::integral_constant<int, int(kMaxMixes)>{});
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// May all of these be read and written in packs of W?
template <class T>
bool packable(int64_t channels, int W, const Mixes<T>& m, std::initializer_list<const void*> others) {
  const auto fits = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % (W * sizeof(T)) == 0; };
  bool all = channels % W == 0;
  for (int i = 0; i < kMaxMixes; ++i) all = all && fits(m.mix[i]) && fits(m.y[i]) && fits(m.dy[i]);
  for (const void* p : others) all = all && fits(p);
  return all;
}

}  // namespace

void token_shift_forward(const Tensor& x, const Tensor& previous, const std::vector<Tensor>& mixes,
                         const Tensor& reset, std::vector<Tensor>& y) {
  if (x.numel() == 0) return;
  const int64_t steps = x.size(1), channels = x.size(2), rows = x.size(0) * steps;
  for_cuda_float("token_shift", x.dtype(), [&](auto t) {
    for_count(mixes.size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value, W = 16 / sizeof(T);
      Mixes<T> m{};
      for (size_t i = 0; i < mixes.size(); ++i) m.y[i] = y[i].data<T>();
      for (int i = 0; i < kMaxMixes; ++i) m.mix[i] = mixes[std::min<size_t>(i, mixes.size() - 1)].data<T>();
      const T* px = x.data<T>();
      const T* last = pointer<T>(previous);
      const uint8_t* cut = pointer<uint8_t>(reset);
      const int64_t chunks = ceil_div(rows, kRowsPerThread);
      if (packable<T>(channels, W, m, {px, last})) {
        simt::launch<token_shift_forward_kernel<T, N, W>>(
            {unsigned(ceil_div(chunks * (channels / W), kThreads)), kThreads, 0, current_stream()}, px, last,
            cut, m, rows, steps, channels);
      } else {
        simt::launch<token_shift_forward_kernel<T, N, 1>>(
            {unsigned(ceil_div(chunks * channels, kThreads)), kThreads, 0, current_stream()}, px, last, cut, m,
            rows, steps, channels);
      }
    });
  });
}

void token_shift_backward(const std::vector<Tensor>& dy, const Tensor& x, const Tensor& previous,
                          const std::vector<Tensor>& mixes, const Tensor& reset, Tensor& dx, Tensor& dprevious,
                          std::vector<Tensor>& dmixes) {
  size_t some = 0;  // an output that has a gradient
  while (!dy[some].defined()) ++some;
  const Shape& s = dy[some].shape();
  const int64_t steps = s[1], channels = s[2], rows = s[0] * steps;
  if (dprevious.defined() && rows == 0) dprevious.fill_bytes(0);
  std::vector<Tensor> partial(dmixes.size());
  bool learns = false;
  for (size_t i = 0; i < dmixes.size(); ++i) {
    if (!dmixes[i].defined()) continue;
    partial[i] = partial_sums(rows, channels, dy[some].device());
    learns = true;
  }
  if (channels == 0 || (rows == 0 && !learns)) return;
  for_cuda_float("token_shift", dy[some].dtype(), [&](auto t) {
    for_count(mixes.size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value, W = 4;
      Mixes<T> m{};
      for (size_t i = 0; i < mixes.size(); ++i) {
        m.dy[i] = pointer<T>(dy[i]);
        m.partial[i] = pointer<float>(partial[i]);
      }
      for (int i = 0; i < kMaxMixes; ++i) m.mix[i] = mixes[std::min<size_t>(i, mixes.size() - 1)].data<T>();
      const T* px = pointer<T>(x);
      const T* last = pointer<T>(previous);
      T* pdx = pointer<T>(dx);
      T* pdlast = pointer<T>(dprevious);
      const uint8_t* cut = pointer<uint8_t>(reset);
      const int64_t parts = std::max<int64_t>(1, ceil_div(rows, kRowsPerPartial));
      if (packable<T>(channels, W, m, {px, last, pdx, pdlast})) {
        simt::launch<token_shift_backward_kernel<T, N, W>>(
            {unsigned(parts * ceil_div(channels, 32 * W)), 32 * kWarps, 0, current_stream()}, px, last, cut, m,
            pdx, pdlast, learns, rows, steps, channels);
      } else {
        simt::launch<token_shift_backward_kernel<T, N, 1>>(
            {unsigned(parts * ceil_div(channels, 32)), 32 * kWarps, 0, current_stream()}, px, last, cut, m, pdx,
            pdlast, learns, rows, steps, channels);
      }
    });
  });
  for (size_t i = 0; i < dmixes.size(); ++i) {
    if (dmixes[i].defined()) column_sum(partial[i], dmixes[i]);
  }
}

}  // namespace modrwkv::cuda
