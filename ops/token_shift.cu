// Token shift on CUDA: all mixes in one pass.
#include "ops/token_shift.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 128;  // channels of a block: neighbours read neighbouring addresses

template <class T>
struct Mixes {
  const T* mix[kMaxMixes];
  T* y[kMaxMixes];          // forward
  const T* dy[kMaxMixes];   // backward; null: zero
};

// The value before step `row` of channel c: of the row above, of `previous`, or zero.
template <class T>
__device__ inline float before(const T* x, const T* previous, const uint8_t* reset, int64_t row, int64_t steps, int64_t channels,
                               int64_t c) {
  if (reset && reset[row]) return 0.0f;
  if (row % steps != 0) return to_float(x[(row - 1) * channels + c]);
  return previous ? to_float(previous[row / steps * channels + c]) : 0.0f;
}

// A thread owns one channel of one row. Read 1 element (the row above comes from cache), write N; 2 N + 1 FLOPs.
template <class T, int N>
__global__ void token_shift_forward_kernel(const T* x, const T* previous, const uint8_t* reset, Mixes<T> m, int64_t rows,
                                           int64_t steps, int64_t channels) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = int64_t(blockIdx.z) * gridDim.y + blockIdx.y;
  if (c >= channels || row >= rows) return;
  const float now = to_float(x[row * channels + c]), delta = before(x, previous, reset, row, steps, channels, c) - now;
#pragma unroll
  for (int i = 0; i < N; ++i) m.y[i][row * channels + c] = from_float<T>(now + delta * to_float(m.mix[i][c]));
}

// With s[t] = sum over i of dy_i[t] mix_i: dx[t] = sum dy_i[t] - s[t] + s[t+1], the last term only where step t+1 sees row t.
// A thread owns one channel of one row. Read N elements (the row below comes from cache), write 1; 5 N FLOPs.
template <class T, int N>
__global__ void token_shift_backward_kernel(Mixes<T> m, const uint8_t* reset, T* dx, T* dprevious, int64_t rows, int64_t steps,
                                            int64_t channels) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x, row = int64_t(blockIdx.z) * gridDim.y + blockIdx.y;
  if (c >= channels || row >= rows) return;
  const int64_t at = row * channels + c;
  const bool seen = (row + 1) % steps != 0 && !(reset && reset[row + 1]);
  float direct = 0, shifted = 0, next = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (m.dy[i] == nullptr) continue;
    const float mix = to_float(m.mix[i][c]), g = to_float(m.dy[i][at]);
    direct += g;
    shifted += g * mix;
    if (seen) next += to_float(m.dy[i][at + channels]) * mix;
  }
  if (dx) dx[at] = from_float<T>(direct - shifted + next);
  if (dprevious && row % steps == 0) dprevious[row / steps * channels + c] = from_float<T>(reset && reset[row] ? 0.0f : shifted);
}

// First pass of the gradients of the mixes, dmix_i = sum over rows of dy_i (before - x): a thread owns one channel of
// kRowsPerPartial rows; partial is [parts, N, channels]. Read N + 1 elements a row; 2 N FLOPs.
template <class T, int N>
__global__ void token_shift_mixes_kernel(const T* x, const T* previous, const uint8_t* reset, Mixes<T> m, float* partial, int64_t rows,
                                         int64_t steps, int64_t channels) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= channels) return;
  const int64_t begin = blockIdx.y * kRowsPerPartial, end = min(begin + kRowsPerPartial, rows);
  float sum[N] = {};
  for (int64_t row = begin; row < end; ++row) {
    const float delta = before(x, previous, reset, row, steps, channels, c) - to_float(x[row * channels + c]);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (m.dy[i]) sum[i] += to_float(m.dy[i][row * channels + c]) * delta;
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) partial[(blockIdx.y * N + i) * channels + c] = sum[i];
}

