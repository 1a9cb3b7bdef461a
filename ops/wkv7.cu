// The RWKV-7 recurrence on CUDA, plain and sequential: one block a (batch, head), fp32 throughout. The referee
// of the chunked form, and the form for cards with little shared memory.
//
// N is the head size n rounded up to 16, 32, 64 or 128; rows and keys beyond n hold zeros. Four threads share a
// row, so a block has 4 N of them: lane 8 p + q of warp w is part p of `own` = 8 w + q. Of row (value) `own` it
// holds the keys 4 p + 16 m + e, e < 4, and in backward also those values of column (key) `own`. So a sum along
// a row or a column is one over registers, then over the four lanes of an `own`; vectors are read from shared
// memory 16 bytes at a time, 64 contiguous bytes a warp; and states are written to global memory in whole
// 32-byte sectors. With a whole row a thread, a head would have two warps to hide its latency, and backward no
// registers left.
#include "ops/wkv7.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kChunk = 16;  // steps between two saved states, and steps whose vectors are in shared memory
constexpr int kParts = 4;   // threads that share a row
constexpr float kDecay = 0.6065306597126334f;  // e^(-1/2)

template <class T>
struct Pointers {
  const T *r, *w, *k, *v, *a, *b;
  const float* state;    // may be null
  const uint8_t* reset;  // may be null
  int steps, heads, n;
};

template <class T>
struct Outputs {  // each may be null
  T *r, *w, *k, *v, *a, *b;
  float* state;
};

// Where a thread stands (see above).
template <int N>
struct Place {
  int batch, channels, own, part;
  int64_t bh, first;  // first: the head's first element of step 0

  template <class T>
  __device__ explicit Place(const Pointers<T>& p) {
    bh = blockIdx.x;
    batch = int(blockIdx.x) / p.heads;
    channels = p.heads * p.n;
    first = int64_t(batch) * p.steps * channels + (int(blockIdx.x) - batch * p.heads) * p.n;
    own = int(threadIdx.x) / 32 * 8 + int(threadIdx.x) % 8;
    part = int(threadIdx.x) % 32 / 8;
  }
  // Element q of a thread is element 4 part + at(q) of its row: one address and constants.
  static __device__ constexpr int at(int q) { return q / 4 * 4 * kParts + q % 4; }
  // Elements 4 m .. 4 m + 3 of this thread's part of a vector.
  __device__ simt::vec<float, 4> four(const float* vector, int m) const {
    return simt::load_as<simt::vec<float, 4>>(vector + 4 * part + at(4 * m));
  }
};

// The sum over the four lanes of an `own`, in all of them.
__device__ inline float sum_parts(float x SIMT_AT) {
  x += __shfl_xor_sync(0xffffffffu, x, 8, 32 SIMT_HERE_STEP(0));
  x += __shfl_xor_sync(0xffffffffu, x, 16, 32 SIMT_HERE_STEP(1));
  return x;
}

template <int N>
__device__ void clear(float (&x)[N]) {
#pragma unroll
  for (int q = 0; q < N; ++q) x[q] = 0;
}

// w = exp(-e^(-1/2) s), s = sigmoid(raw); slope = dw/draw = -e^(-1/2) w s (1 - s). No difference cancels.
__device__ inline float decay(float raw, float& slope) {
  const float e = expf(-fabsf(raw)), p = 1.0f / (1.0f + e), q = e * p;  // sigmoid of |raw| and of -|raw|
  const float w = expf(-kDecay * (raw < 0 ? q : p));
  slope = -kDecay * w * p * q;
  return w;
}

