// The scheduler: threads of a block on fibers, barriers and warp collectives as rendezvous, shared memory.
//
// A fiber does not belong to a thread. It runs a thread to its end, then the next one that has not started on
// the same stack, so a kernel without barriers is a plain loop. Another fiber is taken only when a thread must
// wait and the next one has not started.
#include "core/simt/simt.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "core/simt/internal.h"

namespace simt {
namespace {

template <class E>
E choice(const char* variable, std::initializer_list<const char*> names) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == 0) return E(0);
  std::string all;
  int i = 0;
  for (const char* name : names) {
    if (strcmp(value, name) == 0) return E(i);
    all += (i++ == 0 ? "" : ", ") + std::string(name);
  }
  modrwkv::fail("{}={}: expected one of {}", variable, value, all);
}

struct Settings {
  Schedule schedule =
      choice<Schedule>("SIMT_SCHEDULE", {"ascending", "descending", "greedy", "shuffled", "round_robin"});
  Copies copies = choice<Copies>("SIMT_COPIES", {"late", "early"});
  Timing timing = choice<Timing>("SIMT_TIMING", {"lazy", "eager", "random"});
  uint64_t schedule_seed = 1, timing_state = 1;
  Settings() {
    if (const char* seed = std::getenv("SIMT_SEED"))
      schedule_seed = timing_state = std::strtoull(seed, nullptr, 10);
  }
};

Settings& settings() {
  static Settings s;
  return s;
}

}  // namespace

const char* name_of(Schedule s) {
  constexpr const char* names[] = {"ascending", "descending", "greedy", "shuffled", "round_robin"};
  return names[int(s)];
}
void set_schedule(Schedule schedule, uint64_t seed) {
  settings().schedule = schedule;
  settings().schedule_seed = seed;
}
Schedule schedule() { return settings().schedule; }
void set_copies(Copies copies) { settings().copies = copies; }
Timing timing() { return settings().timing; }
void set_timing(Timing timing, uint64_t seed) {
  settings().timing = timing;
  settings().timing_state = seed;
}

