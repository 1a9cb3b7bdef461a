// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over flat buffers, one pass, in place; not differentiable.
//   p -= lr * weight_decay * p;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   p -= lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps),   g = grad_scale * grad
// master, m, v, grad (and ema): one size, a multiple of 64, f32 (f64 too on the CPU). group_of_block u8 [size / 64] names the
// group of each block of 64 elements; 255 = frozen, left alone. weights: an optional bf16 copy of master, rewritten by rounding
// to nearest even. ema: optional averaged weights, ema = decay * ema + (1 - decay) * p, of all but frozen blocks.
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
           const std::vector<AdamWGroup>& groups, int64_t step, double grad_scale, Tensor* weights, Tensor* ema,
           double ema_decay);

// A group with its bias corrections, computed in double on the host.
struct AdamWRates {
  double beta1, beta2, eps, decay;  // decay = 1 - lr * weight_decay
  double rate;                      // lr / (1 - beta1^t)
  double root;                      // 1 / sqrt(1 - beta2^t)
};
struct AdamWTable {
  AdamWRates of[kMaxAdamWGroups];
};

namespace cuda {
MODRWKV_LAUNCHER void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
                            const AdamWTable& table, double grad_scale, Tensor* weights, Tensor* ema, double ema_decay);
}

}  // namespace modrwkv
