// Where the partial sums of CUDA gradients live.
#include "ops/column_sum.h"

#include <algorithm>

namespace modrwkv::cuda {

Tensor partial_sums(int64_t rows, int64_t columns, Device device) {
  const MemoryScope scope(MemoryTag::workspace);
  return Tensor::empty({std::max<int64_t>(1, (rows + kRowsPerPartial - 1) / kRowsPerPartial), columns},
                       DType::f32, device);
}

}  // namespace modrwkv::cuda
