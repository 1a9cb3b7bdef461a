// Sums the rows of a small matrix of partial sums.
#include "ops/column_sum.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

// A thread owns a column, neighbours read neighbouring addresses. Read 4 P, write 4 bytes a column.
__global__ void column_sum_kernel(const float* partial, float* out, int64_t parts, int64_t columns) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= columns) return;
  float sum = 0;
  for (int64_t p = 0; p < parts; ++p) sum += partial[p * columns + c];
  out[c] = sum;
}

}  // namespace

void column_sum(const Tensor& partial, Tensor& out) {
  const int64_t columns = partial.size(1);
  if (columns == 0) return;
  constexpr int threads = 128;
  simt::launch<column_sum_kernel>({unsigned(ceil_div(columns, threads)), threads, 0, current_stream()},
                                  partial.data<float>(), out.data<float>(), partial.size(0), columns);
}

}  // namespace modrwkv::cuda
