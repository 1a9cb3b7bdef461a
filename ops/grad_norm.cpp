// Partial sums of squares on either device, added up in double on the host.
#include "ops/grad_norm.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

constexpr int64_t kPart = 1 << 13;  // elements of a partial sum, a multiple of 64

namespace cpu {

void square_sums(const Tensor& grad, const Tensor* group_of_block, Tensor& sums) {
  const int64_t n = grad.numel();
  for_cpu_float("grad_norm", grad.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* g = grad.data<T>();
    parallel_for(sums.numel(), 8, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        T sum = 0;
        for (int64_t i = p * kPart; i < std::min(n, (p + 1) * kPart); i += 64) {
          if (group_of_block && group_of_block->data<uint8_t>()[i / 64] == 255) continue;
          for (int64_t j = i; j < std::min(n, i + 64); ++j) sum += g[j] * g[j];
        }
        sums.data<T>()[p] = sum;
      }
    });
  });
}

}  // namespace cpu
}  // namespace

double grad_norm(const Tensor& grad, const Tensor* group_of_block) {
  const int64_t n = grad.numel();
  require(group_of_block == nullptr || (group_of_block->numel() == (n + 63) / 64 && group_of_block->dtype() == DType::u8),
          "grad_norm: {} elements, groups of blocks are {}", n, group_of_block ? group_of_block->str() : "");
  Tensor sums;
  {
    const MemoryScope scope(MemoryTag::workspace);
    sums = Tensor::empty({(n + kPart - 1) / kPart}, grad.dtype(), grad.device());
  }
  if (n > 0) run(grad.device(), cpu::square_sums, cuda::square_sums, grad, group_of_block, sums);
  const Tensor here = sums.to(kCpu).to(DType::f64);
  double sum = 0;
  for (int64_t i = 0; i < here.numel(); ++i) sum += here.data<double>()[i];
  return std::sqrt(sum);
}

double clip_factor(double norm, double max_norm) { return std::min(1.0, max_norm / (norm + 1e-6)); }

}  // namespace modrwkv
