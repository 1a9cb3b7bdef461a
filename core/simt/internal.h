// State of the emulator, shared by its .cpp files: the block that an OS thread is running.
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/simt/fiber.h"
#include "core/simt/simt.h"

namespace simt::detail {

constexpr int kMaxThreads = 1024, kMaxWarps = 32;
constexpr size_t kArena = 256 * 1024, kRedZone = 32;
constexpr size_t kStaticShared = 48 * 1024, kShared = 227 * 1024;  // an sm_90's
constexpr unsigned char kPoison = 0xff;                            // NaN as bf16, f32 and f64; -1 as an int
constexpr unsigned char kRedByte = 0xfd;

// Lanes that wait for each other at one operation.
struct Group {
  unsigned mask, arrived;
  CombineLanes combine;
  const char* operation;
  where at;
};

struct Warp {
  unsigned exists, ready, started, done, at_barrier;  // masks of lanes
  unsigned open;                                      // mask of groups in use
  void* slots[32];
  Group groups[32];
};

struct Thread {
  int fiber;
  const char* operation;  // it waits in, with its mask (0: the whole block) and line
  unsigned mask;
  where at;
};

// A cp.async under way.
struct Copy {
  void* to;
  const void* from;  // nullptr: zeros
  int group;
  where at;
};

struct SharedObject {
  size_t offset, bytes;
  const char* function;  // __PRETTY_FUNCTION__ of shared<T>(), nullptr: dynamic
  where at;
};

struct Worker {
  Worker();
  ~Worker();

  void run(Kernel& kernel, const dims& d, Bound& bound);
  void run_block(uint3 index);

  int pick();      // the next thread, -1: none can run
  void pass_on();  // to the next thread; returns when the running thread goes on
  void enter(int thread);
  int take_fiber();
  void returned();  // the running thread has come to its end
  [[noreturn]] void deadlock();
  void open_barrier();

  void check_red_zones();

  // The launch.
  Kernel* kernel = nullptr;
  Bound* bound = nullptr;
  where launched;
  size_t smem = 0;
  dim3 block_of_ids{0, 0, 0};
  uint3 ids[kMaxThreads];
  Schedule policy = Schedule::ascending;

  // The block.
  int threads = 0, live = 0, arrived = 0, current = 0, last_warp = 0;
  bool fresh = false;  // no warp is preferred: a block begins, or a barrier has opened
  where barrier_at;
  unsigned ready_warps = 0;
  Warp warps[kMaxWarps];
  Thread thread[kMaxThreads];
  uint64_t random_state = 0;
  std::atomic<uint64_t> busy_with = 0;  // serial of the block, 0: idle; read by the watchdog

  // cp.async
  std::vector<Copy> copies[kMaxThreads];
  int groups_closed[kMaxThreads] = {};
  bool copies_used = false;

  // Shared memory.
  unsigned char* arena = nullptr;
  size_t arena_used = 0, static_bytes = 0;
  std::vector<SharedObject> objects;

  // Fibers.
  Stacks stacks{kMaxThreads};
  Fiber host, fibers[kMaxThreads];
  int fibers_made = 0;
  std::vector<int> free_fibers;

  std::unique_ptr<Fault> pending_fault;
};

inline constinit thread_local Worker* here = nullptr;  // while it runs a kernel

Copies copies_policy();
double watchdog_seconds();
uint64_t schedule_seed();
uint64_t& timing_state();  // of the random timing
uint64_t next_random(uint64_t& state);
std::string text_of(where at);                  // "ops/axpy.cu:12"
std::string kernel_name(const Kernel& kernel);  // "modrwkv::axpy<float>"
std::string name_of(const SharedObject& object);
Fault make_fault(const Worker& w, int thread, where at, std::string problem);  // thread -1: none in particular
[[noreturn]] void fault(where at, std::string problem);                        // of the running thread
[[noreturn]] void throw_launch_fault(const Kernel& kernel, const dims& d, const std::string& problem);
void record_coverage(Kernel& kernel, Schedule schedule);
void watch(Worker* w);  // starts the watchdog and the handler of stack overflows
void unwatch(Worker* w);

}  // namespace simt::detail
