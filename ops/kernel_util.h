// Small things that many .cu files share: grid sizes, and an element-wise kernel that moves 16 bytes a thread.
#pragma once
#include "core/cuda/runtime.h"
#include "core/simt/simt.h"
#include "core/tensor.h"

namespace modrwkv::cuda {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T, int W>
struct alignas(sizeof(T) * W) Pack {
  T v[W];
};

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// y[i] = f(a[i], b[i]) in fp32. A thread owns W neighbouring elements, W = 16 bytes where all pointers are
// 16-byte aligned and 1 elsewhere; the last, short pack is done element by element.
template <class T, int W, class F>
__global__ void map2_kernel(const T* a, const T* b, T* y, int64_t n, F f) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (i >= n) return;
  if (W > 1 && i + W <= n) {
    const auto pa = simt::load_as<Pack<T, W>>(a + i), pb = simt::load_as<Pack<T, W>>(b + i);
    Pack<T, W> py;
#pragma unroll
    for (int j = 0; j < W; ++j) py.v[j] = from_float<T>(f(to_float(pa.v[j]), to_float(pb.v[j])));
    simt::store_as<Pack<T, W>>(y + i, py);
  } else {
    for (int64_t j = i; j < i + W && j < n; ++j) y[j] = from_float<T>(f(to_float(a[j]), to_float(b[j])));
  }
}

// Launches map2_kernel on tensors of one shape and type (f32 or bf16).
template <class F>
void map2(const char* op, const Tensor& a, const Tensor& b, Tensor& y, F f) {
  const int64_t n = y.numel();
  if (n == 0) return;
  constexpr int threads = 256;
  for_cuda_float(op, y.dtype(), [&](auto t) {
    using T = decltype(t);
    constexpr int W = 16 / sizeof(T);
    const bool wide = aligned16(a.raw()) && aligned16(b.raw()) && aligned16(y.raw());
    const unsigned grid = unsigned(ceil_div(n, int64_t(threads) * (wide ? W : 1)));
    if (wide) {
      simt::launch<map2_kernel<T, W, F>>({grid, threads, 0, current_stream()}, a.data<T>(), b.data<T>(),
                                         y.data<T>(), n, f);
    } else {
      simt::launch<map2_kernel<T, 1, F>>({grid, threads, 0, current_stream()}, a.data<T>(), b.data<T>(),
                                         y.data<T>(), n, f);
    }
  });
}

}  // namespace modrwkv::cuda
