// Mean square and mean absolute error: loss = 1/n sum over counted elements of (prediction - target)^2, or of its absolute
// value. prediction, target: one shape and type; mask u8 like them, optional: 0 = does not count, and may be NaN. n is the number
// of counted elements; with n = 0 the loss and its gradient are 0. The loss is [1], f32 (f64 for f64). f32, f64 (CPU), f32,
// bf16 (CUDA). Saves prediction, target and mask. Gradient: prediction (of the absolute error at 0: 0).
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable mse(const Variable& prediction, const Tensor& target, const Tensor& mask = Tensor());
Variable mae(const Variable& prediction, const Tensor& target, const Tensor& mask = Tensor());

enum class Distance { square, absolute };

namespace cuda {
// inverse_count (1/n, or 0) and loss: f32 [1]. mask may be undefined.
MODRWKV_LAUNCHER void mse_forward(Distance d, const Tensor& prediction, const Tensor& target, const Tensor& mask,
                                  Tensor& loss, Tensor& inverse_count);
MODRWKV_LAUNCHER void mse_backward(Distance d, const Tensor& dloss, const Tensor& prediction, const Tensor& target,
                                   const Tensor& mask, const Tensor& inverse_count, Tensor& dprediction);
}  // namespace cuda

}  // namespace modrwkv
