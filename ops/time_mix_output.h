// The end of RWKV-7's time mix in front of its output matrix (spec section 1.2), per head of N channels:
//   out = (group_norm(y) * weight + bias + (sum over j of r_j k_j r_k_j) * v) * g,   group_norm = (y - mean) /
//   sqrt(biased var + eps).
// y, r, k, v, g [.., C]; r_k [H, N] sets the heads, C = H N; weight, bias [C]. Returns a tensor like y. f32,
// f64 (CPU), f32, bf16 (CUDA, N up to 4096); statistics in fp32 (f64 for f64). Saves the inputs, mean and rstd
// [rows * H]. Gradients: all eight.
#pragma once
#include <array>

#include "autograd/variable.h"

namespace modrwkv {

Variable time_mix_output(const Variable& y, const Variable& r, const Variable& k, const Variable& v,
                         const Variable& g, const Variable& r_k, const Variable& weight, const Variable& bias,
                         double eps);

// The tensors of one call: inputs in the order above, what the forward saves, and the gradients of the eight
// inputs, each of which may be undefined: not wanted.
struct TimeMixOutput {
  Tensor y, r, k, v, g, r_k, weight, bias;
  Tensor mean, rstd;
};
using TimeMixOutputGradients = std::array<Tensor, 8>;

namespace cuda {
MODRWKV_LAUNCHER void time_mix_output_forward(TimeMixOutput& in, double eps, Tensor& out);
MODRWKV_LAUNCHER void time_mix_output_backward(const TimeMixOutput& in, const Tensor& dout,
                                               TimeMixOutputGradients& d);
}  // namespace cuda

}  // namespace modrwkv
