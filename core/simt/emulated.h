// The half of simt.h that the host compiler sees: CUDA's names as host functions that meet the emulator.
// Included by simt.h only. Semantics and limits of each name are CUDA's; what CUDA leaves undefined is a
// simt::Fault.
#pragma once
#include <cmath>
#include <memory>
#include <tuple>
#include <typeinfo>

#include "core/simt/emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

// A device function that contains a barrier or a warp collective takes SIMT_AT behind its last parameter and
// passes SIMT_HERE on, so that reports name the caller's line.
#define SIMT_AT , simt::where at = simt::where::current()
#define SIMT_HERE , at
#define SIMT_HERE_STEP(n) , at.at_step(n)
#define SIMT_ONLY_HERE_STEP(n) at.at_step(n)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct int3 {
  int x, y, z;
};
struct float3 {
  float x, y, z;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float3 make_float3(float x, float y, float z) { return {x, y, z}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};
constexpr int warpSize = 32;

#include "core/simt/dims.h"

namespace simt {
namespace detail {

// One launched instantiation: what reports and the coverage file say about it.
struct Kernel {
  const char* function;  // "… [with auto K = name<T>]"
  const char* symbol;    // mangled name of KernelTag<K>
  const char* file;      // the source file that was compiled
  bool listed = false;
  unsigned schedules = 0;  // bit per Schedule it ran under
  Kernel* next = nullptr;
};
template <auto K>
struct KernelTag {};
template <auto K>
const char* function_text() {
  return __PRETTY_FUNCTION__;
}

// A launch with its arguments, copied when it was issued.
struct Bound {
  virtual ~Bound() = default;
  virtual void run_thread() = 0;
};
template <auto K, class... P>
struct BoundTo final : Bound {
  explicit BoundTo(P... p) : arguments(p...) {}
  void run_thread() override { std::apply(K, arguments); }
  std::tuple<P...> arguments;
};

void submit(const dims& d, Kernel& kernel, std::shared_ptr<Bound> bound);

template <auto K, class... P, class... A>
void launch_as(void (*)(P...), const dims& d, const A&... a) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters are copied byte by byte");
  static Kernel kernel{function_text<K>(), typeid(KernelTag<K>).name(), __BASE_FILE__};
  submit(d, kernel, std::make_shared<BoundTo<K, P...>>(a...));
}

// Warp collectives: each lane brings a struct on its own stack; the last lane of the mask to arrive runs
// `combine` over all of them. Lanes meet when mask, combine and line agree.
struct Gathered {
  unsigned mask;  // lanes that take part
  void** slots;   // by lane
  template <class T>
  T& of(int lane) const {
    return *static_cast<T*>(slots[lane]);
  }
};
using CombineLanes = void (*)(const Gathered&);
void meet(unsigned mask, const char* operation, CombineLanes combine, void* slot, where at);
[[noreturn]] void fault(int lane, const std::string& problem);  // of the running warp
void require_lanes(const Gathered& g, const char* operation);   // all 32 exist

struct Word {  // shuffles and votes
  uint64_t in, out;
  int from;
};
void shuffle_words(const Gathered& g);
void vote(const Gathered& g);
void nothing(const Gathered& g);
int my_lane();

template <class T>
T shuffle(unsigned mask, T value, int from, const char* operation, where at) {
  static_assert(std::is_arithmetic_v<T>, "shuffles move int, unsigned, long long, float and double");
  Word word{0, 0, from < 0 || from > 31 ? my_lane() : from};
  memcpy(&word.in, &value, sizeof value);
  meet(mask, operation, shuffle_words, &word, at);
  memcpy(&value, &word.out, sizeof value);
  return value;
}

inline constinit thread_local uint64_t block_serial = 0;  // grows with every block this OS thread runs
void* carve_shared(size_t bytes, size_t alignment, const char* function, where at);
void* dynamic_shared_memory(size_t alignment, where at);

void check_aligned(const void* p, size_t bytes, const char* what, where at);

// Access hooks of the race checker, unset in the plain emulator.
struct Observer {
  virtual ~Observer() = default;
  virtual void launch_begins() = 0;
  virtual void block_begins() = 0;
  virtual void block_barrier_opened() = 0;
  virtual void warp_synced(unsigned mask) = 0;
  virtual void noted(const void* p, size_t bytes, bool write, where at) = 0;
};
inline constinit Observer* observer = nullptr;
inline void note(const void* p, size_t bytes, bool write, where at) {
  if (observer != nullptr) [[unlikely]]
    observer->noted(p, bytes, write, at);
}

void block_barrier(where at);

template <class T>
void butterfly_sum(const Gathered& g) {
  require_lanes(g, "warp_sum");
  T now[32], next[32];
  for (int l = 0; l < 32; ++l) now[l] = g.of<T>(l);
  for (int step = 16; step > 0; step /= 2) {
    for (int l = 0; l < 32; ++l) next[l] = now[l] + now[l ^ step];
    for (int l = 0; l < 32; ++l) now[l] = next[l];
  }
  for (int l = 0; l < 32; ++l) g.of<T>(l) = now[l];
}

template <class T>
void butterfly_max(const Gathered& g) {
  require_lanes(g, "warp_max");
  T all = g.of<T>(0);
  for (int l = 1; l < 32; ++l) all = larger(all, g.of<T>(l));
  for (int l = 0; l < 32; ++l) g.of<T>(l) = all;
}

struct MmaLane {
  float* d;
  const unsigned* a;
  const unsigned* b;
};
void multiply_fragments(const Gathered& g);

struct MatrixLane {
  const void* row;
  unsigned* out;
  where at;
};
void load_matrices(const Gathered& g);
void load_matrices_transposed(const Gathered& g);
void issue_copy(void* to, const void* from, bool valid, where at);
void commit_copies();
void wait_copies(int pending);

template <class T>
T atomic_update(T* p, T (*f)(T, T), T operand) {
  T before, after;
  __atomic_load(p, &before, __ATOMIC_RELAXED);
  do {
    after = f(before, operand);
  } while (!__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return before;
}

}  // namespace detail

template <auto K, class... A>
void launch(const dims& d, const A&... a) {
  detail::launch_as<K>(K, d, a...);
}

template <class T, int Tag = 0>
T& shared(where at = where::current()) {
  static_assert(std::is_trivially_default_constructible_v<T>, "shared memory is not constructed");
  static constinit thread_local T* object = nullptr;
  static constinit thread_local uint64_t serial = 0;
  if (serial != detail::block_serial) {
    object = static_cast<T*>(detail::carve_shared(sizeof(T), alignof(T), __PRETTY_FUNCTION__, at));
    serial = detail::block_serial;
  }
  return *object;
}

template <class T>
T* dynamic_shared(where at = where::current()) {
  return static_cast<T*>(detail::dynamic_shared_memory(alignof(T), at));
}

template <class V, class T>
V load_as(const T* p, where at = where::current()) {
  detail::check_aligned(p, sizeof(V), "load", at);
  detail::note(p, sizeof(V), false, at);
  V v;
  memcpy(static_cast<void*>(&v), static_cast<const void*>(p), sizeof v);
  return v;
}

template <class V, class T>
void store_as(T* p, const V& v, where at = where::current()) {
  detail::check_aligned(p, sizeof(V), "store", at);
  detail::note(p, sizeof(V), true, at);
  memcpy(static_cast<void*>(p), static_cast<const void*>(&v), sizeof v);
}

// One rendezvous that runs the butterfly of the GPU: the same bits.
template <class T>
T warp_sum(T v, where at = where::current()) {
  detail::meet(0xffffffffu, "warp_sum", detail::butterfly_sum<T>, &v, at);
  return v;
}
template <class T>
T warp_max(T v, where at = where::current()) {
  detail::meet(0xffffffffu, "warp_max", detail::butterfly_max<T>, &v, at);
  return v;
}

inline unsigned pack_bf16(float low, float high) {
  return unsigned(modrwkv::to_bf16(low).bits) | unsigned(modrwkv::to_bf16(high).bits) << 16;
}

// The tensor core: see nvidia.h for the layouts.
inline void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], where at = where::current()) {
  detail::MmaLane slot{d, a, b};
  detail::meet(0xffffffffu, "mma", detail::multiply_fragments, &slot, at);
}
template <bool Trans>
void ldmatrix_x4(unsigned (&r)[4], const void* row, where at = where::current()) {
  detail::MatrixLane slot{row, r, at};
  detail::meet(0xffffffffu, "ldmatrix", Trans ? detail::load_matrices_transposed : detail::load_matrices, &slot,
               at);
}
inline void cp_async16(void* to, const void* from, bool valid = true, where at = where::current()) {
  detail::issue_copy(to, from, valid, at);
}
inline void cp_async_commit() { detail::commit_copies(); }
template <int Pending>
void cp_async_wait() {
  detail::wait_copies(Pending);
}

}  // namespace simt

