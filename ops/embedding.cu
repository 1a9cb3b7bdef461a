// Embedding on CUDA.
#include "ops/embedding.h"

#include "ops/kernel_util.h"

namespace modrwkv::cuda {
namespace {

constexpr int kShares = 64;     // parts of the vocabulary, by id mod kShares
constexpr int kChannels = 128;  // channels of a backward block

// A thread owns W neighbouring channels of one token, W = 16 bytes where the rows allow. Read an id (from
// cache) and one element, write one; no FLOPs. 256 threads: nothing is shared, any size fills an SM.
template <class T, int W>
__global__ void embedding_forward_kernel(const T* weight, const int32_t* ids, T* y, int64_t tokens, int64_t V,
                                         int64_t C) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, packs = C / W;
  if (i >= tokens * packs) return;
  const int64_t token = i / packs, c = (i % packs) * W;
  const int64_t id = ids[token];
  Pack<T, W> row;
  if (id >= 0 && id < V) {
    row = simt::load_as<Pack<T, W>>(weight + id * C + c);
  } else {
#pragma unroll
    for (int j = 0; j < W; ++j) row.v[j] = from_float<T>(NAN);
  }
  simt::store_as<Pack<T, W>>(y + token * C + c, row);
}

// A block owns kChannels channels (one a thread) of the vocabulary rows with id mod kShares == blockIdx.y, and
// walks over all tokens in order: no two threads add to one element. dweight holds zeros before. A warp reads
// 32 ids at once and votes for its own, so that ids of other shares cost next to nothing. An element of dy is
// read once, 8 bytes of dweight are moved for it, 1 FLOP; ids: 4 bytes a token and warp, from cache. The chain
// of dependent read-modify-writes is tokens / kShares long where ids are spread, all tokens long where they are
// equal.
template <class T>
__global__ void embedding_backward_kernel(const T* dy, const int32_t* ids, float* dweight, int64_t tokens,
                                          int64_t V, int64_t C) {
  const int64_t c = int64_t(blockIdx.x) * kChannels + threadIdx.x;
  for (int64_t first = 0; first < tokens; first += 32) {
    const int64_t t = first + threadIdx.x % 32;
    const int id = t < tokens ? ids[t] : -1;
    unsigned mine = __ballot_sync(0xffffffffu, id >= 0 && id < V && id % kShares == int(blockIdx.y));
    for (; mine != 0; mine &= mine - 1) {  // the same bits in all lanes
      const int next = __ffs(int(mine)) - 1;
      const int64_t row = __shfl_sync(0xffffffffu, id, next);
      if (c < C) dweight[row * C + c] += to_float(dy[(first + next) * C + c]);
    }
  }
}

}  // namespace

void embedding_forward(const Tensor& weight, const Tensor& ids, Tensor& y) {
  const int64_t V = weight.size(0), C = weight.size(1), tokens = ids.numel();
  if (y.numel() == 0) return;
  constexpr int threads = 256;
  for_cuda_float("embedding", weight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    constexpr int W = 16 / sizeof(T);
    const bool wide = C % W == 0 && aligned16(weight.raw()) && aligned16(y.raw());
    const unsigned grid = unsigned(ceil_div(tokens * (wide ? C / W : C), threads));
    if (wide) {
      simt::launch<embedding_forward_kernel<T, W>>({grid, threads, 0, current_stream()}, weight.data<T>(),
                                                   ids.data<int32_t>(), y.data<T>(), tokens, V, C);
    } else {
      simt::launch<embedding_forward_kernel<T, 1>>({grid, threads, 0, current_stream()}, weight.data<T>(),
                                                   ids.data<int32_t>(), y.data<T>(), tokens, V, C);
    }
  });
}

void embedding_backward(const Tensor& dy, const Tensor& ids, Tensor& dweight) {
  const int64_t V = dweight.size(0), C = dweight.size(1), tokens = ids.numel();
  dweight.fill_bytes(0);
  if (tokens == 0 || dweight.numel() == 0) return;
  for_cuda_float("embedding", dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const dim3 grid(unsigned(ceil_div(C, kChannels)), kShares);
    simt::launch<embedding_backward_kernel<T>>({grid, kChannels, 0, current_stream()}, dy.data<T>(),
                                               ids.data<int32_t>(), dweight.data<float>(), tokens, V, C);
  });
}

}  // namespace modrwkv::cuda
