// Layer norm and group norm on CUDA. A "row" is one group of one token: n values with their own mean.
#include "ops/layer_norm.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kWarps =
    4;  // rows of a block; a row needs no shared memory, so small blocks fill an SM just as well

// One warp owns a row and reads it three times (mean, variance, output); all but the first come from L1.
// Read and write n elements, write 8 bytes a row; 8 FLOPs an element.
template <class T>
__global__ void layer_norm_forward_kernel(const T* x, const T* weight, const T* bias, T* y, float* mean,
                                          float* rstd, int64_t rows, int n, int groups, float eps) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps
  const T* px = x + row * n;
  const int64_t first = (row % groups) * n;
  float sum = 0, square = 0;
  for (int i = lane; i < n; i += 32) sum += to_float(px[i]);
  const float m = simt::warp_sum(sum) / n;
  for (int i = lane; i < n; i += 32) {
    const float d = to_float(px[i]) - m;
    square += d * d;
  }
  const float s = 1.0f / sqrtf(simt::warp_sum(square) / n + eps);
  for (int i = lane; i < n; i += 32) {
    const float h = (to_float(px[i]) - m) * s;
    y[row * n + i] = from_float<T>(h * to_float(weight[first + i]) + to_float(bias[first + i]));
  }
  if (lane == 0) {
    mean[row] = m;
    rstd[row] = s;
  }
}

// One warp owns a row. Read 2 n elements (twice, the second time from L1) and 8 bytes, write n; 14 FLOPs an
// element.
template <class T>
__global__ void layer_norm_backward_kernel(const T* dy, const T* x, const T* weight, const float* mean,
                                           const float* rstd, T* dx, int64_t rows, int n, int groups) {
  const int64_t row = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  const T* px = x + row * n;
  const T* pdy = dy + row * n;
  const T* w = weight + (row % groups) * n;
  const float m = mean[row], s = rstd[row];
  float sum_q = 0, sum_qh = 0;
  for (int i = lane; i < n; i += 32) {
    const float q = to_float(pdy[i]) * to_float(w[i]);
    sum_q += q;
    sum_qh += q * (to_float(px[i]) - m) * s;
  }
  const float mean_q = simt::warp_sum(sum_q) / n;
  const float mean_qh = simt::warp_sum(sum_qh) / n;
  for (int i = lane; i < n; i += 32) {
    const float q = to_float(pdy[i]) * to_float(w[i]), h = (to_float(px[i]) - m) * s;
    dx[row * n + i] = from_float<T>(s * (q - mean_q - h * mean_qh));
  }
}

// First pass of dweight and dbias: a thread owns one channel of kRowsPerPartial tokens.
// Read 2 elements and write 8 / kRowsPerPartial bytes an element.
template <class T>
__global__ void layer_norm_parameters_kernel(const T* dy, const T* x, const float* mean, const float* rstd,
                                             float* dweight, float* dbias, int64_t tokens, int n, int groups) {
  const int channels = n * groups, c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= channels) return;
  const int64_t begin = blockIdx.y * kRowsPerPartial, end = min(begin + kRowsPerPartial, tokens);
  float sum_w = 0, sum_b = 0;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = t * groups + c / n;
    const float g = to_float(dy[t * channels + c]);
    sum_w += g * (to_float(x[t * channels + c]) - mean[row]) * rstd[row];
    sum_b += g;
  }
  dweight[int64_t(blockIdx.y) * channels + c] = sum_w;
  dbias[int64_t(blockIdx.y) * channels + c] = sum_b;
}

}  // namespace

void layer_norm_forward(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps,
                        Tensor& y, Tensor& mean, Tensor& rstd) {
  const int64_t rows = mean.numel();
  if (rows == 0) return;
  for_cuda_float("layer_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<layer_norm_forward_kernel<T>>(
        {unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()}, x.data<T>(), weight.data<T>(),
        bias.data<T>(), y.data<T>(), mean.data<float>(), rstd.data<float>(), rows, int(x.size(-1) / groups),
        int(groups), float(eps));
  });
}

void layer_norm_backward(const Tensor& dy, const Tensor& x, int64_t groups, const Tensor& weight,
                         const Tensor& mean, const Tensor& rstd, Tensor& dx, Tensor& dweight, Tensor& dbias) {
  const int64_t rows = mean.numel(), tokens = rows / groups, channels = x.size(-1);
  const int n = int(channels / groups);
  for_cuda_float("layer_norm", x.dtype(), [&](auto t) {
    using T = decltype(t);
    if (dx.defined() && rows > 0) {
      simt::launch<layer_norm_backward_kernel<T>>(
          {unsigned(ceil_div(rows, kWarps)), 32 * kWarps, 0, current_stream()}, dy.data<T>(), x.data<T>(),
          weight.data<T>(), mean.data<float>(), rstd.data<float>(), dx.data<T>(), rows, n, int(groups));
    }
    if (!dweight.defined() && !dbias.defined()) return;
    Tensor pw = partial_sums(tokens, channels, x.device()), pb = partial_sums(tokens, channels, x.device());
    const dim3 grid(unsigned(ceil_div(channels, 128)), unsigned(pw.size(0)));
    if (channels > 0) {
      simt::launch<layer_norm_parameters_kernel<T>>({grid, 128, 0, current_stream()}, dy.data<T>(), x.data<T>(),
                                                    mean.data<float>(), rstd.data<float>(), pw.data<float>(),
                                                    pb.data<float>(), tokens, n, int(groups));
    }
    if (dweight.defined()) column_sum(pw, dweight);
    if (dbias.defined()) column_sum(pb, dbias);
  });
}

}  // namespace modrwkv::cuda
