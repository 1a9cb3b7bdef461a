// RMS norm: y = x * r, r = 1 / sqrt(mean(x^2) + eps) over the last axis C. x [.., C] -> y like x. f32, f64
// (CPU), f32, bf16 (CUDA, fp32 inside). Saves x and r [rows]. Gradient: x. The example op of
// docs/adding_an_op.md.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable rms_norm(const Variable& x, double eps = 1e-5);

namespace cuda {
MODRWKV_LAUNCHER void rms_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& r);
MODRWKV_LAUNCHER void rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& r, Tensor& dx);
}  // namespace cuda

}  // namespace modrwkv
