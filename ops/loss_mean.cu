// The mean of a loss from the partial sums of its first pass.
#include "ops/loss_mean.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

// One block of 1024 threads owns everything, so that no second launch is needed. Read 8 bytes a part; two f64
// additions a part: 32768 parts are 32 a thread.
__global__ void loss_mean_kernel(const float* sums, const int32_t* counts, int64_t parts, float* mean,
                                 float* inverse_count) {
  double sum = 0, count = 0;  // counts pass 2^24, where a float would stop counting
  for (int64_t i = threadIdx.x; i < parts; i += blockDim.x) {
    sum += double(sums[i]);
    count += double(counts[i]);
  }
  sum = simt::block_sum(sum);
  count = simt::block_sum(count);
  if (threadIdx.x != 0) return;
  mean[0] = count > 0 ? float(sum / count) : 0.0f;
  inverse_count[0] = count > 0 ? float(1 / count) : 0.0f;
}

}  // namespace

void loss_mean(const Tensor& sums, const Tensor& counts, Tensor& mean, Tensor& inverse_count) {
  simt::launch<loss_mean_kernel>({1, 1024, 0, current_stream()}, sums.data<float>(), counts.data<int32_t>(),
                                 sums.numel(), mean.data<float>(), inverse_count.data<float>());
}

}  // namespace modrwkv::cuda
