#include "core/cuda/heap_emulated.h"

#include <sys/mman.h>

#include <cstring>

#include "core/error.h"
#include "core/simt/fiber.h"

namespace modrwkv::cuda {
namespace {

constexpr size_t kGranule = 256, kSpare = 64;
constexpr unsigned char kPoison = 0xff, kSpareByte = 0xfd;

// The first byte in [p, p + bytes) that differs from `value`, or `bytes`.
size_t first_other(const unsigned char* p, size_t bytes, unsigned char value) {
  if (bytes == 0 || (p[0] == value && memcmp(p, p + 1, bytes - 1) == 0)) return bytes;
  size_t i = 0;
  while (p[i] == value) ++i;
  return i;
}

}  // namespace

EmulatedHeap::EmulatedHeap() {
  for (size_ = size_t(16) << 30; size_ >= size_t(256) << 20; size_ /= 2) {
    void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) {
      base_ = static_cast<unsigned char*>(p);
      simt::detail::poison(base_, size_);
      return;
    }
  }
  fail("emulator: no address space for its device memory");
}

void* EmulatedHeap::alloc(size_t bytes) {
  const size_t room = (bytes + kSpare + kGranule - 1) / kGranule * kGranule;
  uintptr_t address;
  const auto found = free_.find(room);
  if (found != free_.end()) {
    address = found->second;
    free_.erase(found);
    auto* p = reinterpret_cast<unsigned char*>(address);
    simt::detail::unpoison(p, room);
    const size_t i = first_other(p, room, kPoison);
    require(i == room,
            "alloc: byte {} of freed memory was written after its free had run (the memory had {} bytes)", i,
            room);
  } else {
    require(room <= size_ - used_, "alloc: out of emulated device memory: {} bytes asked for, {} of {} in use",
            bytes, used_, size_);
    address = reinterpret_cast<uintptr_t>(base_) + used_;
    used_ += room;
  }
  auto* p = reinterpret_cast<unsigned char*>(address);
  simt::detail::unpoison(p, room);
  memset(p, kPoison, bytes);
  memset(p + bytes, kSpareByte, room - bytes);
  simt::detail::poison(p + bytes, room - bytes);
  live_[address] = {bytes, room, false};
  return p;
}

void EmulatedHeap::mark_free_queued(void* p) {
  const auto found = live_.find(reinterpret_cast<uintptr_t>(p));
  require(found != live_.end(), "free: {} is not the start of an allocation", p);
  require(!found->second.free_queued, "free: {} was freed before", p);
  found->second.free_queued = true;
}

void EmulatedHeap::free(void* p) {
  const auto found = live_.find(reinterpret_cast<uintptr_t>(p));
  const uintptr_t address = found->first;
  const Block b = found->second;
  live_.erase(found);
  std::string problem;
  try {
    check_spare(address, b);
  } catch (const Error& e) {
    problem = e.what();
  }
  simt::detail::unpoison(p, b.room);
  memset(p, kPoison, b.room);
  simt::detail::poison(p, b.room);
  free_.emplace(b.room, address);
  if (!problem.empty()) throw Error(problem);
}

bool EmulatedHeap::contains(const void* p) const {
  const auto* c = static_cast<const unsigned char*>(p);
  return c >= base_ && c < base_ + size_;
}

void EmulatedHeap::require_live(const char* call, const void* p, size_t bytes, bool from_host) const {
  require(contains(p), "{}: {} is not device memory", call, p);
  const auto address = reinterpret_cast<uintptr_t>(p);
  auto after = live_.upper_bound(address);
  const bool inside = after != live_.begin() && (--after, address - after->first <= after->second.bytes);
  require(inside, "{}: {} is not in a live allocation (freed before?)", call, p);
  const Block& b = after->second;
  const size_t offset = address - after->first;
  require(bytes <= b.bytes - offset, "{}: {} bytes from offset {} do not fit an allocation of {} bytes", call,
          bytes, offset, b.bytes);
  require(!(from_host && b.free_queued), "{}: {} is in an allocation that was freed", call, p);
}

void EmulatedHeap::check_spare(uintptr_t address, const Block& b) const {
#if SIMT_ASAN
  (void)address, (void)b;  // the access itself is reported
#else
  const auto* spare = reinterpret_cast<const unsigned char*>(address) + b.bytes;
  const size_t i = first_other(spare, b.room - b.bytes, kSpareByte);
  require(i == b.room - b.bytes, "device memory: byte {} of an allocation of {} bytes was written", b.bytes + i,
          b.bytes);
#endif
}

void EmulatedHeap::check_spare_bytes() const {
  for (const auto& [address, block] : live_) check_spare(address, block);
}

}  // namespace modrwkv::cuda
