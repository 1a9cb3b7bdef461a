// Activations on CUDA: bound by memory, 16 bytes a thread (map2 in kernel_util.h). Forward: read and write 1
// element; backward: read 2, write 1. About 1 FLOP an element for the relus, 20 for those with an exponential.
#include "ops/activation.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

__device__ float logistic(float x) { return 1.0f / (1.0f + expf(-x)); }

// f(x, x) forward, f(dy, saved) backward. Comparisons are spelled so that NaN takes the branch that keeps it.
struct Relu {
  __device__ float operator()(float x, float) const { return x < 0 ? 0.0f : x; }
};
struct ReluBackward {
  __device__ float operator()(float dy, float y) const { return y <= 0 ? 0.0f : dy; }
};
struct ReluSquared {
  __device__ float operator()(float x, float) const { return x < 0 ? 0.0f : x * x; }
};
struct ReluSquaredBackward {
  __device__ float operator()(float dy, float y) const { return 2 * sqrtf(y) * dy; }
};
struct Sigmoid {
  __device__ float operator()(float x, float) const { return logistic(x); }
};
struct SigmoidBackward {
  __device__ float operator()(float dy, float y) const { return dy * y * (1 - y); }
};
struct Tanh {
  __device__ float operator()(float x, float) const { return tanhf(x); }
};
struct TanhBackward {
  __device__ float operator()(float dy, float y) const { return dy * (1 - y * y); }
};
struct Silu {
  __device__ float operator()(float x, float) const { return x * logistic(x); }
};
struct SiluBackward {
  __device__ float operator()(float dy, float x) const {
    const float s = logistic(x);
    return dy * s * (1 + x * (1 - s));
  }
};
struct GatedTanh {
  __device__ float operator()(float filter, float gate) const { return tanhf(filter) * logistic(gate); }
};

// A thread owns W neighbouring elements, as in map2. Read 3 and write 2 elements (1 where only one gradient is
// wanted), 50 FLOPs an element. 256 threads: no shared memory and few registers, any size fills an SM.
template <class T, int W>
__global__ void gated_tanh_backward_kernel(const T* dy, const T* filter, const T* gate, T* dfilter, T* dgate,
                                           int64_t n) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * W;
  if (i >= n) return;
  const auto both = [](float g, float f, float s, float& df, float& ds) {
    const float u = tanhf(f), v = logistic(s);
    df = g * v * (1 - u * u);
    ds = g * u * v * (1 - v);
  };
  float df, ds;
  if (W > 1 && i + W <= n) {
    const auto g = simt::load_as<Pack<T, W>>(dy + i);
    const auto f = simt::load_as<Pack<T, W>>(filter + i), s = simt::load_as<Pack<T, W>>(gate + i);
    Pack<T, W> pf, ps;
#pragma unroll
    for (int j = 0; j < W; ++j) {
      both(to_float(g.v[j]), to_float(f.v[j]), to_float(s.v[j]), df, ds);
      pf.v[j] = from_float<T>(df);
      ps.v[j] = from_float<T>(ds);
    }
    if (dfilter != nullptr) simt::store_as<Pack<T, W>>(dfilter + i, pf);
    if (dgate != nullptr) simt::store_as<Pack<T, W>>(dgate + i, ps);
  } else {
    for (int64_t j = i; j < i + W && j < n; ++j) {
      both(to_float(dy[j]), to_float(filter[j]), to_float(gate[j]), df, ds);
      if (dfilter != nullptr) dfilter[j] = from_float<T>(df);
      if (dgate != nullptr) dgate[j] = from_float<T>(ds);
    }
  }
}

}  // namespace

void activation_forward(Activation kind, const Tensor& x, Tensor& y) {
  switch (kind) {
    case Activation::relu:
      return map2("relu", x, x, y, Relu{});
    case Activation::relu_squared:
      return map2("relu_squared", x, x, y, ReluSquared{});
    case Activation::sigmoid:
      return map2("sigmoid", x, x, y, Sigmoid{});
    case Activation::tanh:
      return map2("tanh", x, x, y, Tanh{});
    case Activation::silu:
      return map2("silu", x, x, y, Silu{});
  }
}

void activation_backward(Activation kind, const Tensor& dy, const Tensor& saved, Tensor& dx) {
  switch (kind) {
    case Activation::relu:
      return map2("relu", dy, saved, dx, ReluBackward{});
    case Activation::relu_squared:
      return map2("relu_squared", dy, saved, dx, ReluSquaredBackward{});
    case Activation::sigmoid:
      return map2("sigmoid", dy, saved, dx, SigmoidBackward{});
    case Activation::tanh:
      return map2("tanh", dy, saved, dx, TanhBackward{});
    case Activation::silu:
      return map2("silu", dy, saved, dx, SiluBackward{});
  }
}

void gated_tanh_forward(const Tensor& filter, const Tensor& gate, Tensor& y) {
  map2("gated_tanh", filter, gate, y, GatedTanh{});
}

void gated_tanh_backward(const Tensor& dy, const Tensor& filter, const Tensor& gate, Tensor& dfilter,
                         Tensor& dgate) {
  const int64_t n = dy.numel();
  if (n == 0) return;
  constexpr int threads = 256;
  for_cuda_float("gated_tanh", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    constexpr int W = 16 / sizeof(T);
    T* df = dfilter.defined() ? dfilter.data<T>() : nullptr;
    T* dg = dgate.defined() ? dgate.data<T>() : nullptr;
    const bool wide = aligned16(dy.raw()) && aligned16(filter.raw()) && aligned16(gate.raw()) &&
                      aligned16(df) && aligned16(dg);
    const unsigned grid = unsigned(ceil_div(n, int64_t(threads) * (wide ? W : 1)));
    if (wide) {
      simt::launch<gated_tanh_backward_kernel<T, W>>({grid, threads, 0, current_stream()}, dy.data<T>(),
                                                     filter.data<T>(), gate.data<T>(), df, dg, n);
    } else {
      simt::launch<gated_tanh_backward_kernel<T, 1>>({grid, threads, 0, current_stream()}, dy.data<T>(),
                                                     filter.data<T>(), gate.data<T>(), df, dg, n);
    }
  });
}

}  // namespace modrwkv::cuda
