// The emulator as host code sees it: thread orders, timing of streams, faults. Kernels of a build with
// -DSIMT_EMULATED run here: a thread is a fiber, a block runs on the OS thread that drains its stream, barriers
// and warp collectives are rendezvous. Settings start from the environment:
//   SIMT_SCHEDULE  ascending | descending | greedy | shuffled | round_robin   (default ascending)
//   SIMT_TIMING    lazy | eager | random        when queued work runs          (default lazy)
//   SIMT_COPIES    late | early                 when cp.async reads its source (default late)
//   SIMT_SEED      seed of greedy, shuffled and random                         (default 1)
//   SIMT_WATCHDOG  seconds one block may run, 0: no limit                      (default 60)
//   SIMT_COVERAGE  file to which the process appends the kernels it executed
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/cuda/runtime.h"
#include "core/error.h"

namespace simt {

// A source line; `step` counts the barriers of a helper that was called there.
struct where {
  const char* file = "";
  unsigned line = 0;
  int step = 0;
  static constexpr where current(const char* file = __builtin_FILE(), unsigned line = __builtin_LINE()) {
    return {file, line, 0};
  }
  constexpr where at_step(int n) const { return {file, line, step * 8 + n + 1}; }
  bool operator==(const where&) const = default;
};

// How the next thread to run is chosen among those that can.
//   ascending, descending: lowest (highest) warp and lane; a warp runs as far as it can
//   greedy: random, a warp runs as far as it can;  shuffled: random, a new warp at every switch
//   round_robin: the next warp at every switch
enum class Schedule { ascending, descending, greedy, shuffled, round_robin };
constexpr int kSchedules = 5;
const char* name_of(Schedule schedule);
void set_schedule(Schedule schedule, uint64_t seed = 1);
Schedule schedule();

// When work queued in a stream runs: when somebody waits for it, at once, or now and then.
enum class Timing { lazy, eager, random };
void set_timing(Timing timing, uint64_t seed = 1);
Timing timing();

// When cp.async reads its source: at the wait, or at issue.
enum class Copies { late, early };
void set_copies(Copies copies);

void set_watchdog(double seconds);

// What a kernel did that a GPU would not forgive. what() begins with one line that holds everything below, and
// goes on with where all other threads of the block stand.
class Fault : public modrwkv::Error {
 public:
  using Error::Error;
  std::string kernel;  // "modrwkv::axpy<float>"
  where launched, at;
  std::string problem;  // "divergent __syncthreads: …"
  unsigned block[3] = {}, thread[3] = {};
  int warp = 0, lane = 0;
};

namespace detail {
// Puts work into a stream; `always` also runs when a fault empties the queues (frees).
void enqueue(modrwkv::cuda::Stream stream, std::function<void()> work, bool always = false);
bool in_device_memory(const void* p);  // the emulated heap
// Throws unless the range lies in one live allocation; work from a queue may use memory whose free is queued
// behind it.
void require_device_range(const char* call, const void* p, size_t bytes, bool from_host);
}  // namespace detail

}  // namespace simt
