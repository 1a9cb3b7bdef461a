// Second pass of every loss on CUDA: from sums and counts of the parts of a first pass to the mean.
#pragma once
#include "core/tensor.h"

namespace modrwkv::cuda {

// mean[0] = sum(sums) / sum(counts), inverse_count[0] = 1 / sum(counts), both 0 where nothing is counted. sums
// f32 [P], counts i32 [P] on CUDA, the results f32. Added up in f64 by one block, in an order that depends on P
// alone.
MODRWKV_LAUNCHER void loss_mean(const Tensor& sums, const Tensor& counts, Tensor& mean, Tensor& inverse_count);

}  // namespace modrwkv::cuda