// One matrix in global memory, row-major n x n, to and from the rows that the block holds.
template <int N>
__device__ void read_rows(const float* from, int n, const Place<N>& me, float (&S)[N / kParts]) {
  from += me.own * n + 4 * me.part;
  const int left = me.own < n ? n - 4 * me.part : 0;
#pragma unroll
  for (int q = 0; q < N / kParts; ++q) S[q] = me.at(q) < left ? from[me.at(q)] : 0.0f;
}
template <int N>
__device__ void write_rows(const float (&S)[N / kParts], int n, const Place<N>& me, float* to) {
  to += me.own * n + 4 * me.part;
  const int left = me.own < n ? n - 4 * me.part : 0;
#pragma unroll
  for (int q = 0; q < N / kParts; ++q) {
    if (me.at(q) < left) to[me.at(q)] = S[q];
  }
}
// The same for N x N, the form of saved states: padded, so that nothing has to be masked.
template <int N>
__device__ void read_saved(const float* from, const Place<N>& me, float (&S)[N / kParts]) {
  from += me.own * N + 4 * me.part;
#pragma unroll
  for (int q = 0; q < N / kParts; q += 4) {
    const auto four = simt::load_as<simt::vec<float, 4>>(from + me.at(q));
#pragma unroll
    for (int e = 0; e < 4; ++e) S[q + e] = four[e];
  }
}
template <int N>
__device__ void write_saved(const float (&S)[N / kParts], const Place<N>& me, float* to) {
  to += me.own * N + 4 * me.part;
#pragma unroll
  for (int q = 0; q < N / kParts; q += 4) {
    simt::store_as(to + me.at(q), simt::vec<float, 4>{{S[q], S[q + 1], S[q + 2], S[q + 3]}});
  }
}

// A matrix n x n in memory, zeros where null, to N x N in memory, by all threads of the block.
template <int N>
__device__ void pad(const float* from, int n, float* to) {
  for (int i = threadIdx.x; i < N * N; i += N * kParts) {
    to[i] = from && i / N < n && i % N < n ? from[i / N * n + i % N] : 0.0f;
  }
}

// The vectors of a chunk, zeros beyond n.
template <int N>
struct Vectors {
  float r[kChunk][N], w[kChunk][N], k[kChunk][N], v[kChunk][N], a[kChunk][N], b[kChunk][N];
  int reset[kChunk];
};

// Calls body(t, c, i, inside) for the elements of a chunk that a thread loads: channel c of step t, at i in
// memory. Beyond the head's n channels, inside is false and i some other element; steps behind the last, which
// nobody reads, repeat it. So there is no branch, and one index for all tensors instead of a moving pointer for
// each, which would cost registers. Neighbouring threads read neighbouring channels.
template <int N, class Body>
__device__ void for_elements(int begin, int steps, int n, const Place<N>& me, Body&& body) {
  const int c = int(threadIdx.x) % N;
  const int64_t channel = me.first + min(c, n - 1);
#pragma unroll
  for (int s = 0; s < kChunk; s += kParts) {
    const int t = s + int(threadIdx.x) / N;
    body(t, c, channel + int64_t(min(begin + t, steps - 1)) * me.channels, c < n);
  }
}

template <class T>
__device__ void write(T* to, int64_t i, float x) {
  if (to) to[i] = from_float<T>(x);
}

template <int N, class T>
__device__ void load_resets(const Pointers<T>& p, int begin, const Place<N>& me, Vectors<N>& x) {
  const int t = threadIdx.x;
  if (t >= kChunk) return;
  x.reset[t] = p.reset && begin + t < p.steps ? p.reset[int64_t(me.batch) * p.steps + begin + t] : 0;
}

// One step of the rows: u = S a, S = S diag(w) + u b^T + v k^T. Returns u.
template <int N>
__device__ float step_rows(const Vectors<N>& x, int t, const Place<N>& me, float (&S)[N / kParts] SIMT_AT) {
  float u = 0;
#pragma unroll
  for (int m = 0; m < N / 16; ++m) {
    const auto a = me.four(x.a[t], m);
#pragma unroll
    for (int e = 0; e < 4; ++e) u += S[4 * m + e] * a[e];
  }
  u = sum_parts(u SIMT_HERE);
  const float v = x.v[t][me.own];
#pragma unroll
  for (int m = 0; m < N / 16; ++m) {
    const auto w = me.four(x.w[t], m), k = me.four(x.k[t], m), b = me.four(x.b[t], m);
#pragma unroll
    for (int e = 0; e < 4; ++e) S[4 * m + e] = S[4 * m + e] * w[e] + u * b[e] + v * k[e];
  }
  return u;
}