inline void __syncthreads(simt::where at = simt::where::current()) { simt::detail::block_barrier(at); }
inline void __syncwarp(unsigned mask = 0xffffffffu, simt::where at = simt::where::current()) {
  char slot;
  simt::detail::meet(mask, "__syncwarp", simt::detail::nothing, &slot, at);
}

template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32, simt::where at = simt::where::current()) {
  const int lane = simt::detail::my_lane(), first = lane & ~(width - 1);
  return simt::detail::shuffle(mask, v, first + (from & (width - 1)), "__shfl_sync", at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned step, int width = 32, simt::where at = simt::where::current()) {
  const int lane = simt::detail::my_lane(), first = lane & ~(width - 1), from = lane - int(step);
  return simt::detail::shuffle(mask, v, from < first ? lane : from, "__shfl_up_sync", at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned step, int width = 32, simt::where at = simt::where::current()) {
  const int lane = simt::detail::my_lane(), end = (lane & ~(width - 1)) + width, from = lane + int(step);
  return simt::detail::shuffle(mask, v, from >= end ? lane : from, "__shfl_down_sync", at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, simt::where at = simt::where::current()) {
  const int lane = simt::detail::my_lane(), end = (lane & ~(width - 1)) + width, from = lane ^ bits;
  return simt::detail::shuffle(mask, v, from >= end ? lane : from, "__shfl_xor_sync", at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::where at = simt::where::current()) {
  simt::detail::Word word{predicate != 0, 0, 0};
  simt::detail::meet(mask, "__ballot_sync", simt::detail::vote, &word, at);
  return unsigned(word.out);
}
inline int __any_sync(unsigned mask, int predicate, simt::where at = simt::where::current()) {
  return __ballot_sync(mask, predicate, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, simt::where at = simt::where::current()) {
  return __ballot_sync(mask, !predicate, at) == 0;
}

template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return simt::detail::atomic_update<T>(
      p, [](T a, T b) { return T(a + b); }, v);
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return simt::detail::atomic_update<T>(
      p, [](T a, T b) { return a < b ? b : a; }, v);
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>);
  return simt::detail::atomic_update<T>(
      p, [](T a, T b) { return b < a ? b : a; }, v);
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return simt::detail::atomic_update<T>(
      p, [](T, T b) { return b; }, v);
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  __atomic_compare_exchange(p, &expected, &v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Device math that the host lacks. glibc declares __expf and its kind without defining them, hence macros.
#define __expf(x) expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }
#if !defined(__GLIBC_PREREQ) || !__GLIBC_PREREQ(2, 41)
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#endif

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin(T(a), T(b));  // drops NaN, as CUDA's
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
inline unsigned __float_as_uint(float x) {
  unsigned y;
  memcpy(&y, &x, 4);
  return y;
}
inline float __uint_as_float(unsigned x) {
  float y;
  memcpy(&y, &x, 4);
  return y;
}
inline int __float_as_int(float x) {
  int y;
  memcpy(&y, &x, 4);
  return y;
}
inline float __int_as_float(int x) {
  float y;
  memcpy(&y, &x, 4);
  return y;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
