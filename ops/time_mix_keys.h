// The keys of RWKV-7's recurrence (spec section 1.2). With a = sigmoid(a_pre), z = k0 * k_k and, for each head
// of N = C / heads channels, kk = z / max(|z|, 1e-12):
//   k = k0 * (1 + (a - 1) * k_a),   a_vec = -kk,   b_vec = kk * a.
// k0, a_pre [.., C]; k_k, k_a: C values, [C] or [1, 1, C]. Returns {k, a_vec, b_vec} like k0. f32, f64 (CPU),
// f32, bf16 (CUDA, heads of up to 4096 channels). Saves the inputs and |z| [rows * heads] in fp32 (f64 for
// f64). Gradients: all four inputs; a head with |z| < 1e-12 has dz = dkk / 1e-12. In fp32 the squares of |z| >
// 1e19 overflow and kk is zero.
#pragma once
#include "autograd/variable.h"

namespace modrwkv {

std::vector<Variable> time_mix_keys(const Variable& k0, const Variable& a_pre, const Variable& k_k,
                                    const Variable& k_a, int64_t heads);

namespace cuda {
MODRWKV_LAUNCHER void time_mix_keys_forward(const Tensor& k0, const Tensor& a_pre, const Tensor& k_k,
                                            const Tensor& k_a, int64_t heads, Tensor& k, Tensor& a_vec,
                                            Tensor& b_vec, Tensor& norm);
// dk0, da_pre, dk_k and dk_a may each be undefined: not wanted.
MODRWKV_LAUNCHER void time_mix_keys_backward(const Tensor& dk, const Tensor& da_vec, const Tensor& db_vec,
                                             const Tensor& k0, const Tensor& a_pre, const Tensor& k_k,
                                             const Tensor& k_a, int64_t heads, const Tensor& norm, Tensor& dk0,
                                             Tensor& da_pre, Tensor& dk_k, Tensor& dk_a);
}  // namespace cuda

}  // namespace modrwkv
