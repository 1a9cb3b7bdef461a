// Device memory of the emulator: one large reservation in which every allocation ends in spare bytes that
// nobody may write, and fresh as well as freed memory is 0xFF (NaN in every float type).
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace modrwkv::cuda {

class EmulatedHeap {
 public:
  EmulatedHeap();
  void* alloc(size_t bytes);
  void mark_free_queued(void* p);  // legal now, and no host call may name it from here on
  void free(void* p);              // the queued free has run
  bool contains(const void* p) const;

  // The range lies in one live allocation, or an error naming `call`. Work that is already in a stream may
  // still use memory whose free is queued behind it.
  void require_live(const char* call, const void* p, size_t bytes, bool from_host) const;
  void check_spare_bytes() const;  // of all allocations
  size_t bytes() const { return size_; }

 private:
  struct Block {
    size_t bytes, room;  // as asked for, with spare bytes
    bool free_queued;
  };
  void check_spare(uintptr_t address, const Block& b) const;

  unsigned char* base_ = nullptr;
  size_t size_ = 0, used_ = 0;
  std::map<uintptr_t, Block> live_;
  std::multimap<size_t, uintptr_t> free_;  // by room
};

}  // namespace modrwkv::cuda
