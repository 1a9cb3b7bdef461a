// The context switch in assembly (swapcontext costs 40 times as much), stacks, and what ASan must be told.
#include "core/simt/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

extern "C" void simt_switch(void** save, void* to);
extern "C" void simt_boot();

#if defined(__x86_64__)
// Callee-saved registers and the return address. simt_boot ends the chain of frames with a zero and jumps to
// the function that prepare() left in rbx; rsp is then 8 modulo 16, as after a call.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
.globl simt_boot
.hidden simt_boot
.type simt_boot, @function
simt_boot:
  pushq $0
  jmpq *%rbx
.size simt_boot, .-simt_boot
)");
#elif defined(__aarch64__)
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch, %function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size simt_switch, .-simt_switch
.globl simt_boot
.hidden simt_boot
.type simt_boot, %function
simt_boot:
  mov x29, xzr
  mov x30, xzr
  br x19
.size simt_boot, .-simt_boot
)");
#else
#error "core/simt/fiber.cpp: the emulator knows x86-64 and aarch64"
#endif

namespace simt::detail {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStack = SIMT_ASAN ? 256 * 1024 : 64 * 1024;  // with the guard page
constexpr size_t kBelow =
    1024 * 1024;  // guards the first stack, in which most kernels run, against large arrays

unsigned char* top_of(unsigned char* low, int index) {
  // Tops at one distance from each other would fall into one set of the L1 cache.
  return low + kStack - (index % 32) * 128;
}

}  // namespace

Stacks::Stacks(int count) : count_(count) {
  void* p = mmap(nullptr, kBelow + kStack * count, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  mprotect(p, kBelow, PROT_NONE);
  base_ = static_cast<unsigned char*>(p) + kBelow;
  for (int i = 0; i < count; ++i) mprotect(base_ + kStack * i, kPage, PROT_NONE);
}

Stacks::~Stacks() {
  forget_abandoned(count_);
  munmap(base_ - kBelow, kBelow + kStack * count_);
}

void Stacks::prepare(Fiber& fiber, int index, void (*main)()) const {
  fiber.low = base_ + kStack * index;
  fiber.bytes = kStack;
  fiber.fake_stack = nullptr;
  void** top = reinterpret_cast<void**>(top_of(fiber.low, index));
#if defined(__x86_64__)
  void** sp = top - 9;  // 8 modulo 16
  for (void** p = sp; p < top; ++p) *p = nullptr;
  sp[4] = reinterpret_cast<void*>(main);  // rbx
  sp[6] = reinterpret_cast<void*>(simt_boot);
#else
  void** sp = top - 20;
  for (void** p = sp; p < top; ++p) *p = nullptr;
  sp[0] = reinterpret_cast<void*>(main);        // x19
  sp[11] = reinterpret_cast<void*>(simt_boot);  // x30
#endif
  fiber.sp = sp;
}

void Stacks::forget_abandoned(int count) const {
  for (int i = 0; i < count; ++i) unpoison(base_ + kStack * i + kPage, kStack - kPage);
}

bool Stacks::guard_hit(const void* address) const {
  const auto* p = static_cast<const unsigned char*>(address);
  if (p < base_ - kBelow || p >= base_ + kStack * count_) return false;
  return p < base_ || size_t(p - base_) % kStack < kPage;
}

#if SIMT_ASAN
void switch_fiber(Fiber& from, Fiber& to) {
  __sanitizer_start_switch_fiber(&from.fake_stack, to.low, to.bytes);
  simt_switch(&from.sp, to.sp);
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
}

void abandon_fiber(Fiber& to) {
  __sanitizer_start_switch_fiber(nullptr, to.low, to.bytes);
  void* dead;
  simt_switch(&dead, to.sp);
  abort();
}

void arrived(Fiber& self, Fiber* came_from) {
  const void* low = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(self.fake_stack, &low, &bytes);
  if (came_from != nullptr) {
    came_from->low = static_cast<unsigned char*>(const_cast<void*>(low));
    came_from->bytes = bytes;
  }
}

void poison(const void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
void unpoison(const void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
void switch_fiber(Fiber& from, Fiber& to) { simt_switch(&from.sp, to.sp); }
void abandon_fiber(Fiber& to) {
  void* dead;
  simt_switch(&dead, to.sp);
  abort();
}
void arrived(Fiber&, Fiber*) {}
void poison(const void*, size_t) {}
void unpoison(const void*, size_t) {}
#endif

}  // namespace simt::detail
