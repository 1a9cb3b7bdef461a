// Second pass of every gradient that is summed over rows on CUDA: out[c] = sum over p of partial[p, c], in
// order of p, so that the result does not depend on timing.
#pragma once
#include "core/tensor.h"

namespace modrwkv::cuda {

constexpr int64_t kRowsPerPartial = 64;  // rows that one block of a first pass walks over

// Uninitialised [parts, columns] f32 for a first pass over `rows` rows.
Tensor partial_sums(int64_t rows, int64_t columns, Device device);

MODRWKV_LAUNCHER void column_sum(const Tensor& partial,
                                 Tensor& out);  // partial [P, C] f32, out: C elements, f32

}  // namespace modrwkv::cuda
