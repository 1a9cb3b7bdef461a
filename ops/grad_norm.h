// The global L2 norm of a flat gradient buffer, f32 (f64 too on the CPU), in an order that does not depend on timing or threads.
// Blocks of 64 elements whose group is 255 (frozen) are left out. Not finite when any element is not. Waits for the device.
#pragma once
#include "core/tensor.h"

namespace modrwkv {

double grad_norm(const Tensor& grad, const Tensor* group_of_block = nullptr);  // u8 [size / 64]

// The factor that brings a norm down to max_norm, as torch.nn.utils.clip_grad_norm_: min(1, max_norm / (norm + 1e-6)).
double clip_factor(double norm, double max_norm);

namespace cuda {
MODRWKV_LAUNCHER void square_sums(const Tensor& grad, const Tensor* group_of_block, Tensor& sums);  // sums f32 [P]
}

}  // namespace modrwkv
