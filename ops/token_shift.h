// Token shift: y_i = x + (before - x) * mix_i, where `before` is the row of the step before: x[t-1], and at t =
// 0 `previous`. x [B, T, C]; previous [B, C] or undefined (zeros); 1 to 6 mixes of C values, [C] or [1, 1, C]
// (RWKV-7: six in the time mix, in the order r, w, k, v, a, g, one in the channel mix); reset u8 [B, T] or
// undefined: where it is not 0, the row before that step is zero, also at t = 0. Returns one y like x a mix.
// f32, f64 (CPU), f32, bf16 (CUDA). Saves the mixes, and x and previous when the gradient of a mix is wanted.
// Gradients: x, previous, every mix.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

constexpr int kMaxMixes = 6;

std::vector<Variable> token_shift(const Variable& x, const Variable& previous,
                                  const std::vector<Variable>& mixes, const Tensor& reset = {});

namespace cuda {
MODRWKV_LAUNCHER void token_shift_forward(const Tensor& x, const Tensor& previous,
                                          const std::vector<Tensor>& mixes, const Tensor& reset,
                                          std::vector<Tensor>& y);
// Absent dy are zero. dx, dprevious and each dmix may be undefined: not wanted; x and previous are needed for
// dmix alone.
MODRWKV_LAUNCHER void token_shift_backward(const std::vector<Tensor>& dy, const Tensor& x,
                                           const Tensor& previous, const std::vector<Tensor>& mixes,
                                           const Tensor& reset, Tensor& dx, Tensor& dprevious,
                                           std::vector<Tensor>& dmixes);
}  // namespace cuda

}  // namespace modrwkv
