// The global L2 norm of a flat gradient buffer, f32 (f64 too on the CPU), and the factor that clips it.
#pragma once
#include "core/tensor.h"

namespace modrwkv {

// sqrt(sum of squares), summed in f64 in an order that depends on the size alone. Blocks of 64 elements whose
// group (u8 [size / 64], optional) is 255 are frozen and left out. Not finite when any other element is not.
// Waits for the device.
double grad_norm(const Tensor& grad, const Tensor* group_of_block = nullptr);

// As torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)); NaN for NaN.
double clip_factor(double norm, double max_norm);

namespace cuda {
MODRWKV_LAUNCHER void square_sum(const Tensor& grad, const Tensor* group_of_block, Tensor& sum);  // sum f64 [1]
}

}  // namespace modrwkv