// A thread owns its part of a row of S. Two barriers a chunk of 16 steps; within it no row needs another. Per
// channel and step: read 6 and write 1 element, with `starts` write 4 N / 16 bytes more; 9 N FLOPs. Three
// blocks of N = 64 an SM.
template <class T, int N>
__global__ void __launch_bounds__(N* kParts, N == 64 ? 3 : 1)
    wkv7_forward_kernel(Pointers<T> p, T* y, float* state, float* starts, int kept) {
  const Place<N> me(p);
  auto& x = *simt::dynamic_shared<Vectors<N>>();
  float S[N / kParts];
  clear(S);
  if (p.state) read_rows<N>(p.state + me.bh * p.n * p.n, p.n, me, S);
  for (int begin = 0; begin < p.steps; begin += kChunk) {
    if (starts && begin > 0) write_saved<N>(S, me, starts + (me.bh * kept + begin / kChunk - 1) * N * N);
    __syncthreads();  // the chunk before has been read
    for_elements(begin, p.steps, p.n, me, [&](int t, int c, int64_t i, bool inside) {
      float slope;
      x.r[t][c] = inside ? to_float(p.r[i]) : 0.0f;
      x.w[t][c] = inside ? decay(to_float(p.w[i]), slope) : 0.0f;
      x.k[t][c] = inside ? to_float(p.k[i]) : 0.0f;
      x.v[t][c] = inside ? to_float(p.v[i]) : 0.0f;
      x.a[t][c] = inside ? to_float(p.a[i]) : 0.0f;
      x.b[t][c] = inside ? to_float(p.b[i]) : 0.0f;
    });
    load_resets(p, begin, me, x);
    __syncthreads();
    const int steps = min(kChunk, p.steps - begin);
    for (int t = 0; t < steps; ++t) {
      if (x.reset[t]) clear(S);
      step_rows<N>(x, t, me, S);
      float sum = 0;
#pragma unroll
      for (int m = 0; m < N / 16; ++m) {
        const auto r = me.four(x.r[t], m);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum += S[4 * m + e] * r[e];
      }
      sum = sum_parts(sum);
      if (me.part == 0 && me.own < p.n) {
        y[me.first + int64_t(begin + t) * me.channels + me.own] = from_float<T>(sum);
      }
    }
  }
  write_rows<N>(S, p.n, me, state + me.bh * p.n * p.n);
}

template <int N>
constexpr bool kFar = N > 64;  // G does not fit the registers: 512 threads have 128 each

// Matrices of a block's scratch: the states before and after each step, the initial one, and far columns and
// rows of G.
template <int N>
constexpr int kSlots = kChunk + 2 + (kFar<N> ? 2 : 0);

template <int N>
struct BackwardVectors : Vectors<N> {
  float dy[kChunk][N], slope[kChunk][N], u[kChunk][N];
  float du[2][N];  // of the even and the odd steps: a step's values are read while the next ones are written
};

// A thread's part of a column of G, in registers or in scratch, there beside those of the neighbouring threads.
template <int N>
struct Column {
  float near[kFar<N> ? 1 : N / kParts];
  float* far;
  __device__ float get(int q) const { return kFar<N> ? far[q * N * kParts] : near[q]; }
  __device__ void set(int q, float x) { (kFar<N> ? far[q * N * kParts] : near[q]) = x; }
};