namespace detail {

Copies copies_policy() { return settings().copies; }
uint64_t schedule_seed() { return settings().schedule_seed; }
uint64_t& timing_state() { return settings().timing_state; }

namespace {

void fiber_main() {
  Worker& w = *here;
  // The first fiber of a worker comes from the host.
  arrived(w.fibers[w.thread[w.current].fiber], w.host.low == nullptr ? &w.host : nullptr);
  for (;;) {
    w.bound->run_thread();
    w.returned();
    const int self = w.thread[w.current].fiber, next = w.pick();
    if (next < 0) {
      if (w.live > 0) w.deadlock();
      w.free_fibers.push_back(self);
      switch_fiber(w.fibers[self], w.host);
    } else if (!(w.warps[next / 32].started >> (next % 32) & 1)) {
      w.enter(next);
      w.thread[next].fiber = self;
    } else {
      w.free_fibers.push_back(self);
      w.enter(next);
      switch_fiber(w.fibers[self], w.fibers[w.thread[next].fiber]);
    }
  }
}

}  // namespace

Worker::Worker() {
  void* p = mmap(nullptr, kArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  arena = static_cast<unsigned char*>(p);
  poison(arena, kArena);
  watch(this);
}

Worker::~Worker() {
  unwatch(this);
  unpoison(arena, kArena);
  munmap(arena, kArena);
}

uint64_t next_random(uint64_t& state) {  // splitmix64
  uint64_t z = (state += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

int Worker::pick() {
  if (ready_warps == 0) return -1;
  const auto random_bit = [this](unsigned mask) {
    int skip = int(next_random(random_state) % unsigned(__builtin_popcount(mask)));
    while (skip-- > 0) mask &= mask - 1;
    return __builtin_ctz(mask);
  };
  const bool stays =
      policy == Schedule::ascending || policy == Schedule::descending || policy == Schedule::greedy;
  int warp = current / 32;
  if (!stays || fresh || warps[warp].ready == 0) {
    switch (policy) {
      case Schedule::ascending:
        warp = __builtin_ctz(ready_warps);
        break;
      case Schedule::descending:
        warp = 31 - __builtin_clz(ready_warps);
        break;
      case Schedule::greedy:
      case Schedule::shuffled:
        warp = random_bit(ready_warps);
        break;
      case Schedule::round_robin: {
        const unsigned above = last_warp < 31 ? ready_warps & ~((2u << last_warp) - 1) : 0;
        warp = __builtin_ctz(above != 0 ? above : ready_warps);
        break;
      }
    }
  }
  fresh = false;
  last_warp = warp;
  const unsigned lanes = warps[warp].ready;
  switch (policy) {
    case Schedule::descending:
      return warp * 32 + 31 - __builtin_clz(lanes);
    case Schedule::greedy:
    case Schedule::shuffled:
      return warp * 32 + random_bit(lanes);
    default:
      return warp * 32 + __builtin_ctz(lanes);
  }
}

void Worker::enter(int t) {
  current = t;
  warps[t / 32].started |= 1u << (t % 32);
  threadIdx = ids[t];
}

int Worker::take_fiber() {
  if (free_fibers.empty()) {
    stacks.prepare(fibers[fibers_made], fibers_made, fiber_main);
    return fibers_made++;
  }
  const int fiber = free_fibers.back();
  free_fibers.pop_back();
  return fiber;
}

void Worker::pass_on() {
  const int self = current, next = pick();
  if (next == self) return;
  if (next < 0) deadlock();
  const bool starts = !(warps[next / 32].started >> (next % 32) & 1);
  enter(next);
  if (starts) thread[next].fiber = take_fiber();
  switch_fiber(fibers[thread[self].fiber], fibers[thread[next].fiber]);
}

void Worker::deadlock() {
  int t = 0;  // the first thread that waits
  while (warps[t / 32].done >> (t % 32) & 1) ++t;
  enter(t);
  fault(thread[t].at, "deadlock: no thread can run");
}

void Worker::returned() {
  Warp& w = warps[current / 32];
  const unsigned bit = 1u << (current % 32);
  thread[current].at = {};
  if (copies_used && !copies[current].empty()) {
    fault(copies[current].front().at,
          fmt::format("thread returned with {} cp.async not waited for", copies[current].size()));
  }
  w.ready &= ~bit;
  w.done |= bit;
  if (w.ready == 0) ready_warps &= ~(1u << (current / 32));
  --live;
  if (arrived > 0) fault(barrier_at, "thread returned while others wait in __syncthreads");
  for (unsigned open = w.open; open != 0; open &= open - 1) {
    const Group& g = w.groups[__builtin_ctz(open)];
    if (g.mask & bit) fault(g.at, fmt::format("lane returned while others wait for it in {}", g.operation));
  }
}

void Worker::run_block(uint3 index) {
  blockIdx = index;
  ++block_serial;
  const uint64_t block_number = index.x + uint64_t(gridDim.x) * (index.y + uint64_t(gridDim.y) * index.z);
  random_state = (schedule_seed() << 32) ^ (block_number * 0x2545f4914f6cdd1dull);
  live = threads;
  arrived = current = last_warp = 0;
  if (policy == Schedule::round_robin) last_warp = 31;
  fresh = true;
  const int count = (threads + 31) / 32;
  ready_warps = count == 32 ? ~0u : (1u << count) - 1;
  for (int i = 0; i < count; ++i) {
    Warp& w = warps[i];
    const int lanes = threads - 32 * i;
    w.exists = w.ready = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    w.started = w.done = w.at_barrier = w.open = 0;
  }
  if (copies_used) {
    for (int t = 0; t < kMaxThreads; ++t) {
      copies[t].clear();
      groups_closed[t] = 0;
    }
    copies_used = false;
  }
  if (observer != nullptr) observer->block_begins();

  busy_with.store(block_serial, std::memory_order_relaxed);
  const int first = pick();
  enter(first);
  const int fiber = take_fiber();
  thread[first].fiber = fiber;
  switch_fiber(host, fibers[fiber]);
  busy_with.store(0, std::memory_order_relaxed);

  if (pending_fault == nullptr) check_red_zones();
  poison(arena, arena_used + kRedZone);
  arena_used = static_bytes = 0;
  objects.clear();
}

void Worker::run(Kernel& k, const dims& d, Bound& b) {
  kernel = &k;
  bound = &b;
  launched = d.at;
  smem = d.smem;
  policy = schedule();
  blockDim = d.block;
  gridDim = d.grid;
  threads = int(d.block.x * d.block.y * d.block.z);
  if (d.block.x != block_of_ids.x || d.block.y != block_of_ids.y || d.block.z != block_of_ids.z) {
    int t = 0;
    for (unsigned z = 0; z < d.block.z; ++z) {
      for (unsigned y = 0; y < d.block.y; ++y) {
        for (unsigned x = 0; x < d.block.x; ++x) ids[t++] = {x, y, z};
      }
    }
    block_of_ids = d.block;
  }
  record_coverage(k, policy);
  if (observer != nullptr) observer->launch_begins();
  const uint64_t count = uint64_t(d.grid.x) * d.grid.y * d.grid.z;
  for (uint64_t i = 0; i < count && pending_fault == nullptr; ++i) {
    const uint64_t n = policy == Schedule::descending ? count - 1 - i : i;
    run_block({unsigned(n % d.grid.x), unsigned(n / d.grid.x % d.grid.y), unsigned(n / d.grid.x / d.grid.y)});
  }
  if (pending_fault != nullptr) {  // the fibers of the block are in the middle of something: forget them
    stacks.forget_abandoned(fibers_made);
    fibers_made = 0;
    free_fibers.clear();
  }
}

void submit(const dims& d, Kernel& kernel, std::shared_ptr<Bound> bound) {
  if (here != nullptr) fault(d.at, "a kernel cannot launch kernels");
  const auto refuse = [&](const std::string& problem) { throw_launch_fault(kernel, d, problem); };
  const uint64_t threads = uint64_t(d.block.x) * d.block.y * d.block.z;
  if (d.block.x == 0 || d.block.y == 0 || d.block.z == 0 || d.grid.x == 0 || d.grid.y == 0 || d.grid.z == 0) {
    refuse("nothing to launch: a grid or block dimension is 0");
  }
  if (threads > 1024 || d.block.x > 1024 || d.block.y > 1024) {
    refuse(fmt::format("{} threads a block, at most 1024", threads));
  }
  if (d.block.z > 64) refuse(fmt::format("block.z is {}, at most 64", d.block.z));
  if (d.grid.x > 0x7fffffffu) refuse(fmt::format("grid.x is {}, at most 2147483647", d.grid.x));
  if (d.grid.y > 65535) refuse(fmt::format("grid.y is {}, at most 65535", d.grid.y));
  if (d.grid.z > 65535) refuse(fmt::format("grid.z is {}, at most 65535", d.grid.z));
  if (d.smem > kShared) refuse(fmt::format("{} bytes of dynamic shared memory, at most {}", d.smem, kShared));
  if (d.stream == nullptr) refuse("launched on the null stream");
  enqueue(d.stream, [d, &kernel, bound] {
    static thread_local std::unique_ptr<Worker> mine;
    if (mine == nullptr) mine = std::make_unique<Worker>();
    Worker& w = *mine;
    here = &w;
    w.run(kernel, d, *bound);
    here = nullptr;
    if (w.pending_fault != nullptr) {
      const Fault f = *w.pending_fault;
      w.pending_fault.reset();
      throw f;
    }
  });
}

// Barriers and collectives.

int my_lane() { return here != nullptr ? here->current % 32 : 0; }

namespace {

// Problems that need several strings are put together here: a frame that calls fault() is never left, so it
// must own none.
std::string divergence(const Worker& w) {
  return fmt::format("divergent __syncthreads: {} threads wait at {}", w.arrived, text_of(w.barrier_at));
}

std::string no_such_source(const Thread& t, int lane, int from) {
  const bool in_mask = t.mask >> from & 1;
  return fmt::format(
      "{}: lane {} reads lane {}, which {}", t.operation, lane, from,
      in_mask ? std::string("does not exist in this warp") : fmt::format("is not in mask {:08x}", t.mask));
}

}  // namespace

void block_barrier(where at) {
  if (here == nullptr) modrwkv::fail("{}: __syncthreads outside a kernel", text_of(at));
  Worker& w = *here;
  Warp& warp = w.warps[w.current / 32];
  const unsigned bit = 1u << (w.current % 32);
  if (w.live < w.threads) {
    fault(at, fmt::format("__syncthreads, but {} of {} threads have returned", w.threads - w.live, w.threads));
  }
  if (w.arrived == 0) {
    w.barrier_at = at;
  } else if (at != w.barrier_at) {
    fault(at, divergence(w));
  }
  Thread& t = w.thread[w.current];
  t.operation = "__syncthreads";
  t.mask = 0;
  t.at = at;
  warp.at_barrier |= bit;
  warp.ready &= ~bit;
  if (warp.ready == 0) w.ready_warps &= ~(1u << (w.current / 32));
  if (++w.arrived == w.live) w.open_barrier();
  w.pass_on();
}

void Worker::open_barrier() {
  arrived = 0;
  fresh = true;
  const int count = (threads + 31) / 32;
  for (int i = 0; i < count; ++i) {
    warps[i].ready = warps[i].at_barrier;
    warps[i].at_barrier = 0;
  }
  ready_warps = count == 32 ? ~0u : (1u << count) - 1;
  if (observer != nullptr) observer->block_barrier_opened();
}

void meet(unsigned mask, const char* operation, CombineLanes combine, void* slot, where at) {
  if (here == nullptr) modrwkv::fail("{}: {} outside a kernel", text_of(at), operation);
  Worker& w = *here;
  const int lane = w.current % 32;
  const unsigned bit = 1u << lane;
  Warp& warp = w.warps[w.current / 32];
  Thread& t = w.thread[w.current];
  t.operation = operation;
  t.mask = mask;
  t.at = at;
  if (!(mask & bit)) {
    fault(at, fmt::format("{}: calling lane is not in its own mask {:08x}", operation, mask));
  }
  if (mask & warp.done) {
    fault(at,
          fmt::format("{}: lanes {:08x} of the mask {:08x} have returned", operation, mask & warp.done, mask));
  }
  Group* group = nullptr;
  for (unsigned open = warp.open; open != 0; open &= open - 1) {
    Group& g = warp.groups[__builtin_ctz(open)];
    if (g.mask == mask && g.combine == combine && g.operation == operation && g.at == at) group = &g;
  }
  if (group == nullptr) {
    const int free = __builtin_ctz(~warp.open);  // 32 lanes wait in at most 32 groups
    warp.open |= 1u << free;
    group = &warp.groups[free];
    *group = {mask, 0, combine, operation, at};
  }
  warp.slots[lane] = slot;
  group->arrived |= bit;
  if (group->arrived == (mask & warp.exists)) {
    combine({group->arrived, warp.slots});
    if (combine == nothing && observer != nullptr) observer->warp_synced(group->arrived);
    warp.open &= ~(1u << (group - warp.groups));
    warp.ready |= group->arrived;
    w.ready_warps |= 1u << (w.current / 32);
  } else {
    warp.ready &= ~bit;
    if (warp.ready == 0) w.ready_warps &= ~(1u << (w.current / 32));
  }
  w.pass_on();
}

void require_lanes(const Gathered& g, const char* operation) {
  if (g.mask == ~0u) return;
  const int missing = __builtin_ctz(~g.mask);
  fault(__builtin_ctz(g.mask), fmt::format("{}: lane {} does not exist in this warp", operation, missing));
}

void nothing(const Gathered&) {}

void shuffle_words(const Gathered& g) {
  for (unsigned lanes = g.mask; lanes != 0; lanes &= lanes - 1) {
    const int lane = __builtin_ctz(lanes);
    Word& word = g.of<Word>(lane);
    if (!(g.mask >> word.from & 1)) {
      fault(lane, no_such_source(here->thread[here->current], lane, word.from));
    }
    word.out = g.of<Word>(word.from).in;
  }
}

void vote(const Gathered& g) {
  uint64_t ballot = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (g.mask >> lane & 1) ballot |= g.of<Word>(lane).in << lane;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (g.mask >> lane & 1) g.of<Word>(lane).out = ballot;
  }
}

// Shared memory: objects are carved from the arena by the first thread of a block that gets there.

namespace {

void* carve(Worker& w, size_t bytes, size_t alignment, const char* function, where at) {
  const size_t begin = (w.arena_used + kRedZone + alignment - 1) / alignment * alignment;
  const size_t end = begin + bytes;
  unpoison(w.arena + w.arena_used, end + kRedZone - w.arena_used);
  const size_t marked =
      w.objects.empty() ? 0 : w.arena_used + kRedZone;  // the zone behind the previous object may tell
  memset(w.arena + marked, kRedByte, begin - marked);
  memset(w.arena + begin, kPoison, bytes);
  memset(w.arena + end, kRedByte, kRedZone);
  poison(w.arena + w.arena_used, begin - w.arena_used);
  poison(w.arena + end, kRedZone);
  w.objects.push_back({begin, bytes, function, at});
  w.arena_used = end;
  return w.arena + begin;
}

}  // namespace

void* carve_shared(size_t bytes, size_t alignment, const char* function, where at) {
  if (here == nullptr) modrwkv::fail("{}: shared memory outside a kernel", text_of(at));
  Worker& w = *here;
  w.static_bytes += bytes;
  if (w.static_bytes > kStaticShared) {
    fault(at, fmt::format("{} bytes of static shared memory, at most {}", w.static_bytes, kStaticShared));
  }
  if (w.static_bytes + w.smem > kShared) {
    fault(at, fmt::format("{} bytes of shared memory, at most {}", w.static_bytes + w.smem, kShared));
  }
  return carve(w, bytes, alignment < 16 ? 16 : alignment, function, at);
}

void* dynamic_shared_memory(size_t alignment, where at) {
  if (here == nullptr) modrwkv::fail("{}: shared memory outside a kernel", text_of(at));
  Worker& w = *here;
  if (alignment > 128) fault(at, "dynamic_shared: aligned to 128 bytes at most");
  if (w.smem == 0) fault(at, "dynamic_shared: the launch gives no dynamic shared memory (smem = 0)");
  for (const SharedObject& o : w.objects) {
    if (o.function == nullptr) return w.arena + o.offset;
  }
  return carve(w, w.smem, 128, nullptr, at);
}

void Worker::check_red_zones() {
#if !SIMT_ASAN  // there the access itself is reported
  size_t gap = 0;
  for (size_t i = 0; i <= objects.size() && !objects.empty(); ++i) {
    const size_t end = i < objects.size() ? objects[i].offset : gap + kRedZone;
    for (size_t p = gap; p < end; ++p) {
      if (arena[p] == kRedByte) continue;
      const bool past = i > 0 && (i == objects.size() || p - gap < kRedZone);
      const SharedObject& o = objects[past ? i - 1 : i];
      pending_fault = std::make_unique<Fault>(
          make_fault(*this, -1, o.at,
                     past ? fmt::format("shared memory written {} bytes past the end of {} ({} bytes)", p - gap,
                                        name_of(o), o.bytes)
                          : fmt::format("shared memory written {} bytes before {} ({} bytes)", end - p,
                                        name_of(o), o.bytes)));
      return;
    }
    if (i < objects.size()) gap = objects[i].offset + objects[i].bytes;
  }
#endif
}

}  // namespace detail
}  // namespace simt
