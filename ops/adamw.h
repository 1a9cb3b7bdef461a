// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over flat buffers, one pass, in place; not differentiable.
//   g = grad_scale * grad;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr * weight_decay * p + lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// the update of torch.optim.AdamW; 0 / (0 + eps) is 0 also with RWKV's eps of 1e-18.
//
// master, m, v, grad and ema: one size, a multiple of 64, f32 (f64 too on the CPU). group_of_block u8 [size /
// 64] names the group of each block of 64 elements; 255 = frozen: nothing of the block is touched. A group that
// does not exist is refused on the CPU and makes the block NaN on CUDA. weights (optional, bf16): a copy of
// master, rewritten by rounding to nearest even. ema (optional): averaged weights, ema = decay * ema + (1 -
// decay) * p. Moves 28 bytes an element in f32 (read grad, master, m, v, write the last three), 2 more with
// weights, 8 more with ema.
#pragma once
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

struct AdamWGroup {
  double lr = 0, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, weight_decay = 0;
};
constexpr int kAdamWBlock = 64, kMaxAdamWGroups = 8;

// `step` counts from 1.
void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
           const std::vector<AdamWGroup>& groups, int64_t step, double grad_scale, Tensor* weights = nullptr,
           Tensor* ema = nullptr, double ema_decay = 0);

// What the loops need of a group, computed in double on the host: in f32, 1 - 0.99f is already wrong by 1e-6.
struct AdamWRates {
  double beta1, rest1, beta2, rest2;  // rest = 1 - beta
  double eps, decay;                  // decay = lr * weight_decay
  double rate, root;                  // lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
};
struct AdamWTable {
  AdamWRates of[kMaxAdamWGroups];  // NaN where there is no group
};

namespace cuda {
MODRWKV_LAUNCHER void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad,
                            const Tensor& group_of_block, const AdamWTable& table, double grad_scale,
                            Tensor* weights, Tensor* ema, double ema_decay);
}

}  // namespace modrwkv
