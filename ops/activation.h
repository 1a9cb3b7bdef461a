// Activations, element by element on any shape: f32, f64 (CPU), f32, bf16 (CUDA, fp32 inside).
// NaN passes through.
//
//   relu          max(x, 0)                       saves y, which the layer behind it saves anyway
//   relu_squared  max(x, 0)^2                     saves y;  dx = 2 sqrt(y) dy
//   sigmoid       1 / (1 + exp(-x))               saves y;  dx = y (1 - y) dy
//   tanh                                          saves y;  dx = (1 - y^2) dy
//   silu          x sigmoid(x)                    saves x
//   gated_tanh    tanh(filter) sigmoid(gate)      saves both inputs (the unit of WaveNet)
//
// Where y is bf16, the gradients of relu_squared, sigmoid and tanh carry its rounding.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

Variable relu(const Variable& x);
Variable relu_squared(const Variable& x);
Variable sigmoid(const Variable& x);
Variable tanh(const Variable& x);
Variable silu(const Variable& x);
Variable gated_tanh(const Variable& filter, const Variable& gate);

enum class Activation { relu, relu_squared, sigmoid, tanh, silu };

namespace cuda {
MODRWKV_LAUNCHER void activation_forward(Activation kind, const Tensor& x, Tensor& y);
MODRWKV_LAUNCHER void activation_backward(Activation kind, const Tensor& dy, const Tensor& saved, Tensor& dx);
MODRWKV_LAUNCHER void gated_tanh_forward(const Tensor& filter, const Tensor& gate, Tensor& y);
// dfilter and dgate may each be undefined: not wanted.
MODRWKV_LAUNCHER void gated_tanh_backward(const Tensor& dy, const Tensor& filter, const Tensor& gate,
                                          Tensor& dfilter, Tensor& dgate);
}  // namespace cuda

}  // namespace modrwkv
