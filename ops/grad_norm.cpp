// Gradient norm: checks and the CPU loop.
#include "ops/grad_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

constexpr int64_t kBlock = 64;

namespace cpu {

// Parts of fixed size are added up in order, so that the sum does not depend on the thread count.
void square_sum(const Tensor& grad, const Tensor* group_of_block, Tensor& sum) {
  constexpr int64_t part = 1 << 14;
  const int64_t n = grad.numel(), parts = (n + part - 1) / part;
  std::vector<double> sums(size_t(parts), 0.0);
  for_cpu_float("grad_norm", grad.dtype(), [&](auto t) {
    using T = decltype(t);
    const T* g = grad.data<T>();
    parallel_for(parts, 2, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        double total = 0;
        for (int64_t i = p * part; i < std::min(n, (p + 1) * part); i += kBlock) {
          if (group_of_block && group_of_block->data<uint8_t>()[i / kBlock] == 255) continue;
          const int64_t last = std::min(n, i + kBlock);
          for (int64_t j = i; j < last; ++j) total += double(g[j]) * double(g[j]);
        }
        sums[size_t(p)] = total;
      }
    });
  });
  double total = 0;
  for (const double s : sums) total += s;
  sum.data<double>()[0] = total;
}

}  // namespace cpu
}  // namespace

double grad_norm(const Tensor& grad, const Tensor* group_of_block) {
  const int64_t blocks = (grad.numel() + kBlock - 1) / kBlock;
  require(
      group_of_block == nullptr || (group_of_block->numel() == blocks && group_of_block->dtype() == DType::u8 &&
                                    group_of_block->device() == grad.device()),
      "grad_norm: gradient is {}, groups of its blocks of {} are {}, expected u8 [{}]", grad.str(), kBlock,
      group_of_block ? group_of_block->str() : "", blocks);
  require(!grad.device().is_cuda() || reinterpret_cast<uintptr_t>(grad.raw()) % 16 == 0,
          "grad_norm: gradient {} does not start on a 16-byte border", grad.str());
  Tensor sum;
  {
    const MemoryScope scope(MemoryTag::workspace);
    sum = Tensor::empty({1}, DType::f64, grad.device());
  }
  run(grad.device(), cpu::square_sum, cuda::square_sum, grad, group_of_block, sum);
  return std::sqrt(sum.to_vector<double>()[0]);
}

double clip_factor(double norm, double max_norm) {
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1 ? 1 : factor;
}

}  // namespace modrwkv
