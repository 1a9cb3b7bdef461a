// Value residual of RWKV-7 (layers after the first): y = v + (v_first - v) * sigmoid(v_pre), all of one shape.
// f32, f64 (CPU), f32, bf16 (CUDA). Saves v_pre, and v and v_first when the gradient of v_pre is wanted.
// Gradients: all three.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable value_residual(const Variable& v, const Variable& v_first, const Variable& v_pre);

namespace cuda {
MODRWKV_LAUNCHER void value_residual_forward(const Tensor& v, const Tensor& v_first, const Tensor& v_pre,
                                             Tensor& y);
// dv, dv_first and dv_pre may each be undefined: not wanted; v and v_first are needed for dv_pre alone.
MODRWKV_LAUNCHER void value_residual_backward(const Tensor& dy, const Tensor& v, const Tensor& v_first,
                                              const Tensor& v_pre, Tensor& dv, Tensor& dv_first,
                                              Tensor& dv_pre);
}  // namespace cuda

}  // namespace modrwkv
