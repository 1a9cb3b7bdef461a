// The RWKV-7 recurrence on CUDA, plain and sequential: one block a (batch, head), N threads, fp32 throughout.
#include "ops/wkv7.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr float kDecay = 0.6065306597126334f;  // e^(-1/2)

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T>
struct Pointers {
  const T *r, *w, *k, *v, *a, *b;
  const float* state;    // may be null
  const uint8_t* reset;  // may be null
  int64_t steps, channels;
  int heads;
};

template <int N>
struct Step {
  float r[N], w[N], k[N], a[N], b[N];
};

// Thread i keeps row i of the state in registers; the five vectors along the keys go through shared memory, two barriers a step.
// Read 6 and write 1 element a channel and step; with `starts`, write N * 4 / 16 bytes more. 9 N FLOPs a channel and step.
template <class T, int N>
__global__ void __launch_bounds__(N) wkv7_forward_kernel(Pointers<T> p, T* y, float* state, float* starts, int64_t chunks) {
  const int i = threadIdx.x;
  const int64_t bh = blockIdx.x, batch = bh / p.heads;
  const int64_t first = batch * p.steps * p.channels + (bh % p.heads) * N + i;
  auto& s = simt::shared<Step<N>>();
  float S[N];
#pragma unroll
  for (int j = 0; j < N; ++j) S[j] = p.state ? p.state[(bh * N + i) * N + j] : 0.0f;
  for (int64_t t = 0; t < p.steps; ++t) {
    const int64_t x = first + t * p.channels;
    if (p.reset && p.reset[batch * p.steps + t]) {
#pragma unroll
      for (int j = 0; j < N; ++j) S[j] = 0.0f;
    }
    if (starts && t % kWkv7Chunk == 0) {  // [key, value], so that neighbouring threads write neighbouring addresses
      float* to = starts + (bh * chunks + t / kWkv7Chunk) * N * N;
#pragma unroll
      for (int j = 0; j < N; ++j) to[j * N + i] = S[j];
    }
    __syncthreads();  // the last step has been read
    s.r[i] = to_float(p.r[x]);
    s.w[i] = expf(-kDecay * sigmoid(to_float(p.w[x])));
    s.k[i] = to_float(p.k[x]);
    s.a[i] = to_float(p.a[x]);
    s.b[i] = to_float(p.b[x]);
    __syncthreads();
    const float v = to_float(p.v[x]);
    float u = 0, out = 0;
#pragma unroll
    for (int j = 0; j < N; ++j) u += S[j] * s.a[j];
#pragma unroll
    for (int j = 0; j < N; ++j) {
      S[j] = S[j] * s.w[j] + u * s.b[j] + v * s.k[j];
      out += S[j] * s.r[j];
    }
    y[x] = from_float<T>(out);
  }
#pragma unroll
  for (int j = 0; j < N; ++j) state[(bh * N + i) * N + j] = S[j];
}

template <class T>
struct Outputs {
  T *r, *w, *k, *v, *a, *b;
  float* state;  // may be null
};

template <int N>
struct Piece {  // the vectors of 16 steps
  float r[kWkv7Chunk][N], w[kWkv7Chunk][N], k[kWkv7Chunk][N], v[kWkv7Chunk][N], a[kWkv7Chunk][N], b[kWkv7Chunk][N];
  float dy[kWkv7Chunk][N], u[kWkv7Chunk][N];
  float du[2][N];
  float G[N][N];  // dL/dS [value, key]
};

