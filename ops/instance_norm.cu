// Instance norm of a series and its inverse on CUDA.
#include "ops/instance_norm.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kWarps =
    4;  // rows of a block; a row needs no shared memory, so small blocks fill an SM just as well

// One warp owns a row and reads it three times (mean, variance, output); all but the first come from L1.
// Read and write L elements, write 8 bytes a row; 6 FLOPs an element.
template <class T>
__global__ void instance_norm_forward_kernel(const T* x, T* y, float* mean, float* std, int64_t rows, int64_t L,
                                             float eps) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const T* px = x + row * L;
  float sum = 0, square = 0;
  for (int64_t i = lane; i < L; i += 32) sum += to_float(px[i]);
  const float m = simt::warp_sum(sum) / float(L);
  for (int64_t i = lane; i < L; i += 32) {
    const float d = to_float(px[i]) - m;
    square += d * d;
  }
  const float s = sqrtf(simt::warp_sum(square) / float(L) + eps);
  for (int64_t i = lane; i < L; i += 32) y[row * L + i] = from_float<T>((to_float(px[i]) - m) / s);
  if (lane == 0) {
    mean[row] = m;
    std[row] = s;
  }
}

// One warp owns a row: dx = dy / std + constant + y slope. Read 2 L elements (twice, the second time from L1)
// and 16 bytes, write L; 12 FLOPs an element. dy, dmean and dstd may be null: zero.
template <class T>
__global__ void instance_norm_backward_kernel(const T* dy, const float* dmean, const float* dstd, const T* x,
                                              const float* mean, const float* std, T* dx, int64_t rows,
                                              int64_t L) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  const T* px = x + row * L;
  const T* pdy = dy == nullptr ? nullptr : dy + row * L;
  const float m = mean[row], s = std[row];
  float sum = 0, sum_y = 0;
  if (pdy != nullptr) {
    for (int64_t i = lane; i < L; i += 32) {
      sum += to_float(pdy[i]);
      sum_y += to_float(pdy[i]) * (to_float(px[i]) - m) / s;
    }
  }
  sum = simt::warp_sum(sum);
  sum_y = simt::warp_sum(sum_y);
  const float constant = ((dmean == nullptr ? 0.0f : dmean[row]) - sum / s) / float(L);
  const float slope = ((dstd == nullptr ? 0.0f : dstd[row]) - sum_y / s) / float(L);
  for (int64_t i = lane; i < L; i += 32) {
    const float direct = pdy == nullptr ? 0.0f : to_float(pdy[i]) / s;
    dx[row * L + i] = from_float<T>(direct + constant + (to_float(px[i]) - m) / s * slope);
  }
}

// A thread owns one element. Read and write 1 element, 2 FLOPs; the statistics come from cache. 256 threads:
// nothing is shared. These run once a step on [B, horizon], so that 16-byte accesses would not be noticed.
template <class T, bool kDivide>
__global__ void scale_rows_kernel(const T* x, const float* std, const float* shift, T* out, int64_t n,
                                  int64_t H) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int64_t row = i / H;
  const float s = std[row], m = shift == nullptr ? 0.0f : shift[row], v = to_float(x[i]);
  out[i] = from_float<T>(kDivide ? (v - m) / s : v * s + m);
}

// One warp owns a row. Read 2 H elements, write 8 bytes; 3 FLOPs an element. y is null with dstd.
template <class T>
__global__ void row_sums_kernel(const T* dy, const T* y, float* dmean, float* dstd, int64_t rows, int64_t H) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  float sum = 0, sum_y = 0;
  for (int64_t i = row * H + lane; i < (row + 1) * H; i += 32) {
    sum += to_float(dy[i]);
    if (dstd != nullptr) sum_y += to_float(dy[i]) * to_float(y[i]);
  }
  sum = simt::warp_sum(sum);
  sum_y = simt::warp_sum(sum_y);
  if (lane == 0 && dmean != nullptr) dmean[row] = sum;
  if (lane == 0 && dstd != nullptr) dstd[row] = sum_y;
}

simt::dims warp_a_row(int64_t rows) {
  return {unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()};
}

template <class T>
T* optional(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

template <bool kDivide>
void scale_rows(const char* op, const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out) {
  const int64_t n = x.numel();
  if (n == 0) return;
  constexpr int threads = 256;
  for_cuda_float(op, x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    simt::launch<scale_rows_kernel<T, kDivide>>({unsigned(ceil_div(n, threads)), threads, 0, current_stream()},
                                                x.data<T>(), std.data<float>(), optional<float>(shift),
                                                out.data<T>(), n, x.size(1));
  });
}

}  // namespace

void instance_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& mean, Tensor& std) {
  const int64_t rows = x.size(0);
  if (rows == 0) return;
  for_cuda_float("instance_norm", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    simt::launch<instance_norm_forward_kernel<T>>(warp_a_row(rows), x.data<T>(), y.data<T>(),
                                                  mean.data<float>(), std.data<float>(), rows, x.size(1),
                                                  float(eps));
  });
}

void instance_norm_backward(const Tensor& dy, const Tensor& dmean, const Tensor& dstd, const Tensor& x,
                            const Tensor& mean, const Tensor& std, Tensor& dx) {
  const int64_t rows = x.size(0);
  if (rows == 0) return;
  for_cuda_float("instance_norm", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    simt::launch<instance_norm_backward_kernel<T>>(warp_a_row(rows), optional<T>(dy), optional<float>(dmean),
                                                   optional<float>(dstd), x.data<T>(), mean.data<float>(),
                                                   std.data<float>(), dx.data<T>(), rows, x.size(1));
  });
}

void multiply_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out) {
  scale_rows<false>("denormalise", x, std, shift, out);
}

void divide_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out) {
  scale_rows<true>("normalise_with", x, std, shift, out);
}

void row_sums(const Tensor& dy, const Tensor& y, Tensor& dmean, Tensor& dstd) {
  const int64_t rows = dy.size(0);
  if (rows == 0) return;
  for_cuda_float("denormalise", dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    simt::launch<row_sums_kernel<T>>(warp_a_row(rows), dy.data<T>(), optional<T>(y), optional<float>(dmean),
                                     optional<float>(dstd), rows, dy.size(1));
  });
}

}  // namespace modrwkv::cuda
