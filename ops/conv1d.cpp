// 1-D convolution: gather and scatter on the CPU, checks and the tape.
#include "ops/conv1d.h"

#include "core/error.h"
#include "core/gemm.h"
#include "core/parallel.h"
#include "ops/linear.h"

namespace modrwkv {
namespace {

namespace cpu {

// The copies are spelled as vector loops: rows of a few channels are shorter than a call of memcpy.
void conv1d_gather(const Tensor& x, int64_t kernel, const Conv1dOptions& o, Tensor& columns) {
  const int64_t B = x.size(0), T_in = x.size(1), C = x.size(2), T_out = columns.size(1);
  for_cpu_float("conv1d", x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* px = x.data<T>();
    T* pcolumns = columns.data<T>();
    parallel_for(B * T_out, 1 + (1 << 14) / (kernel * C), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t b = row / T_out, first = row % T_out * o.stride - o.pad_left;
        T* to = pcolumns + row * kernel * C;
        for (int64_t k = 0; k < kernel; ++k, to += C) {
          const int64_t s = first + k * o.dilation;
          if (s >= 0 && s < T_in) {
            const T* from = px + (b * T_in + s) * C;
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) to[c] = from[c];
          } else {
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) to[c] = T(0);
          }
        }
      }
    });
  });
}

// A thread owns steps of dx and sums over the taps that read them.
void conv1d_scatter(const Tensor& dcolumns, int64_t kernel, const Conv1dOptions& o, Tensor& dx) {
  const int64_t B = dx.size(0), T_in = dx.size(1), C = dx.size(2), T_out = dcolumns.size(1);
  for_cpu_float("conv1d", dx.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* pcolumns = dcolumns.data<T>();
    T* pdx = dx.data<T>();
    parallel_for(B * T_in, 1 + (1 << 14) / (kernel * C), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t b = row / T_in, last = row % T_in + o.pad_left;
        T* to = pdx + row * C;
#pragma omp simd
        for (int64_t c = 0; c < C; ++c) to[c] = T(0);
        for (int64_t k = 0; k < kernel; ++k) {
          const int64_t n = last - k * o.dilation, t = n / o.stride;
          if (n < 0 || n % o.stride != 0 || t >= T_out) continue;
          const T* from = pcolumns + ((b * T_out + t) * kernel + k) * C;
#pragma omp simd
          for (int64_t c = 0; c < C; ++c) to[c] += from[c];
        }
      }
    });
  });
}

void swap_last_axes(const Tensor& from, Tensor& to) {
  const int64_t N = from.size(0), I = from.size(1), J = from.size(2);
  for_cpu_float("conv1d", from.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(N, 1 + (1 << 14) / (I * J), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const T* p = from.data<T>() + n * I * J;
        T* q = to.data<T>() + n * I * J;
        for (int64_t j = 0; j < J; ++j) {
          for (int64_t i = 0; i < I; ++i) q[j * I + i] = p[i * J + j];
        }
      }
    });
  });
}

}  // namespace cpu

// x itself where a column is a step of x.
bool pointwise(int64_t kernel, const Conv1dOptions& o) {
  return kernel == 1 && o.stride == 1 && o.pad_left == 0 && o.pad_right == 0;
}

Tensor gather(const Tensor& x, int64_t kernel, const Conv1dOptions& o, int64_t T_out) {
  if (pointwise(kernel, o)) return x;
  const MemoryScope scope(MemoryTag::workspace);
  Tensor columns = Tensor::empty({x.size(0), T_out, kernel * x.size(2)}, x.dtype(), x.device());
  run(x.device(), cpu::conv1d_gather, cuda::conv1d_gather, x, kernel, o, columns);
  return columns;
}

// [Cout, Cin, K] -> [Cout, K Cin]
Tensor as_matrix(const Tensor& weight) {
  const int64_t Cout = weight.size(0), Cin = weight.size(1), K = weight.size(2);
  if (K == 1 || Cin == 1) return weight.reshape({Cout, K * Cin});
  const MemoryScope scope(MemoryTag::workspace);
  Tensor swapped = Tensor::empty({Cout, K, Cin}, weight.dtype(), weight.device());
  run(weight.device(), cpu::swap_last_axes, cuda::swap_last_axes, weight, swapped);
  return swapped.reshape({Cout, K * Cin});
}