// Piece by piece from the end: runs its 16 steps again as the forward does, leaving the state before each step in `scratch`
// ([16, N, N] a block), then walks back. Thread i keeps row i of G = dL/dS in registers for the sums along keys (dv, du) and
// owns column i of a copy in shared memory for the sums along values (dr, dw, dk, da, db); both are updated alike, so that no
// sum crosses threads. One barrier a step.
// Read 7 and write 6 elements a channel and step, write and read N * 4 bytes of scratch (it stays in L2). 27 N FLOPs.
template <class T, int N>
__global__ void __launch_bounds__(N) wkv7_backward_kernel(Pointers<T> p, const float* starts, const T* dy, const float* dstate,
                                                          float* scratch, Outputs<T> d, int64_t chunks) {
  const int i = threadIdx.x;
  const int64_t bh = blockIdx.x, batch = bh / p.heads;
  const int64_t first = batch * p.steps * p.channels + (bh % p.heads) * N + i;
  Piece<N>& s = *simt::dynamic_shared<Piece<N>>();
  float* states = scratch + bh * kWkv7Chunk * N * N;
  float row[N];
#pragma unroll
  for (int j = 0; j < N; ++j) row[j] = dstate[(bh * N + i) * N + j];
  for (int j = 0; j < N; ++j) s.G[j][i] = dstate[(bh * N + j) * N + i];
  for (int64_t c = chunks - 1; c >= 0; --c) {
    const int64_t begin = c * kWkv7Chunk;
    const int steps = int(min(int64_t(kWkv7Chunk), p.steps - begin));
    __syncthreads();  // the piece before has been read
    for (int t = 0; t < steps; ++t) {
      const int64_t x = first + (begin + t) * p.channels;
      s.r[t][i] = to_float(p.r[x]);
      s.w[t][i] = expf(-kDecay * sigmoid(to_float(p.w[x])));
      s.k[t][i] = to_float(p.k[x]);
      s.v[t][i] = to_float(p.v[x]);
      s.a[t][i] = to_float(p.a[x]);
      s.b[t][i] = to_float(p.b[x]);
      s.dy[t][i] = to_float(dy[x]);
    }
    __syncthreads();
    {
      float S[N];
#pragma unroll
      for (int j = 0; j < N; ++j) S[j] = starts[((bh * chunks + c) * N + j) * N + i];
      for (int t = 0; t < steps; ++t) {
        if (p.reset && p.reset[batch * p.steps + begin + t]) {
#pragma unroll
          for (int j = 0; j < N; ++j) S[j] = 0.0f;
        }
        const float v = s.v[t][i];
        float u = 0;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          states[(t * N + i) * N + j] = S[j];
          u += S[j] * s.a[t][j];
        }
        s.u[t][i] = u;
#pragma unroll
        for (int j = 0; j < N; ++j) S[j] = S[j] * s.w[t][j] + u * s.b[t][j] + v * s.k[t][j];
      }
    }
    __syncthreads();
    for (int t = steps - 1; t >= 0; --t) {
      const int64_t x = first + (begin + t) * p.channels;
      float dv = 0, du = 0;
      const float dyi = s.dy[t][i];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        row[j] += dyi * s.r[t][j];
        dv += row[j] * s.k[t][j];
        du += row[j] * s.b[t][j];
      }
      s.du[t & 1][i] = du;
      __syncthreads();
      const float r = s.r[t][i], w = s.w[t][i], k = s.k[t][i], a = s.a[t][i], b = s.b[t][i];
      float dr = 0, dw = 0, dk = 0, da = 0, db = 0;
#pragma unroll 8
      for (int j = 0; j < N; ++j) {  // value j of key i
        const float before = states[(t * N + j) * N + i], vj = s.v[t][j], uj = s.u[t][j], duj = s.du[t & 1][j];
        const float g = s.G[j][i] + s.dy[t][j] * r;
        dr += (before * w + uj * b + vj * k) * s.dy[t][j];
        dw += g * before;
        dk += g * vj;
        db += g * uj;
        da += before * duj;
        s.G[j][i] = g * w + duj * a;
      }
#pragma unroll
      for (int j = 0; j < N; ++j) row[j] = row[j] * s.w[t][j] + du * s.a[t][j];
      const float sigma = sigmoid(to_float(p.w[x]));
      d.r[x] = from_float<T>(dr);
      d.w[x] = from_float<T>(dw * -kDecay * w * sigma * (1 - sigma));
      d.k[x] = from_float<T>(dk);
      d.v[x] = from_float<T>(dv);
      d.a[x] = from_float<T>(da);
      d.b[x] = from_float<T>(db);
      if (p.reset && p.reset[batch * p.steps + begin + t]) {
#pragma unroll
        for (int j = 0; j < N; ++j) row[j] = 0.0f;
        for (int j = 0; j < N; ++j) s.G[j][i] = 0.0f;
      }
    }
  }
  if (d.state) {
#pragma unroll
    for (int j = 0; j < N; ++j) d.state[(bh * N + i) * N + j] = row[j];
  }
}

template <class T>
Pointers<T> pointers(const Wkv7Inputs& in) {
  return {in.r.data<T>(), in.w.data<T>(), in.k.data<T>(), in.v.data<T>(), in.a.data<T>(), in.b.data<T>(),
          in.state.defined() ? in.state.data<float>() : nullptr, in.reset.defined() ? in.reset.data<uint8_t>() : nullptr,
          in.time(), in.r.size(2), int(in.heads)};
}

// Calls body with an integral constant of the head size.
template <class Body>
void for_head_size(int64_t n, Body&& body) {
  if (n == 8) return body(std::integral_constant<int, 8>{});
  if (n == 16) return body(std::integral_constant<int, 16>{});
  if (n == 32) return body(std::integral_constant<int, 32>{});
  if (n == 64) return body(std::integral_constant<int, 64>{});
}

}  // namespace

void wkv7_forward(const Wkv7Inputs& in, Tensor& y, Tensor& state, Tensor& starts) {
  const int64_t blocks = in.batch() * in.heads;
  if (blocks == 0) return;
  for_cuda_float("wkv7", in.r.dtype(), [&](auto t) {
    for_head_size(in.head_size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value;
      simt::launch<wkv7_forward_kernel<T, N>>({unsigned(blocks), N, 0, current_stream()}, pointers<T>(in), y.data<T>(),
                                              state.data<float>(), starts.defined() ? starts.data<float>() : nullptr, in.chunks());
    });
  });
}

void wkv7_backward(const Wkv7Inputs& in, const Tensor& starts, const Tensor& dy, const Tensor& dstate, Wkv7Gradients& d) {
  const int64_t blocks = in.batch() * in.heads, N_ = in.head_size();
  if (blocks == 0) return;
  Tensor scratch;
  {
    const MemoryScope scope(MemoryTag::workspace);
    scratch = Tensor::empty({blocks, kWkv7Chunk, N_, N_}, DType::f32, in.r.device());
  }
  for_cuda_float("wkv7", in.r.dtype(), [&](auto t) {
    for_head_size(N_, [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value;
      const Outputs<T> out{d.r.data<T>(), d.w.data<T>(), d.k.data<T>(), d.v.data<T>(), d.a.data<T>(), d.b.data<T>(),
                           d.state.defined() ? d.state.data<float>() : nullptr};
      simt::launch<wkv7_backward_kernel<T, N>>({unsigned(blocks), N, sizeof(Piece<N>), current_stream()}, pointers<T>(in), starts.data<float>(),
                                               dy.data<T>(), dstate.data<float>(), scratch.data<float>(), out, in.chunks());
    });
  });
}

}  // namespace modrwkv::cuda
