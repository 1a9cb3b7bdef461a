// Layer norm: y = (x - mean(x)) * rstd(x) * weight + bias over the last axis C, rstd = 1 / sqrt(biased var +
// eps). Group norm: the same over each of `groups` equal pieces of the last axis (RWKV-7: one piece a head and
// token). x [.., C], weight [C], bias [C] -> y like x. f32, f64 (CPU), f32, bf16 (CUDA); statistics in fp32
// (f64 for f64). Saves x, mean and rstd [rows * groups]. Gradients: x, weight, bias.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable layer_norm(const Variable& x, const Variable& weight, const Variable& bias, double eps = 1e-5);
Variable group_norm(const Variable& x, int64_t groups, const Variable& weight, const Variable& bias,
                    double eps);

namespace cuda {
MODRWKV_LAUNCHER void layer_norm_forward(const Tensor& x, int64_t groups, const Tensor& weight,
                                         const Tensor& bias, double eps, Tensor& y, Tensor& mean, Tensor& rstd);
// dx, dweight and dbias may each be undefined: not wanted.
MODRWKV_LAUNCHER void layer_norm_backward(const Tensor& dy, const Tensor& x, int64_t groups,
                                          const Tensor& weight, const Tensor& mean, const Tensor& rstd,
                                          Tensor& dx, Tensor& dweight, Tensor& dbias);
}  // namespace cuda

}  // namespace modrwkv