// Calls body with an integral constant of the number of mixes.
template <class Body>
void for_count(size_t n, Body&& body) {
  switch (n) {
    case 1: return body(std::integral_constant<int, 1>{});
    case 2: return body(std::integral_constant<int, 2>{});
    case 3: return body(std::integral_constant<int, 3>{});
    case 4: return body(std::integral_constant<int, 4>{});
    case 5: return body(std::integral_constant<int, 5>{});
    case 6: return body(std::integral_constant<int, 6>{});
  }
}

template <class T>
T* pointer(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// One row a grid.y; rows beyond its end of 65535 go on in grid.z.
dim3 row_grid(int64_t rows, int64_t channels) {
  const int64_t y = std::min<int64_t>(rows, 65535);
  return dim3(unsigned(ceil_div(channels, kThreads)), unsigned(y), unsigned(ceil_div(rows, y)));
}

}  // namespace

void token_shift_forward(const Tensor& x, const Tensor& previous, const std::vector<Tensor>& mixes, const Tensor& reset,
                         std::vector<Tensor>& y) {
  if (x.numel() == 0) return;
  for_cuda_float("token_shift", x.dtype(), [&](auto t) {
    for_count(mixes.size(), [&](auto n) {
      using T = decltype(t);
      Mixes<T> m{};
      for (size_t i = 0; i < mixes.size(); ++i) m.mix[i] = mixes[i].data<T>(), m.y[i] = y[i].data<T>();
      simt::launch<token_shift_forward_kernel<T, decltype(n)::value>>(
          {row_grid(x.size(0) * x.size(1), x.size(2)), kThreads, 0, current_stream()}, x.data<T>(), pointer<T>(previous),
          pointer<uint8_t>(reset), m, x.size(0) * x.size(1), x.size(1), x.size(2));
    });
  });
}

void token_shift_backward(const std::vector<Tensor>& dy, const Tensor& x, const Tensor& previous, const std::vector<Tensor>& mixes,
                          const Tensor& reset, Tensor& dx, Tensor& dprevious, std::vector<Tensor>& dmixes) {
  size_t first = 0;  // an output that has a gradient
  while (!dy[first].defined()) ++first;
  const int64_t batch = dy[first].size(0), steps = dy[first].size(1), channels = dy[first].size(2), rows = batch * steps;
  if (dprevious.defined() && rows == 0) dprevious.fill_bytes(0);
  bool learns = false;
  for (Tensor& d : dmixes) learns |= d.defined();
  for_cuda_float("token_shift", dy[first].dtype(), [&](auto t) {
    for_count(mixes.size(), [&](auto n) {
      using T = decltype(t);
      constexpr int N = decltype(n)::value;
      Mixes<T> m{};
      for (size_t i = 0; i < mixes.size(); ++i) m.mix[i] = mixes[i].data<T>(), m.dy[i] = pointer<T>(dy[i]);
      if (rows * channels > 0 && (dx.defined() || dprevious.defined())) {
        simt::launch<token_shift_backward_kernel<T, N>>({row_grid(rows, channels), kThreads, 0, current_stream()}, m,
                                                        pointer<uint8_t>(reset), pointer<T>(dx), pointer<T>(dprevious), rows,
                                                        steps, channels);
      }
      if (!learns) return;
      const Tensor partial = partial_sums(rows, N * channels, dy[first].device());
      if (channels > 0) {
        const dim3 grid(unsigned(ceil_div(channels, kThreads)), unsigned(partial.size(0)));
        simt::launch<token_shift_mixes_kernel<T, N>>({grid, kThreads, 0, current_stream()}, pointer<T>(x), pointer<T>(previous),
                                                     pointer<uint8_t>(reset), m, partial.data<float>(), rows, steps, channels);
      }
      Tensor sums = Tensor::empty({N, channels}, DType::f32, dy[first].device());
      column_sum(partial, sums);
      for (size_t i = 0; i < dmixes.size(); ++i) {
        if (dmixes[i].defined()) dmixes[i].copy_from(sums.slice(int64_t(i), int64_t(i) + 1).reshape(dmixes[i].shape()));
      }
    });
  });
}

}  // namespace modrwkv::cuda
