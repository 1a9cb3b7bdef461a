// Embedding: y[.., :] = weight[ids[..], :].
//
// weight [V, C], ids i32 of any shape up to four axes -> y [ids.., C] like weight.
// f32, f64 (CPU), f32, bf16 (CUDA). Saves ids.
// Gradient: weight, dense [V, C]; tokens are added in their order, so it never depends on timing.
//
// An id outside [0, V) is refused on the CPU. On CUDA its row of y is NaN (a check would wait for the device)
// and it adds nothing to the gradient.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable embedding(const Variable& weight, const Tensor& ids);

namespace cuda {
MODRWKV_LAUNCHER void embedding_forward(const Tensor& weight, const Tensor& ids, Tensor& y);
MODRWKV_LAUNCHER void embedding_backward(const Tensor& dy, const Tensor& ids, Tensor& dweight);
}  // namespace cuda

}  // namespace modrwkv