// Chunk by chunk from the end: runs the steps again as the forward does, leaving the state before each step,
// and the last one, in `scratch` ([kSlots, N, N] a block, which stays in the L2 cache), then walks back over
// them. A thread holds its parts of a row and of a column of G = dL/dS: the rows give the sums along the keys
// (dv, du), the columns those along the values (dr, dw, dk, da, db), each in a fixed order. One barrier a step,
// for du. Per channel and step: read 7 and write 6 elements, read 4 N / 16 bytes of starts, write and read 4 N
// bytes of scratch; 31 N FLOPs. Two blocks of N = 64 an SM.
template <class T, int N>
__global__ void __launch_bounds__(N* kParts, N == 64 ? 2 : 1)
    wkv7_backward_kernel(Pointers<T> p, const float* starts, int kept, const T* dy, const float* dstate,
                         float* scratch, Outputs<T> d) {
  constexpr int kOwned = N / kParts;
  const Place<N> me(p);
  auto& x = *simt::dynamic_shared<BackwardVectors<N>>();
  float* const states = scratch + me.bh * kSlots<N> * N * N;
  // Element q of this thread's column of state t.
  const float* const first_column = states + 4 * me.part * N + me.own;
  const auto column_of = [&](int t, int q) { return first_column[t * N * N + me.at(q) * N]; };
  float* const initial = states + (kChunk + 1) * N * N;
  float row[kOwned];  // of G, as the column is
  Column<N> column;
  column.far = states + (kChunk + 2) * N * N + threadIdx.x;
  float* const aside = column.far + N * N;  // where far rows are while the steps run again
  [[maybe_unused]] constexpr int kUnrolled = kFar<N> ? 2 : N / 16;  // far columns need no names
  pad<N>(dstate ? dstate + me.bh * p.n * p.n : nullptr, p.n, states);
  pad<N>(p.state ? p.state + me.bh * p.n * p.n : nullptr, p.n, initial);
  __syncthreads();
  read_saved<N>(states, me, row);
#pragma unroll
  for (int q = 0; q < kOwned; ++q) column.set(q, column_of(0, q));
  for (int c = (p.steps + kChunk - 1) / kChunk - 1; c >= 0; --c) {
    const int begin = c * kChunk;
    const int steps = min(kChunk, p.steps - begin);
    __syncthreads();  // the chunk after has been read
    for_elements(begin, p.steps, p.n, me, [&](int t, int c, int64_t i, bool inside) {
      float slope;
      x.r[t][c] = inside ? to_float(p.r[i]) : 0.0f;
      x.w[t][c] = inside ? decay(to_float(p.w[i]), slope) : 0.0f;
      x.k[t][c] = inside ? to_float(p.k[i]) : 0.0f;
      x.v[t][c] = inside ? to_float(p.v[i]) : 0.0f;
      x.a[t][c] = inside ? to_float(p.a[i]) : 0.0f;
      x.b[t][c] = inside ? to_float(p.b[i]) : 0.0f;
      x.dy[t][c] = inside ? to_float(dy[i]) : 0.0f;
      x.slope[t][c] = inside ? slope : 0.0f;
    });
    load_resets(p, begin, me, x);
#pragma unroll
    for (int q = 0; q < kOwned && kFar<N>; ++q) aside[q * N * kParts] = row[q];
    __syncthreads();
    {
      float S[kOwned];
      const int64_t start = c > 0 ? me.bh * kept + c - 1 : me.bh * kSlots<N> + kChunk + 1;
      read_saved<N>((c > 0 ? starts : scratch) + start * N * N, me, S);
#pragma unroll 1
      for (int t = 0; t < steps; ++t) {
        write_saved<N>(S, me, states + t * N * N);
        if (x.reset[t]) clear(S);
        const float u = step_rows<N>(x, t, me, S);
        if (me.part == 0) x.u[t][me.own] = u;
      }
      write_saved<N>(S, me, states + steps * N * N);
    }
    __syncthreads();
#pragma unroll
    for (int q = 0; q < kOwned && kFar<N>; ++q) row[q] = aside[q * N * kParts];
    // dr of a step needs the state after it: the last step's comes first, then each pass over the state before
    // step t also serves dr of step t - 1.
    float dr = 0;
#pragma unroll
    for (int m = 0; m < N / 16; ++m) {
      const auto g = me.four(x.dy[steps - 1], m);
#pragma unroll
      for (int e = 0; e < 4; ++e) dr += column_of(steps, 4 * m + e) * g[e];
    }
#pragma unroll 1
    for (int t = steps - 1; t >= 0; --t) {
      const float own_dy = x.dy[t][me.own];
      float dv = 0, du = 0;
#pragma unroll
      for (int m = 0; m < N / 16; ++m) {
        const auto r = me.four(x.r[t], m), k = me.four(x.k[t], m), b = me.four(x.b[t], m);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float g = row[4 * m + e] + own_dy * r[e];
          row[4 * m + e] = g;
          dv += g * k[e];
          du += g * b[e];
        }
      }
      dv = sum_parts(dv);
      du = sum_parts(du);
      if (me.part == 0) x.du[t % 2][me.own] = du;
      __syncthreads();
#pragma unroll
      for (int m = 0; m < N / 16; ++m) {
        const auto w = me.four(x.w[t], m), a = me.four(x.a[t], m);
#pragma unroll
        for (int e = 0; e < 4; ++e) row[4 * m + e] = row[4 * m + e] * w[e] + du * a[e];
      }
      const float own_r = x.r[t][me.own], own_w = x.w[t][me.own], own_a = x.a[t][me.own];
      float dw = 0, dk = 0, da = 0, db = 0, dr_before = 0;
#pragma unroll kUnrolled
      for (int m = 0; m < N / 16; ++m) {
        const auto y = me.four(x.dy[t], m), v = me.four(x.v[t], m), u = me.four(x.u[t], m),
                   z = me.four(x.du[t % 2], m);
        const auto y_before = me.four(x.dy[t > 0 ? t - 1 : 0], m);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int q = 4 * m + e;
          const float g = column.get(q) + y[e] * own_r, before = column_of(t, q);
          dw += g * before;
          dk += g * v[e];
          da += before * z[e];
          db += g * u[e];
          dr_before += before * y_before[e];
          column.set(q, g * own_w + z[e] * own_a);
        }
      }
      const bool reset = x.reset[t];  // the step saw a state of zeros, and no gradient passes
      if (reset) dw = da = 0;
#pragma unroll
      for (int q = 0; q < kOwned; ++q) {
        if (reset) row[q] = 0;
        if (reset) column.set(q, 0.0f);
      }
      dr = sum_parts(dr);
      dw = sum_parts(dw) * x.slope[t][me.own];
      dk = sum_parts(dk);
      da = sum_parts(da);
      db = sum_parts(db);
      if (me.part == 0 && me.own < p.n) {
        const int64_t i = me.first + int64_t(begin + t) * me.channels + me.own;
        write(d.r, i, dr);
        write(d.w, i, dw);
        write(d.k, i, dk);
        write(d.v, i, dv);
        write(d.a, i, da);
        write(d.b, i, db);
      }
      dr = dr_before;
    }
  }
  if (d.state) write_rows<N>(row, p.n, me, d.state + me.bh * p.n * p.n);
}

