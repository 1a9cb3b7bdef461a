// The bias gradient of linear and conv1d on CUDA.
#include "ops/linear.h"

#include "ops/column_sum.h"
#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

// First pass: a thread owns one column of kRowsPerPartial rows. Read one element, write 4 / kRowsPerPartial
// bytes an element.
template <class T>
__global__ void bias_gradient_kernel(const T* dy, float* partial, int64_t rows, int64_t columns) {
  const int64_t c = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (c >= columns) return;
  const int64_t begin = blockIdx.y * kRowsPerPartial, end = min(begin + kRowsPerPartial, rows);
  float sum = 0;
  for (int64_t r = begin; r < end; ++r) sum += to_float(dy[r * columns + c]);
  partial[blockIdx.y * columns + c] = sum;
}

}  // namespace

void bias_gradient(const Tensor& dy, Tensor& db) {
  const int64_t columns = db.numel();
  if (columns == 0) return;
  const int64_t rows = dy.numel() / columns;
  Tensor partial = partial_sums(rows, columns, dy.device());
  for_cuda_float("linear: bias", dy.dtype(), [&](auto t) {
    using T = decltype(t);
    const dim3 grid(unsigned(ceil_div(columns, 128)), unsigned(partial.size(0)));
    simt::launch<bias_gradient_kernel<T>>({grid, 128, 0, current_stream()}, dy.data<T>(), partial.data<float>(),
                                          rows, columns);
  });
  column_sum(partial, db);
}

}  // namespace modrwkv::cuda
