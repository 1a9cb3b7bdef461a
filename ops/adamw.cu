// AdamW on CUDA.
#include "ops/adamw.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

struct Rates {
  float beta1, beta2, eps, decay, rate, root;
};
struct Table {
  Rates of[kMaxAdamWGroups];
};

// A thread owns an element; 64 neighbours share a group, so that warps do not diverge. Read 16 (20 with an average) and write
// 12 (16, and 2 for bf16 weights) bytes, 14 FLOPs an element. 256 threads: four blocks of elements, bound by memory.
__global__ void adamw_kernel(float* master, float* m, float* v, const float* grad, const uint8_t* group_of_block, Table table,
                             float grad_scale, bf16* weights, float* ema, float ema_decay, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const uint8_t group = group_of_block[i / kAdamWBlock];
  if (group == 255) return;
  const Rates r = table.of[group];
  const float g = grad_scale * grad[i];
  const float mi = r.beta1 * m[i] + (1 - r.beta1) * g;
  const float vi = r.beta2 * v[i] + (1 - r.beta2) * g * g;
  const float p = r.decay * master[i] - r.rate * mi / (sqrtf(vi) * r.root + r.eps);
  m[i] = mi;
  v[i] = vi;
  master[i] = p;
  if (weights) weights[i] = to_bf16(p);
  if (ema) ema[i] = ema_decay * ema[i] + (1 - ema_decay) * p;
}

}  // namespace

void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block, const AdamWTable& table,
           double grad_scale, Tensor* weights, Tensor* ema, double ema_decay) {
  const int64_t n = master.numel();
  if (n == 0) return;
  Table rates;
  for (int i = 0; i < kMaxAdamWGroups; ++i) {
    const AdamWRates& r = table.of[i];
    rates.of[i] = {float(r.beta1), float(r.beta2), float(r.eps), float(r.decay), float(r.rate), float(r.root)};
  }
  constexpr int threads = 256;
  simt::launch<adamw_kernel>({unsigned(ceil_div(n, threads)), threads, 0, current_stream()}, master.data<float>(), m.data<float>(),
                             v.data<float>(), grad.data<float>(), group_of_block.data<uint8_t>(), rates, float(grad_scale),
                             weights ? weights->data<bf16>() : nullptr, ema ? ema->data<float>() : nullptr, float(ema_decay), n);
}

}  // namespace modrwkv::cuda
