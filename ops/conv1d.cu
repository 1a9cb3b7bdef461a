// Gather and scatter of 1-D convolutions on CUDA. The products are GEMMs (conv1d.cpp).
#include "ops/conv1d.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;  // nothing is shared and few registers are used, any size fills an SM

struct Geometry {
  int64_t B, T_in, T_out, C, K, stride, pad_left, dilation;
};

// A thread owns W neighbouring channels of one tap of one column, W = 16 bytes where the rows allow. Read 1
// element (each of x up to K times, all but the first from cache) and write 1; no FLOPs.
template <class T, int W>
__global__ void conv1d_gather_kernel(const T* x, T* columns, Geometry g) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, packs = g.C / W;
  if (i >= g.B * g.T_out * g.K * packs) return;
  const int64_t c = i % packs * W, k = i / packs % g.K, row = i / packs / g.K;
  const int64_t s = row % g.T_out * g.stride + k * g.dilation - g.pad_left;
  Pack<T, W> value;
  if (s >= 0 && s < g.T_in) {
    value = simt::load_as<Pack<T, W>>(x + (row / g.T_out * g.T_in + s) * g.C + c);
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j) value.v[j] = from_float<T>(0.0f);
  }
  simt::store_as<Pack<T, W>>(columns + (row * g.K + k) * g.C + c, value);
}

// A thread owns W neighbouring channels of one step of dx and sums over the taps that read it, in order: W = 4
// where the rows allow, 16 bytes of dcolumns. Read 4 bytes and do 1 FLOP for each element of dcolumns, write
// one element for K / stride of them.
template <class T, int W>
__global__ void conv1d_scatter_kernel(const float* dcolumns, T* dx, Geometry g) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, packs = g.C / W;
  if (i >= g.B * g.T_in * packs) return;
  const int64_t c = i % packs * W, row = i / packs, b = row / g.T_in, last = row % g.T_in + g.pad_left;
  float sum[W] = {};
  for (int64_t k = 0; k < g.K; ++k) {
    const int64_t n = last - k * g.dilation, t = n / g.stride;
    if (n < 0) break;
    if (n % g.stride != 0 || t >= g.T_out) continue;
    const auto part = simt::load_as<Pack<float, W>>(dcolumns + ((b * g.T_out + t) * g.K + k) * g.C + c);
#pragma unroll
    for (int j = 0; j < W; ++j) sum[j] += part.v[j];
  }
  Pack<T, W> value;
#pragma unroll
  for (int j = 0; j < W; ++j) value.v[j] = from_float<T>(sum[j]);
  simt::store_as<Pack<T, W>>(dx + row * g.C + c, value);
}

// A thread owns one element of `to`; reads are J elements apart, from cache but for the first. Weights are
// small beside the activations, so no tile in shared memory. Read and write 1 element.
template <class T>
__global__ void swap_last_axes_kernel(const T* from, T* to, int64_t n, int64_t I, int64_t J) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= n) return;
  const int64_t i = e % I, j = e / I % J;
  to[e] = from[e - i - j * I + i * J + j];
}

simt::dims a_thread_each(int64_t n) { return {unsigned(ceil_div(n, kThreads)), kThreads, 0, current_stream()}; }

}  // namespace

void conv1d_gather(const Tensor& x, int64_t kernel, const Conv1dOptions& o, Tensor& columns) {
  const Geometry g{x.size(0), x.size(1), columns.size(1), x.size(2), kernel, o.stride, o.pad_left, o.dilation};
  const int64_t n = columns.numel();
  if (n == 0) return;
  for_cuda_float("conv1d", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    constexpr int W = 16 / sizeof(T);
    if (g.C % W == 0 && aligned16(x.raw()) && aligned16(columns.raw())) {
      simt::launch<conv1d_gather_kernel<T, W>>(a_thread_each(n / W), x.data<T>(), columns.data<T>(), g);
    } else {
      simt::launch<conv1d_gather_kernel<T, 1>>(a_thread_each(n), x.data<T>(), columns.data<T>(), g);
    }
  });
}

void conv1d_scatter(const Tensor& dcolumns, int64_t kernel, const Conv1dOptions& o, Tensor& dx) {
  const Geometry g{dx.size(0), dx.size(1), dcolumns.size(1), dx.size(2),
                   kernel,     o.stride,   o.pad_left,       o.dilation};
  const int64_t n = dx.numel();
  if (n == 0) return;
  for_cuda_float("conv1d", dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if (g.C % 4 == 0 && aligned16(dcolumns.raw()) && aligned16(dx.raw())) {
      simt::launch<conv1d_scatter_kernel<T, 4>>(a_thread_each(n / 4), dcolumns.data<float>(), dx.data<T>(), g);
    } else {
      simt::launch<conv1d_scatter_kernel<T, 1>>(a_thread_each(n), dcolumns.data<float>(), dx.data<T>(), g);
    }
  });
}

void swap_last_axes(const Tensor& from, Tensor& to) {
  const int64_t n = from.numel();
  if (n == 0) return;
  for_cuda_float("conv1d", from.dtype(), [&](auto zero) {
    using T = decltype(zero);
    simt::launch<swap_last_axes_kernel<T>>(a_thread_each(n), from.data<T>(), to.data<T>(), n, from.size(1),
                                           from.size(2));
  });
}

}  // namespace modrwkv::cuda
