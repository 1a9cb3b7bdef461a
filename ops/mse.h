// Mean square and mean absolute error: loss = 1/n sum over counted elements of (prediction - target)^2, or of
// |prediction - target|. prediction and target have one shape; target is f32 or of the prediction's type and
// not differentiated. mask u8 of the same shape, optional: an element where it is 0 does not count, whatever
// prediction and target hold there (NaN too). n is the number of the others; with n = 0 the loss and its
// gradient are 0. The loss is [1], f32 (f64 for f64). f32, f64 (CPU), f32, bf16 (CUDA), computed in fp32 (f64
// for f64), summed in an order that depends on the size alone. Saves prediction, target and mask. Gradient:
// prediction (of |x| at 0: 0).
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable mse(const Variable& prediction, const Tensor& target, const Tensor& mask = Tensor());
Variable mae(const Variable& prediction, const Tensor& target, const Tensor& mask = Tensor());

enum class Distance { square, absolute };

namespace cuda {
// loss and inverse_count (1/n, or 0): f32 [1]. mask may be undefined.
MODRWKV_LAUNCHER void distance_forward(Distance d, const Tensor& prediction, const Tensor& target,
                                       const Tensor& mask, Tensor& loss, Tensor& inverse_count);
MODRWKV_LAUNCHER void distance_backward(Distance d, const Tensor& dloss, const Tensor& prediction,
                                        const Tensor& target, const Tensor& mask, const Tensor& inverse_count,
                                        Tensor& dprediction);
}  // namespace cuda

}  // namespace modrwkv