void input_gradient(const Tensor& dy, const Tensor& weight, const Conv1dOptions& o, Tensor& dx) {
  const int64_t K = weight.size(2);
  const Tensor matrix = as_matrix(weight);
  if (pointwise(K, o)) return gemm(dy, matrix, dx);
  const MemoryScope scope(MemoryTag::workspace);
  const DType sums = dx.dtype() == DType::bf16 ? DType::f32 : dx.dtype();
  Tensor dcolumns = Tensor::empty({dy.size(0), dy.size(1), matrix.size(1)}, sums, dx.device());
  gemm(dy, matrix, dcolumns);
  run(dx.device(), cpu::conv1d_scatter, cuda::conv1d_scatter, dcolumns, K, o, dx);
}

void weight_gradient(const Tensor& dy, const Tensor& x, const Conv1dOptions& o, Tensor& dweight) {
  const int64_t Cout = dweight.size(0), Cin = dweight.size(1), K = dweight.size(2);
  if (dy.numel() == 0) return dweight.fill_bytes(0);
  const bool same = K == 1 || Cin == 1;
  const MemoryScope scope(MemoryTag::workspace);
  Tensor dmatrix = same ? dweight.reshape({Cout, K * Cin})
                        : Tensor::empty({Cout, K * Cin}, dweight.dtype(), dweight.device());
  gemm(dy, gather(x, K, o, dy.size(1)), dmatrix, {.trans_a = true});
  if (same) return;
  run(dweight.device(), cpu::swap_last_axes, cuda::swap_last_axes, dmatrix.reshape({Cout, K, Cin}), dweight);
}

}  // namespace

Variable conv1d(const Variable& x, const Variable& weight, const Variable& bias, const Conv1dOptions& o) {
  const Shape &s = x.shape(), &w = weight.shape();
  require(s.rank() == 3 && w.rank() == 3 && w.numel() > 0,
          "conv1d: input is {}, weight {}, expected [B, T, Cin] and [Cout, Cin, K] without zero sizes",
          x.value().str(), weight.value().str());
  require(s[2] == w[1], "conv1d: input has {} channels, weight expects {} (weight {})", s[2], w[1], w.str());
  require(weight.dtype() == x.dtype() && weight.device() == x.device(), "conv1d: input is {}, weight is {}",
          x.value().str(), weight.value().str());
  require(!bias.defined() ||
              (bias.shape() == Shape{w[0]} && bias.dtype() == x.dtype() && bias.device() == x.device()),
          "conv1d: bias is {}, expected [{}] like {}", bias.defined() ? bias.value().str() : "", w[0],
          x.value().str());
  require(o.stride >= 1 && o.dilation >= 1 && o.pad_left >= 0 && o.pad_right >= 0,
          "conv1d: stride {}, dilation {}, padding {} + {}; expected at least 1, 1, 0 + 0", o.stride,
          o.dilation, o.pad_left, o.pad_right);
  const int64_t reach = o.dilation * (w[2] - 1) + 1, spare = s[1] + o.pad_left + o.pad_right - reach;
  require(
      spare >= 0,
      "conv1d: {} steps with padding {} + {} are fewer than the {} that the kernel spans (K {}, dilation {})",
      s[1], o.pad_left, o.pad_right, reach, w[2], o.dilation);
  Tensor y = Tensor::empty({s[0], spare / o.stride + 1, w[0]}, x.dtype(), x.device());
  gemm(gather(x.value(), w[2], o, y.size(1)), as_matrix(weight.value()), y, {.trans_b = true},
       bias.defined() ? &bias.value() : nullptr);
  const Tensor saved = weight.requires_grad() ? x.value() : Tensor();
  return record("conv1d", y, {x, weight, bias}, [o, x = saved, weight = weight.value()](Grads& g) {
    if (g.wants(0)) {
      Tensor dx = g.write(0);
      input_gradient(g.out(), weight, o, dx);
    }
    if (g.wants(1)) {
      Tensor dweight = g.write_param(1);
      weight_gradient(g.out(), x, o, dweight);
    }
    if (g.wants(2)) {
      Tensor dbias = g.write_param(2);
      bias_gradient(g.out(), dbias);
    }
  });
}

}  // namespace modrwkv
