// The caching CPU allocator, CUDA allocation, and the counts of bytes by tag.
#include "core/memory.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "core/cuda/runtime.h"
#include "core/error.h"

namespace modrwkv {
namespace {

std::atomic<bool> poison{false};
thread_local MemoryTag current_tag = MemoryTag::other;

struct Counter {
  std::mutex mutex;
  MemoryUse by_tag[2][kMemoryTags];
  MemoryUse all[2];
};

Counter& counter() {
  static Counter* c = new Counter;  // outlives static tensors
  return *c;
}

void count(const Block& b, int64_t sign) {
  Counter& c = counter();
  const std::lock_guard lock(c.mutex);
  for (MemoryUse* use : {&c.by_tag[b.device.is_cuda()][int(b.tag)], &c.all[b.device.is_cuda()]}) {
    use->current += sign * int64_t(b.bytes);
    if (use->current > use->peak) use->peak = use->current;
  }
}

// Freed blocks wait in bins of one size each, so that a training step, which repeats its sizes, allocates
// nothing. Sizes are rounded up to an eighth of their power of two, which wastes at most 12.5 %.
struct CpuCache {
  std::mutex mutex;
  std::multimap<size_t, void*> free_blocks;
};

CpuCache& cpu_cache() {
  static CpuCache* c = new CpuCache;
  return *c;
}

size_t rounded(size_t bytes) {
  if (bytes <= 512) return 512;
  const int log2 = 63 - __builtin_clzll(bytes);
  const size_t step = size_t(1) << (log2 - 3);
  return (bytes + step - 1) / step * step;
}

void* cpu_acquire(size_t bytes) {
  const size_t size = rounded(bytes);
  CpuCache& cache = cpu_cache();
  {
    const std::lock_guard lock(cache.mutex);
    const auto found = cache.free_blocks.find(size);
    if (found != cache.free_blocks.end()) {
      void* p = found->second;
      cache.free_blocks.erase(found);
      return p;
    }
  }
  void* p = std::aligned_alloc(64, size);
  if (p == nullptr) {
    release_cached_memory();
    p = std::aligned_alloc(64, size);
  }
  require(p != nullptr, "out of memory: {} bytes on the CPU", bytes);
  return p;
}

}  // namespace

const char* name_of(MemoryTag tag) {
  constexpr const char* names[] = {"other", "parameters", "gradients", "optimizer", "activations", "workspace"};
  return names[int(tag)];
}

MemoryScope::MemoryScope(MemoryTag tag) : before_(current_tag) { current_tag = tag; }
MemoryScope::~MemoryScope() { current_tag = before_; }

MemoryUse memory_use(DeviceType device, MemoryTag tag) {
  const std::lock_guard lock(counter().mutex);
  return counter().by_tag[device == DeviceType::cuda][int(tag)];
}

MemoryUse memory_use(DeviceType device) {
  const std::lock_guard lock(counter().mutex);
  return counter().all[device == DeviceType::cuda];
}

void reset_memory_peaks() {
  Counter& c = counter();
  const std::lock_guard lock(c.mutex);
  for (int d = 0; d < 2; ++d) {
    c.all[d].peak = c.all[d].current;
    for (MemoryUse& use : c.by_tag[d]) use.peak = use.current;
  }
}

Block acquire(Device device, size_t bytes) {
  Block b;
  b.bytes = bytes;
  b.device = device;
  b.tag = current_tag;
  if (device.is_cuda()) {
    cuda::set_device(device.index);
    b.stream = cuda::current_stream();
    b.pointer = cuda::alloc(bytes, cuda::Stream(b.stream));
  } else {
    b.pointer = cpu_acquire(bytes);
    if (poison) memset(b.pointer, 0xFF, bytes);
  }
  count(b, +1);
  return b;
}

void release(const Block& b) noexcept {
  count(b, -1);
  if (b.device.is_cuda()) {
    cuda::free(b.pointer, cuda::Stream(b.stream));
  } else {
    CpuCache& cache = cpu_cache();
    const std::lock_guard lock(cache.mutex);
    cache.free_blocks.emplace(rounded(b.bytes), b.pointer);
  }
}

void poison_new_memory(bool on) { poison = on; }

void release_cached_memory() {
  CpuCache& cache = cpu_cache();
  const std::lock_guard lock(cache.mutex);
  for (const auto& [size, p] : cache.free_blocks) std::free(p);
  cache.free_blocks.clear();
}

}  // namespace modrwkv
