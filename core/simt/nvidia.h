// The half of simt.h that nvcc sees: launches checked, Ampere instructions as inline PTX. Included by simt.h
// only.
#pragma once
#include <cuda_runtime.h>

#include "core/error.h"

// A device function that contains a barrier or a warp collective takes SIMT_AT behind its last parameter and
// passes SIMT_HERE on, so that the emulator can name the caller's line. On the GPU both are nothing.
#define SIMT_AT
#define SIMT_HERE
#define SIMT_HERE_STEP(n)
#define SIMT_ONLY_HERE_STEP(n)

#include "core/simt/dims.h"

namespace simt {
namespace detail {

// "… [with auto K = name<T>; …]"
inline std::string kernel_name(const char* function) {
  std::string text = function;
  const size_t begin = text.find("K = ");
  if (begin != std::string::npos) text = text.substr(begin + 4);
  text = text.substr(0, text.find_first_of(";]"));
  const size_t hidden = text.find("_GLOBAL__N_");  // nvcc's name of an unnamed namespace
  if (hidden != std::string::npos)
    text.replace(hidden, text.find("::", hidden) - hidden, "(anonymous namespace)");
  return text;
}

inline void check_launch(cudaError_t error, const char* function, const dims& d) {
  if (error == cudaSuccess) return;
  throw modrwkv::Error("kernel " + kernel_name(function) + ": " + cudaGetErrorString(error) + " (grid " +
                       std::to_string(d.grid.x) + "x" + std::to_string(d.grid.y) + "x" +
                       std::to_string(d.grid.z) + ", block " + std::to_string(d.block.x) + "x" +
                       std::to_string(d.block.y) + "x" + std::to_string(d.block.z) + ", " +
                       std::to_string(d.smem) + " bytes of shared memory)");
}

// A word of the given size: an access through it is one instruction.
template <size_t Bytes>
struct word;
template <>
struct word<2> {
  using type = unsigned short;
};
template <>
struct word<4> {
  using type = unsigned;
};
template <>
struct word<8> {
  using type = uint2;
};
template <>
struct word<16> {
  using type = uint4;
};

}  // namespace detail

template <auto K, class... A>
void launch(const dims& d, const A&... a) {
  if (d.stream == nullptr) {
    throw modrwkv::Error("kernel " + detail::kernel_name(__PRETTY_FUNCTION__) +
                         ": launched on the null stream");
  }
  if (d.smem > 48 * 1024) {
    detail::check_launch(cudaFuncSetAttribute(K, cudaFuncAttributeMaxDynamicSharedMemorySize, int(d.smem)),
                         __PRETTY_FUNCTION__, d);
  }
  K<<<d.grid, d.block, d.smem, reinterpret_cast<cudaStream_t>(d.stream)>>>(a...);
  detail::check_launch(cudaGetLastError(), __PRETTY_FUNCTION__, d);
}

template <class T, int Tag = 0>
__device__ __forceinline__ T& shared() {
  __shared__ T object;
  return object;
}

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char simt_dynamic_shared[];
  return reinterpret_cast<T*>(simt_dynamic_shared);
}

template <class V, class T>
__device__ __forceinline__ V load_as(const T* p) {
  const auto word = *reinterpret_cast<const typename detail::word<sizeof(V)>::type*>(p);
  V v;
  memcpy(&v, &word, sizeof v);
  return v;
}

template <class V, class T>
__device__ __forceinline__ void store_as(T* p, const V& v) {
  typename detail::word<sizeof(V)>::type word;
  memcpy(&word, &v, sizeof v);
  *reinterpret_cast<decltype(word)*>(p) = word;
}

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
  return v;
}

template <class T>
__device__ __forceinline__ T warp_max(T v) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) v = detail::larger(v, __shfl_xor_sync(0xffffffffu, v, step));
  return v;
}

// Two bf16 in one register, `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// d[16,8] += a[16,16] b[16,8], one warp. With lane = 4g + t and element i = 2 * register + half:
// a: row g + 8 (i / 2 % 2), column 2t + i % 2 + 8 (i / 4);  b: row 2t + i % 2 + 8 (i / 2), column g;
// d: row g + 8 (i / 2), column 2t + i % 2.
__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 matrices of bf16 from shared memory: lane 8m + i names row i of matrix m (16-byte aligned); lane l
// receives in r[m] the elements (row l / 4, columns 2(l % 4) and +1), transposed (rows 2(l % 4) and +1, column
// l / 4).
template <bool Trans>
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  if constexpr (Trans) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}

// 16 bytes from global to shared memory, asynchronously; 16 zero bytes where !valid (`from` is not read then).
__device__ __forceinline__ void cp_async16(void* to, const void* from, bool valid = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(unsigned(__cvta_generic_to_shared(to))),
               "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most Pending of this thread's latest groups are under way. Other threads see the data after a
// barrier.
template <int Pending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace simt
