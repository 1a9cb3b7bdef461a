// AdamW: checks, bias corrections and the CPU loop.
#include "ops/adamw.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

// A thread owns blocks of 64 elements.
void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
           const AdamWTable& table, double grad_scale, Tensor* weights, Tensor* ema, double ema_decay) {
  for_cpu_float("adamw", master.dtype(), [&](auto t) {
    using T = decltype(t);
    parallel_for(group_of_block.numel(), 64, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const uint8_t group = group_of_block.data<uint8_t>()[block];
        if (group == 255) continue;
        const AdamWRates& r = table.of[group];
        const T b1 = T(r.beta1), rest1 = T(r.rest1), b2 = T(r.beta2), rest2 = T(r.rest2);
        const T eps = T(r.eps), decay = T(r.decay), rate = T(r.rate), root = T(r.root), scale = T(grad_scale);
        const int64_t first = block * kAdamWBlock;
        T* p = master.data<T>() + first;
        T* pm = m.data<T>() + first;
        T* pv = v.data<T>() + first;
        const T* pg = grad.data<T>() + first;
        for (int i = 0; i < kAdamWBlock; ++i) {
          const T g = scale * pg[i];
          pm[i] = b1 * pm[i] + rest1 * g;
          pv[i] = b2 * pv[i] + rest2 * g * g;
          p[i] -= decay * p[i] + rate * pm[i] / (std::sqrt(pv[i]) * root + eps);
        }
        if (ema) {
          T* pe = ema->data<T>() + first;
          const T keep = T(ema_decay), rest = T(1 - ema_decay);
          for (int i = 0; i < kAdamWBlock; ++i) pe[i] = keep * pe[i] + rest * p[i];
        }
        if (weights) {
          bf16* pw = weights->data<bf16>() + first;
          for (int i = 0; i < kAdamWBlock; ++i) pw[i] = to_bf16(float(p[i]));
        }
      }
    });
  });
}

}  // namespace cpu

bool aligned16(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0; }

}  // namespace

void adamw(Tensor& master, Tensor& m, Tensor& v, const Tensor& grad, const Tensor& group_of_block,
           const std::vector<AdamWGroup>& groups, int64_t step, double grad_scale, Tensor* weights, Tensor* ema,
           double ema_decay) {
  const int64_t n = master.numel();
  const char* names[] = {"m", "v", "grad", "ema", "master"};
  const Tensor* buffers[] = {&m, &v, &grad, ema, &master};
  for (int i = 0; i < 5; ++i) {
    require(buffers[i] == nullptr || (buffers[i]->numel() == n && buffers[i]->dtype() == master.dtype() &&
                                      buffers[i]->device() == master.device()),
            "adamw: master is {}, {} is {}", master.str(), names[i], buffers[i] ? buffers[i]->str() : "");
    require(buffers[i] == nullptr || !master.device().is_cuda() || aligned16(*buffers[i]),
            "adamw: {} does not start on a 16-byte border", names[i]);
  }
  require(weights == nullptr || (weights->numel() == n && weights->dtype() == DType::bf16 &&
                                 weights->device() == master.device() && aligned16(*weights)),
          "adamw: master is {}, weights are {}, expected bf16 of the same size on a 16-byte border",
          master.str(), weights ? weights->str() : "");
  require(n % kAdamWBlock == 0 && group_of_block.numel() * kAdamWBlock == n &&
              group_of_block.dtype() == DType::u8 && group_of_block.device() == master.device(),
          "adamw: master is {}, groups of its blocks of {} are {}, expected u8 [{}]", master.str(), kAdamWBlock,
          group_of_block.str(), n / kAdamWBlock);
  require(step >= 1, "adamw: step {}, the first one is 1", step);
  require(!groups.empty() && groups.size() <= size_t(kMaxAdamWGroups), "adamw: {} groups, expected 1 to {}",
          groups.size(), kMaxAdamWGroups);
  if (!master.device().is_cuda()) {
    const uint8_t* group = group_of_block.data<uint8_t>();
    for (int64_t i = 0; i < n / kAdamWBlock; ++i) {
      require(group[i] == 255 || group[i] < groups.size(), "adamw: block {} is in group {}, there are {}", i,
              group[i], groups.size());
    }
  }
  AdamWTable table;
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  for (AdamWRates& r : table.of) r = {nan, nan, nan, nan, nan, nan, nan, nan};
  for (size_t i = 0; i < groups.size(); ++i) {
    const AdamWGroup& g = groups[i];
    const double t = double(step);
    table.of[i] = {g.beta1,
                   1 - g.beta1,
                   g.beta2,
                   1 - g.beta2,
                   g.eps,
                   g.lr * g.weight_decay,
                   g.lr / (1 - std::pow(g.beta1, t)),
                   1 / std::sqrt(1 - std::pow(g.beta2, t))};
  }
  run(master.device(), cpu::adamw, cuda::adamw, master, m, v, grad, group_of_block, table, grad_scale, weights,
      ema, ema_decay);
}

}  // namespace modrwkv
