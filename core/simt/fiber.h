// Fibers: stacks with a guard page below, and the switch between them. A fiber belongs to the OS thread that
// made it.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifndef SIMT_ASAN
#define SIMT_ASAN 0
#endif

namespace simt::detail {

struct Fiber {
  void* sp = nullptr;
  unsigned char* low = nullptr;  // of the stack; the host's is learnt at the first switch under ASan
  size_t bytes = 0;
  void* fake_stack = nullptr;  // ASan's
};

// Memory for `count` stacks.
class Stacks {
 public:
  explicit Stacks(int count);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  // A fiber whose first switch calls main(), which must begin with arrived() and never return.
  void prepare(Fiber& fiber, int index, void (*main)()) const;
  void forget_abandoned(int count) const;  // after a fault: the frames on these stacks are dead
  bool guard_hit(const void* address) const;

 private:
  unsigned char* base_ = nullptr;
  int count_;
};

// Returns when somebody switches back to `from`.
void switch_fiber(Fiber& from, Fiber& to);
[[noreturn]] void abandon_fiber(Fiber& to);
void arrived(Fiber& self, Fiber* came_from);  // came_from: where to note the bounds of the stack we came from

void poison(const void* p, size_t bytes);  // ASan: accesses are reported
void unpoison(const void* p, size_t bytes);

}  // namespace simt::detail
