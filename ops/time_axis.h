// Pieces of the time axis. f32, f64 (CPU), f32, bf16 (CUDA). Nothing is saved; gradients: every input.
//
//   concat_time   joins inputs [B, Ti, C] to [B, sum Ti, C]
//   slice_time    x[:, begin:end, :] of x [B, T, C]; its gradient is zero outside, written in one pass
#pragma once
#include <vector>

#include "autograd/variable.h"

namespace modrwkv {

Variable concat_time(const std::vector<Variable>& inputs);
Variable slice_time(const Variable& x, int64_t begin, int64_t end);

namespace cuda {
// Steps [begin, end) of `to`: to[:, t] = from[:, t - offset], zero where `from` has no such step.
MODRWKV_LAUNCHER void copy_time(const Tensor& from, int64_t offset, Tensor& to, int64_t begin, int64_t end);
}  // namespace cuda

}  // namespace modrwkv
