// AdamW: checks, bias corrections and the CPU loop.
#include "ops/adamw.h"

#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block, const AdamWTable& table,
           double grad_scale, Tensor* weights, Tensor* ema, double ema_decay) {
  require(weights == nullptr, "adamw: bf16 weights on the CPU");
  for_cpu_float("adamw", master.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(group_of_block.numel(), 256, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const uint8_t group = group_of_block.data<uint8_t>()[block];
        if (group == 255) continue;
        const AdamWRates& r = table.of[group];
        const T b1 = T(r.beta1), b2 = T(r.beta2), eps = T(r.eps), decay = T(r.decay), rate = T(r.rate), root = T(r.root);
        T* p = master.data<T>() + block * kAdamWBlock;
        T* pm = m.data<T>() + block * kAdamWBlock;
        T* pv = v.data<T>() + block * kAdamWBlock;
        const T* pg = grad.data<T>() + block * kAdamWBlock;
        for (int i = 0; i < kAdamWBlock; ++i) {
          const T g = T(grad_scale) * pg[i];
          pm[i] = b1 * pm[i] + (1 - b1) * g;
          pv[i] = b2 * pv[i] + (1 - b2) * g * g;
          p[i] = decay * p[i] - rate * pm[i] / (std::sqrt(pv[i]) * root + eps);
        }
        if (ema == nullptr) continue;
        T* pe = ema->data<T>() + block * kAdamWBlock;
        for (int i = 0; i < kAdamWBlock; ++i) pe[i] = T(ema_decay) * pe[i] + (1 - T(ema_decay)) * p[i];
      }
    });
  });
}

}  // namespace cpu
}  // namespace

void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
           const std::vector<AdamWGroup>& groups, int64_t step, double grad_scale, Tensor* weights, Tensor* ema,
           double ema_decay) {
  const int64_t n = master.numel();
  require(n % kAdamWBlock == 0 && group_of_block.numel() * kAdamWBlock == n && group_of_block.dtype() == DType::u8,
          "adamw: {} elements in blocks of {}, groups of blocks are {}", n, kAdamWBlock, group_of_block.str());
  require(step >= 1 && !groups.empty() && groups.size() <= size_t(kMaxAdamWGroups), "adamw: step {} with {} groups", step,
          groups.size());
  const char* names[] = {"m", "v", "grad", "ema"};
  const Tensor* buffers[] = {&m, &v, &grad, ema};
  for (int i = 0; i < 4; ++i) {
    require(buffers[i] == nullptr || (buffers[i]->numel() == n && buffers[i]->dtype() == master.dtype() &&
                                      buffers[i]->device() == master.device()),
            "adamw: master is {}, {} is {}", master.str(), names[i], buffers[i] ? buffers[i]->str() : "");
  }
  require(weights == nullptr || (weights->numel() == n && weights->dtype() == DType::bf16 && weights->device() == master.device()),
          "adamw: master is {}, weights are {}", master.str(), weights ? weights->str() : "");
  AdamWTable table{};
  for (size_t i = 0; i < groups.size(); ++i) {
    const AdamWGroup& g = groups[i];
    const double t = double(step);
    table.of[i] = {g.beta1, g.beta2, g.eps, 1 - g.lr * g.weight_decay, g.lr / (1 - std::pow(g.beta1, t)),
                   1 / std::sqrt(1 - std::pow(g.beta2, t))};
  }
  run(master.device(), cpu::adamw, cuda::adamw, master, m, v, grad, group_of_block, table, grad_scale, weights, ema, ema_decay);
}

}  // namespace modrwkv
