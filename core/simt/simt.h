// How kernels are written here. A .cu file includes this header, spells its kernels once and is compiled twice:
// by nvcc for the GPU and, with -DSIMT_EMULATED, by the host compiler, where the kernels run on fibers
// (emulator.h).
//
//   __global__ void axpy(int64_t n, float a, const float* x, float* y) {
//     const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
//     if (i < n) y[i] += a * x[i];
//   }
//   simt::launch<axpy>({simt::blocks(n, 256), 256, 0, stream}, n, a, x, y);
//
// Shared memory: auto& s = simt::shared<Struct>();  T* p = simt::dynamic_shared<T>();  Two calls with the same
// type (and Tag) in one kernel are the same memory. One barrier a source line. Streams are always named.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/bf16.h"
#include "core/cuda/runtime.h"

namespace simt::detail {
// The maximum in which NaN wins, unlike in fmaxf: a poisoned or diverged value must not vanish.
template <class T>
MODRWKV_HD constexpr T larger(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (b != b) return b;
  }
  return a < b ? b : a;
}
}  // namespace simt::detail

#if defined(__CUDACC__)
#include "core/simt/nvidia.h"
#elif defined(SIMT_EMULATED)
#include "core/simt/emulated.h"
#else
#error "core/simt/simt.h: compile this file with nvcc, or with -DSIMT_EMULATED for the emulator"
#endif

namespace simt {

using modrwkv::bf16;
using modrwkv::from_float;
using modrwkv::to_bf16;
using modrwkv::to_float;

// Blocks of `per_block` items that cover n items.
inline unsigned blocks(int64_t n, int64_t per_block) { return unsigned((n + per_block - 1) / per_block); }

// N elements moved by one access: load_as<vec<bf16, 8>>(p) is one 16-byte load.
template <class T, int N>
struct alignas(sizeof(T) * N) vec {
  T v[N];
  __host__ __device__ T& operator[](int i) { return v[i]; }
  __host__ __device__ const T& operator[](int i) const { return v[i]; }
};

__device__ inline int thread_rank() {  // in the block
  return int((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
}
__device__ inline int lane() { return thread_rank() % 32; }

namespace detail {
constexpr int kReductionTag = -1;

template <class T, class Combine>
__device__ T block_reduce(T v, T neutral, Combine warp_reduce SIMT_AT) {
  const int warps = int(blockDim.x * blockDim.y * blockDim.z) / 32;
  v = warp_reduce(v SIMT_HERE_STEP(0));
  if (warps == 1) return v;
  auto& partial = shared<T[32], kReductionTag>();
  const int rank = thread_rank();
  if (rank % 32 == 0) partial[rank / 32] = v;
  __syncthreads(SIMT_ONLY_HERE_STEP(1));
  v = warp_reduce(rank % 32 < warps ? partial[rank % 32] : neutral SIMT_HERE_STEP(2));
  __syncthreads(SIMT_ONLY_HERE_STEP(3));  // before the next reduction writes its partials
  return v;
}

struct WarpSum {
  template <class T>
  __device__ T operator()(T v SIMT_AT) const {
    return warp_sum(v SIMT_HERE);
  }
};
struct WarpMax {
  template <class T>
  __device__ T operator()(T v SIMT_AT) const {
    return warp_max(v SIMT_HERE);
  }
};
}  // namespace detail

// Over all threads of the block, the result in every thread. The block has a multiple of 32 threads, all of
// which call. The order of additions depends on the block size alone.
template <class T>
__device__ T block_sum(T v SIMT_AT) {
  return detail::block_reduce(
      v, T(0), detail::WarpSum {} SIMT_HERE);
}
template <class T>
__device__ T block_max(T v SIMT_AT) {
  return detail::block_reduce(
      v, v, detail::WarpMax {} SIMT_HERE);
}

}  // namespace simt