template <class T>
Pointers<T> pointers(const Wkv7Inputs& in) {
  return {in.r.data<T>(),
          in.w.data<T>(),
          in.k.data<T>(),
          in.v.data<T>(),
          in.a.data<T>(),
          in.b.data<T>(),
          in.state.defined() ? in.state.data<float>() : nullptr,
          in.reset.defined() ? in.reset.data<uint8_t>() : nullptr,
          int(in.time()),
          int(in.heads),
          int(in.head_size())};
}

// Calls body with the padded head size as an integral constant.
template <class Body>
void for_head_size(int64_t n, Body&& body) {
  if (n <= 16) return body(std::integral_constant<int, 16>{});
  if (n <= 32) return body(std::integral_constant<int, 32>{});
  if (n <= 64) return body(std::integral_constant<int, 64>{});
  return body(std::integral_constant<int, 128>{});
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace

void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, bool keep, Tensor& starts) {
  const int64_t blocks = in.batch() * in.heads, kept = ceil_div(max(in.time(), int64_t(1)), kChunk) - 1;
  for_cuda_float("wkv7", in.r.dtype(), [&](auto t) {
    for_head_size(in.head_size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value;
      if (keep) starts = Tensor::empty({blocks, kept, N, N}, DType::f32, in.r.device());
      if (blocks == 0) return;
      simt::launch<wkv7_forward_kernel<T, N>>(
          {unsigned(blocks), N * kParts, sizeof(Vectors<N>), current_stream()}, pointers<T>(in), y.data<T>(),
          state.data<float>(), pointer<float>(starts), int(kept));
    });
  });
}

void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy, const Tensor& dstate,
                   Wkv7Gradients& d) {
  const int64_t blocks = in.batch() * in.heads;
  if (blocks == 0) return;
  for_cuda_float("wkv7", in.r.dtype(), [&](auto t) {
    for_head_size(in.head_size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value;
      const MemoryScope scope(MemoryTag::workspace);
      const Tensor scratch = Tensor::empty({blocks, kSlots<N>, N, N}, DType::f32, in.r.device());
      const Outputs<T> out{pointer<T>(d.r), pointer<T>(d.w), pointer<T>(d.k),        pointer<T>(d.v),
                           pointer<T>(d.a), pointer<T>(d.b), pointer<float>(d.state)};
      simt::launch<wkv7_backward_kernel<T, N>>(
          {unsigned(blocks), N * kParts, sizeof(BackwardVectors<N>), current_stream()}, pointers<T>(in),
          starts.data<float>(), int(starts.size(1)), dy.data<T>(), pointer<float>(dstate),
          scratch.data<float>(), out);
    });
  });
}

}  // namespace modrwkv::cuda
