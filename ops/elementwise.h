// Element-wise arithmetic on tensors of one shape: f32, f64 (CPU), f32, bf16 (CUDA). Gradients for every input.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable add(const Variable& a, const Variable& b);  // a + b; saves nothing
Variable mul(const Variable& a, const Variable& b);  // a * b; saves both
Variable scale(const Variable& x, double factor);    // factor * x
Variable reshape(const Variable& x, const Shape& shape);

namespace cuda {
MODRWKV_LAUNCHER void add(const Tensor& a, const Tensor& b, Tensor& y);
MODRWKV_LAUNCHER void mul(const Tensor& a, const Tensor& b, Tensor& y);
MODRWKV_LAUNCHER void scale(const Tensor& x, double factor, Tensor& y);
}  // namespace cuda

}  // namespace modrwkv
