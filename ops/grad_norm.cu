// Gradient norm on CUDA: sums of squares of equal parts, then their sum.
#include "ops/grad_norm.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256, kPerThread = 32;
constexpr int64_t kPart = kThreads * kPerThread;  // elements of a block's sum
using Four = Pack<float, 4>;

// A block owns kPart elements and leaves their sum of squares; a thread takes four neighbours at a time, which
// lie in one block of 64. Read 4 bytes, 2 FLOPs an element: f64 arithmetic cannot overflow on f32 values and is
// still faster than the memory where f64 runs at 1/64 of f32. 8 loads of 16 bytes a thread hide their latency
// behind each other.
__global__ void square_sums_kernel(const float* grad, const uint8_t* group_of_block, double* sums, int64_t n) {
  const int64_t first = blockIdx.x * kPart;
  double sum = 0;
#pragma unroll
  for (int k = 0; k < kPerThread / 4; ++k) {
    const int64_t i = first + (int64_t(k) * kThreads + threadIdx.x) * 4;
    if (i >= n || (group_of_block && group_of_block[i / 64] == 255)) continue;
    if (i + 4 <= n) {
      const Four g = simt::load_as<Four>(grad + i);
#pragma unroll
      for (int j = 0; j < 4; ++j) sum += double(g.v[j]) * double(g.v[j]);
    } else {
      for (int64_t j = i; j < n; ++j) sum += double(grad[j]) * double(grad[j]);
    }
  }
  sum = simt::block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block owns all parts: a launch of its own instead of "the last block adds up". Read 8 bytes a part.
__global__ void total_kernel(const double* sums, int64_t parts, double* total) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < parts; i += blockDim.x) sum += sums[i];
  sum = simt::block_sum(sum);
  if (threadIdx.x == 0) total[0] = sum;
}

}  // namespace

void square_sum(const Tensor& grad, const Tensor* group_of_block, Tensor& sum) {
  const int64_t n = grad.numel(), parts = ceil_div(n, kPart);
  const MemoryScope scope(MemoryTag::workspace);
  Tensor sums = Tensor::empty({parts}, DType::f64, grad.device());
  if (parts > 0) {
    simt::launch<square_sums_kernel>({unsigned(parts), kThreads, 0, current_stream()}, grad.data<float>(),
                                     group_of_block ? group_of_block->data<uint8_t>() : nullptr,
                                     sums.data<double>(), n);
  }
  simt::launch<total_kernel>({1, 1024, 0, current_stream()}, sums.data<double>(), parts, sum.data<double>());
}

}  // namespace modrwkv::cuda
