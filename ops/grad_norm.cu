// Partial sums of squares on CUDA.
#include "ops/grad_norm.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;

// A block owns one equal part of the buffer and leaves its sum of squares. Read 4 bytes, 2 FLOPs an element.
__global__ void square_sums_kernel(const float* grad, const uint8_t* group_of_block, float* sums, int64_t n, int64_t part) {
  const int64_t begin = int64_t(blockIdx.x) * part, end = min(n, begin + part);
  float sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    if (group_of_block && group_of_block[i / 64] == 255) continue;
    sum += grad[i] * grad[i];
  }
  sum = simt::block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace

void square_sums(const Tensor& grad, const Tensor* group_of_block, Tensor& sums) {
  const int64_t n = grad.numel(), parts = sums.numel();
  simt::launch<square_sums_kernel>({unsigned(parts), kThreads, 0, current_stream()}, grad.data<float>(),
                                   group_of_block ? group_of_block->data<uint8_t>() : nullptr, sums.data<float>(), n,
                                   ceil_div(n, parts));
}

}  // namespace modrwkv::cuda
