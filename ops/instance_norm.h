// Normalisation of a series by its own look-back, and its inverse: windows are forecast in their own units.
//
//   instance_norm    mean = average(x), std = sqrt(biased var(x) + 1e-5), y = (x - mean) / std    x [B, L]
//   denormalise      y std + mean                                                                 y [B, H]
//   normalise_with   (target - mean) / std                                                        target [B, H]
//
// mean and std are [B]: f32, f64 where x is f64. x, y, target: f32, f64 (CPU), f32, bf16 (CUDA).
//
//   gradients of                                    saved
//   x, from all three outputs                       x, mean, std
//   y, mean, std                                    std and, where std is differentiated, y
//   target alone (mean and std are constants there: the loss must not move the scale)    std
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

struct InstanceNorm {
  Variable y, mean, std;
};

InstanceNorm instance_norm(const Variable& x, double eps = 1e-5);
Variable denormalise(const Variable& y, const Variable& mean, const Variable& std);
Variable normalise_with(const Variable& target, const Variable& mean, const Variable& std);

namespace cuda {
MODRWKV_LAUNCHER void instance_norm_forward(const Tensor& x, double eps, Tensor& y, Tensor& mean, Tensor& std);
// dy, dmean and dstd may each be undefined: zero.
MODRWKV_LAUNCHER void instance_norm_backward(const Tensor& dy, const Tensor& dmean, const Tensor& dstd,
                                             const Tensor& x, const Tensor& mean, const Tensor& std,
                                             Tensor& dx);
// out = x * std + shift, or (x - shift) / std; an undefined shift is zero.
MODRWKV_LAUNCHER void multiply_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out);
MODRWKV_LAUNCHER void divide_rows(const Tensor& x, const Tensor& std, const Tensor& shift, Tensor& out);
// dmean = sum of dy, dstd = sum of dy y over a row; either may be undefined: not wanted, and y with dstd.
MODRWKV_LAUNCHER void row_sums(const Tensor& dy, const Tensor& y, Tensor& dmean, Tensor& dstd);
}  // namespace cuda

}  // namespace modrwkv
