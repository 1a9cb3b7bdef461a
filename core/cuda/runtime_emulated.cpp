// The device layer of the emulator. A stream is a queue of closures; when they run is a setting
// (simt::set_timing): lazy, the default, runs them only when somebody waits, so that a missing wait shows as
// missing data.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "core/cuda/heap_emulated.h"
#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/simt/emulator.h"
#include "core/simt/internal.h"

namespace modrwkv::cuda {

struct StreamState {
  struct Work {
    std::function<void()> run;
    bool always;  // also when a fault empties the queues
  };
  int device = 0;
  std::deque<Work> queue;
  uint64_t issued = 0, done = 0;
};

struct EventState {
  std::shared_ptr<StreamState> stream;  // nullptr: never recorded, which counts as done
  uint64_t ticket = 0;
};

namespace {

struct World {
  std::recursive_mutex mutex;
  std::map<Stream, std::shared_ptr<StreamState>> streams;
  std::vector<std::shared_ptr<StreamState>> destroyed;  // with work left
  std::set<Event> events;
  EmulatedHeap heap;
  std::map<void*, size_t> host_blocks;
  std::vector<void*> host_garbage;  // freed while work was queued
};

World& world() {
  static World* w = new World;  // outlives static tensors
  return *w;
}

using Lock = std::lock_guard<std::recursive_mutex>;

std::shared_ptr<StreamState> find(const char* call, Stream stream) {
  require(stream != nullptr, "{}: the null stream is refused", call);
  const auto found = world().streams.find(stream);
  require(found != world().streams.end(), "{}: the stream was destroyed", call);
  return found->second;
}

Event known(const char* call, Event event) {
  require(event != nullptr && world().events.count(event) != 0, "{}: not an event, or destroyed", call);
  return event;
}

std::vector<std::shared_ptr<StreamState>> all_streams() {
  std::vector<std::shared_ptr<StreamState>> all = world().destroyed;
  for (const auto& [handle, state] : world().streams) all.push_back(state);
  return all;
}

// After a fault nothing that was queued makes sense, except giving memory back.
void drop_everything() {
  for (const auto& s : all_streams()) {
    while (!s->queue.empty()) {
      StreamState::Work work = std::move(s->queue.front());
      s->queue.pop_front();
      ++s->done;
      if (!work.always) continue;
      try {
        work.run();
      } catch (const Error&) {  // the first fault is the one to report
      }
    }
  }
}

void run_one(StreamState& s) {
  StreamState::Work work = std::move(s.queue.front());
  s.queue.pop_front();
  ++s.done;
  try {
    work.run();
  } catch (...) {
    drop_everything();
    throw;
  }
}

void run_until(const std::shared_ptr<StreamState>& s, uint64_t ticket) {
  while (s->done < ticket) run_one(*s);
}

void collect_garbage() {
  World& w = world();
  std::erase_if(w.destroyed, [](const auto& s) { return s->queue.empty(); });
  for (const auto& s : all_streams()) {
    if (!s->queue.empty()) return;
  }
  for (void* p : w.host_garbage) std::free(p);
  w.host_garbage.clear();
}

void after_sync() {
  collect_garbage();
  world().heap.check_spare_bytes();
}

// `may_throw` is false for calls that destructors make.
void put(const std::shared_ptr<StreamState>& s, std::function<void()> work, bool always,
         bool may_throw = true) {
  require(simt::detail::here == nullptr, "a kernel called the host's side of the device layer");
  s->queue.push_back({std::move(work), always});
  ++s->issued;
  if (!may_throw) return;
  switch (simt::timing()) {
    case simt::Timing::lazy:
      break;
    case simt::Timing::eager:
      run_until(s, s->issued);
      break;
    case simt::Timing::random: {
      uint64_t& state = simt::detail::timing_state();
      while (simt::detail::next_random(state) & 1) {
        std::vector<std::shared_ptr<StreamState>> waiting;
        for (const auto& x : all_streams()) {
          if (!x->queue.empty()) waiting.push_back(x);
        }
        if (waiting.empty()) break;
        run_one(*waiting[simt::detail::next_random(state) % waiting.size()]);
      }
      break;
    }
  }
}

int devices() {
  static const int n = [] {
    const char* value = std::getenv("SIMT_DEVICES");
    return value == nullptr ? 1 : std::atoi(value);
  }();
  return n;
}

thread_local int this_device = 0;
thread_local std::map<int, Stream> this_stream;

}  // namespace

bool available() { return devices() > 0; }
std::string why_unavailable() { return available() ? "" : "no CUDA device: SIMT_DEVICES is 0"; }
int device_count() { return devices(); }
void set_device(int device) {
  require(device >= 0 && device < devices(), "set_device: device {} of {}", device, devices());
  this_device = device;
}
int current_device() { return this_device; }

Properties properties(int device) {
  require(device >= 0 && device < devices(), "properties: device {} of {}", device, devices());
  Properties p;
  p.name = "SIMT emulator";
  p.compute_capability = 80;
  p.multiprocessors = 4;
  p.memory_bytes = world().heap.bytes();
  p.shared_bytes_per_block = 227 * 1024;
  p.emulated = true;
  return p;
}

std::vector<std::string> thread_orders() { return {"ascending", "descending", "greedy"}; }

void set_thread_order(const std::string& order) {
  for (const simt::Schedule s :
       {simt::Schedule::ascending, simt::Schedule::descending, simt::Schedule::greedy}) {
    if (order == simt::name_of(s)) return simt::set_schedule(s);
  }
  fail("set_thread_order: {} is no order of the emulator", order);
}

Stream create_stream() {
  const Lock lock(world().mutex);
  auto state = std::make_shared<StreamState>();
  state->device = this_device;
  world().streams[state.get()] = state;
  return state.get();
}

void destroy(Stream stream) {
  const Lock lock(world().mutex);
  auto state = find("destroy", stream);
  world().streams.erase(stream);
  if (!state->queue.empty()) world().destroyed.push_back(state);
}

Stream current_stream() {
  const Lock lock(world().mutex);
  Stream& s = this_stream[this_device];
  if (s == nullptr) s = create_stream();
  return s;
}

void set_current_stream(Stream stream) {
  const Lock lock(world().mutex);
  this_stream[this_device] = find("set_current_stream", stream).get();
}

void sync(Stream stream) {
  const Lock lock(world().mutex);
  const auto s = find("sync", stream);
  run_until(s, s->issued);
  after_sync();
}

void sync_all() {
  const Lock lock(world().mutex);
  for (const auto& s : all_streams()) {
    if (s->device == this_device) run_until(s, s->issued);
  }
  after_sync();
}

Event create_event() {
  const Lock lock(world().mutex);
  const Event e = new EventState;
  world().events.insert(e);
  return e;
}

void destroy(Event event) {
  const Lock lock(world().mutex);
  world().events.erase(known("destroy", event));
  delete event;
}

void record(Event event, Stream stream) {
  const Lock lock(world().mutex);
  known("record", event)->stream = find("record", stream);
  event->ticket = event->stream->issued;
}

void wait(Stream stream, Event event) {
  const Lock lock(world().mutex);
  const auto s = find("wait", stream);
  const EventState e = *known("wait", event);
  if (e.stream == nullptr || e.stream == s) return;
  put(
      s, [e] { run_until(e.stream, e.ticket); }, false);
}

void sync(Event event) {
  const Lock lock(world().mutex);
  known("sync", event);
  if (event->stream != nullptr) run_until(event->stream, event->ticket);
  after_sync();
}

bool done(Event event) {
  const Lock lock(world().mutex);
  known("done", event);
  if (event->stream == nullptr || event->stream->done >= event->ticket) return true;
  run_one(*event->stream);  // so that a loop that polls comes to an end
  return false;
}

void* alloc(size_t bytes, Stream stream) {
  const Lock lock(world().mutex);
  find("alloc", stream);
  return world().heap.alloc(bytes);
}

void free(void* pointer, Stream stream) {
  if (pointer == nullptr) return;
  const Lock lock(world().mutex);
  const auto s = find("free", stream);
  world().heap.mark_free_queued(pointer);
  put(
      s, [pointer] { world().heap.free(pointer); }, true, false);
}

void* alloc_host(size_t bytes) {
  const Lock lock(world().mutex);
  const size_t room = (bytes + 255) / 256 * 256 + 256;
  void* p = std::aligned_alloc(256, room);
  require(p != nullptr, "alloc_host: out of memory: {} bytes", bytes);
  memset(p, 0xff, room);
  world().host_blocks[p] = bytes;
  return p;
}

void free_host(void* pointer) {
  if (pointer == nullptr) return;
  const Lock lock(world().mutex);
  require(world().host_blocks.erase(pointer) == 1, "free_host: {} is not pinned memory", pointer);
  world().host_garbage.push_back(pointer);
  collect_garbage();
}

namespace {

void require_host(const char* call, const void* p) {
  require(!world().heap.contains(p), "{}: {} is device memory, expected host memory", call, p);
}

}  // namespace

void copy_to_device(void* to, const void* from, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const Lock lock(world().mutex);
  const auto s = find("copy_to_device", stream);
  require_host("copy_to_device", from);
  world().heap.require_live("copy_to_device", to, bytes, true);
  put(
      s,
      [=] {
        world().heap.require_live("copy_to_device", to, bytes, false);
        memcpy(to, from, bytes);
      },
      false);
}

void copy_to_host(void* to, const void* from, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const Lock lock(world().mutex);
  const auto s = find("copy_to_host", stream);
  require_host("copy_to_host", to);
  world().heap.require_live("copy_to_host", from, bytes, true);
  memset(to, 0xff, bytes);  // a read before the wait gets NaN
  put(
      s,
      [=] {
        world().heap.require_live("copy_to_host", from, bytes, false);
        memcpy(to, from, bytes);
      },
      false);
}

void copy_on_device(void* to, const void* from, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const Lock lock(world().mutex);
  const auto s = find("copy_on_device", stream);
  world().heap.require_live("copy_on_device", to, bytes, true);
  world().heap.require_live("copy_on_device", from, bytes, true);
  const auto a = reinterpret_cast<uintptr_t>(to), b = reinterpret_cast<uintptr_t>(from);
  require(a + bytes <= b || b + bytes <= a, "copy_on_device: source and destination overlap");
  put(
      s,
      [=] {
        world().heap.require_live("copy_on_device", to, bytes, false);
        world().heap.require_live("copy_on_device", from, bytes, false);
        memcpy(to, from, bytes);
      },
      false);
}

void fill(void* to, uint8_t byte, size_t bytes, Stream stream) {
  if (bytes == 0) return;
  const Lock lock(world().mutex);
  const auto s = find("fill", stream);
  world().heap.require_live("fill", to, bytes, true);
  put(
      s,
      [=] {
        world().heap.require_live("fill", to, bytes, false);
        memset(to, byte, bytes);
      },
      false);
}

}  // namespace modrwkv::cuda

namespace simt::detail {

void enqueue(modrwkv::cuda::Stream stream, std::function<void()> work, bool always) {
  const modrwkv::cuda::Lock lock(modrwkv::cuda::world().mutex);
  modrwkv::cuda::put(modrwkv::cuda::find("enqueue", stream), std::move(work), always);
}

bool in_device_memory(const void* p) { return modrwkv::cuda::world().heap.contains(p); }

void require_device_range(const char* call, const void* p, size_t bytes, bool from_host) {
  const modrwkv::cuda::Lock lock(modrwkv::cuda::world().mutex);
  modrwkv::cuda::world().heap.require_live(call, p, bytes, from_host);
}

}  // namespace simt::detail
