// Memory below tensors. On the CPU a caching, 64-byte aligned allocator; on CUDA stream-ordered pools. Both
// count bytes by MemoryTag.
#pragma once
#include "core/tensor.h"

namespace modrwkv {

struct Block {
  void* pointer = nullptr;
  size_t bytes = 0;  // as asked for
  Device device;
  MemoryTag tag = MemoryTag::other;
  void* stream = nullptr;  // of the allocation, CUDA only
};

Block acquire(Device device, size_t bytes);  // never null, also for 0 bytes
void release(const Block& block) noexcept;
void poison_new_memory(bool on);  // tests: every new CPU block is filled with 0xFF (NaN), as the emulator does
void release_cached_memory();     // gives the CPU cache back to the system

}  // namespace modrwkv
