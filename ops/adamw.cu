// AdamW on CUDA.
#include "ops/adamw.h"

#include <cmath>

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

struct Rates {
  float beta1, rest1, beta2, rest2, eps, decay, rate, root;
};
struct Table {
  Rates of[kMaxAdamWGroups + 1];  // the last one is NaN, for groups that do not exist
};

using Four = Pack<float, 4>;

// A thread owns four neighbours of one block of 64, so that a half-warp shares its group. Read 16 bytes an
// element (20 with an average), write 12 (2 more for bf16 weights, 4 for an average); 17 FLOPs. Bound by
// memory: 16-byte accesses, four loads under way in a thread; 256 threads use no shared memory and fill an SM
// at any register count up to 64.
__global__ void adamw_kernel(float* master, float* m, float* v, const float* grad,
                             const uint8_t* group_of_block, Table table, float grad_scale, bf16* weights,
                             float* ema, float ema_keep, float ema_rest, int64_t n) {
  const int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
  if (i >= n) return;
  const int group = group_of_block[i / kAdamWBlock];
  if (group == 255) return;
  const Rates r = table.of[min(group, kMaxAdamWGroups)];
  const Four g = simt::load_as<Four>(grad + i);
  Four p = simt::load_as<Four>(master + i), pm = simt::load_as<Four>(m + i), pv = simt::load_as<Four>(v + i);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const float gj = grad_scale * g.v[j];
    pm.v[j] = r.beta1 * pm.v[j] + r.rest1 * gj;
    pv.v[j] = r.beta2 * pv.v[j] + r.rest2 * gj * gj;
    p.v[j] -= r.decay * p.v[j] + r.rate * pm.v[j] / (sqrtf(pv.v[j]) * r.root + r.eps);
  }
  simt::store_as(master + i, p);
  simt::store_as(m + i, pm);
  simt::store_as(v + i, pv);
  if (weights) {
    Pack<bf16, 4> w;
#pragma unroll
    for (int j = 0; j < 4; ++j) w.v[j] = to_bf16(p.v[j]);
    simt::store_as(weights + i, w);
  }
  if (ema) {
    Four e = simt::load_as<Four>(ema + i);
#pragma unroll
    for (int j = 0; j < 4; ++j) e.v[j] = ema_keep * e.v[j] + ema_rest * p.v[j];
    simt::store_as(ema + i, e);
  }
}

}  // namespace

void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
           const AdamWTable& table, double grad_scale, Tensor* weights, Tensor* ema, double ema_decay) {
  const int64_t n = master.numel();
  if (n == 0) return;
  Table rates;
  for (int i = 0; i < kMaxAdamWGroups; ++i) {
    const AdamWRates& r = table.of[i];
    rates.of[i] = {float(r.beta1), float(r.rest1), float(r.beta2), float(r.rest2),
                   float(r.eps),   float(r.decay), float(r.rate),  float(r.root)};
  }
  rates.of[kMaxAdamWGroups] = {NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
  constexpr int threads = 256;
  simt::launch<adamw_kernel>({unsigned(ceil_div(n, 4 * threads)), threads, 0, current_stream()},
                             master.data<float>(), m.data<float>(), v.data<float>(), grad.data<float>(),
                             group_of_block.data<uint8_t>(), rates, float(grad_scale),
                             weights ? weights->data<bf16>() : nullptr, ema ? ema->data<float>() : nullptr,
                             float(ema_decay), float(1 - ema_decay), n);
}

}  // namespace modrwkv::cuda
