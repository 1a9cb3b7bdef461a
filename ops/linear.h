// y = x W^T + b, and y = x W for matrices stored [in, out] (RWKV-7's low-rank pairs).
// x [.., in] -> y [.., out]; bias [out] optional. f32, f64 (CPU), f32, bf16 (CUDA); fp32 accumulation. Saves x
// and W. Gradients: x, W, bias. The products are the vendor's GEMM; the bias is added in its epilogue.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

enum class WeightLayout { out_in, in_out };

Variable linear(const Variable& x, const Variable& weight, const Variable& bias = Variable(),
                WeightLayout layout = WeightLayout::out_in);

// Gradient of a bias: sum over the rows of dy [.., C] -> db [C]. Also used by conv1d.
void bias_gradient(const Tensor& dy, Tensor& db);

namespace cuda {
MODRWKV_LAUNCHER void bias_gradient(const Tensor& dy, Tensor& db);
}

}  // namespace modrwkv
