// Reports: what went wrong, in which kernel, block, thread and line, and where all the other threads stand.
// Also the two ends that cannot be thrown: a stack overflow (SIGSEGV) and a block that never ends (the
// watchdog).
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "core/simt/internal.h"

namespace simt {

namespace detail {
namespace {

std::string lanes_text(unsigned mask) {  // "0-15,17"
  std::string s;
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    int last = i;
    while (last < 31 && (mask >> (last + 1) & 1)) ++last;
    s += (s.empty() ? "" : ",") + (i == last ? fmt::format("{}", i) : fmt::format("{}-{}", i, last));
    i = last;
  }
  return s;
}

// One line a warp; warps in the same state share one.
std::string census(const Worker& w) {
  std::string all, last;
  int first = 0;
  const int count = (w.threads + 31) / 32;
  const auto flush = [&](int end) {
    if (last.empty()) return;
    all += end - first > 1 ? fmt::format("\n  warps {}-{}: {}", first, end - 1, last)
                           : fmt::format("\n  warp {}: {}", first, last);
  };
  for (int i = 0; i < count; ++i) {
    const Warp& warp = w.warps[i];
    std::string line;
    const auto add = [&](unsigned lanes, const std::string& state) {
      if (lanes != 0) line += (line.empty() ? "lanes " : "; lanes ") + lanes_text(lanes) + " " + state;
    };
    unsigned left = warp.exists;
    const unsigned running = i == w.current / 32 ? (1u << (w.current % 32)) & ~warp.done : 0;
    add(running, "here");
    add(warp.done, "returned");
    add(warp.exists & ~warp.started, "not started");
    left &= ~(running | warp.done | ~warp.started);
    add(left & warp.ready, "can run");
    unsigned waiting = left & ~warp.ready;
    while (waiting != 0) {  // group lanes that wait in the same place
      const Thread& t = w.thread[i * 32 + __builtin_ctz(waiting)];
      unsigned same = 0;
      for (int l = 0; l < 32; ++l) {
        const Thread& other = w.thread[i * 32 + l];
        if ((waiting >> l & 1) && other.at == t.at && other.mask == t.mask && other.operation == t.operation) {
          same |= 1u << l;
        }
      }
      add(same, t.mask == 0
                    ? fmt::format("wait in {} at {}", t.operation, text_of(t.at))
                    : fmt::format("wait in {} (mask {:08x}) at {}", t.operation, t.mask, text_of(t.at)));
      waiting &= ~same;
    }
    if (line != last) {
      flush(i);
      first = i;
      last = line;
    }
  }
  flush(count);
  return all;
}

std::string place(const Worker& w, int thread) {
  std::string s = fmt::format("kernel {} (launched at {}), block ({},{},{})", kernel_name(*w.kernel),
                              text_of(w.launched), blockIdx.x, blockIdx.y, blockIdx.z);
  if (thread >= 0) {
    const uint3 id = w.ids[thread];
    s += fmt::format(", thread ({},{},{}) = warp {} lane {}", id.x, id.y, id.z, thread / 32, thread % 32);
  }
  return s;
}

}  // namespace

std::string text_of(where at) {
  if (at.line == 0) return "an unknown line";
  return at.step == 0 ? fmt::format("{}:{}", at.file, at.line)
                      : fmt::format("{}:{} (step {})", at.file, at.line, at.step);
}

std::string kernel_name(const Kernel& kernel) {
  std::string s = kernel.function;
  const size_t begin = s.find("K = "), end = s.rfind(']');
  if (begin == std::string::npos || end == std::string::npos) return s;
  s = s.substr(begin + 4, end - begin - 4);
  return s[0] == '&' ? s.substr(1) : s;
}

std::string name_of(const SharedObject& object) {
  if (object.function == nullptr) return "dynamic_shared";
  std::string s = object.function;
  const size_t begin = s.find("T = ");
  if (begin == std::string::npos) return "shared<>";
  const size_t end = std::min({s.find("; int Tag", begin), s.find(", Tag", begin), s.rfind(']')});
  return "shared<" + s.substr(begin + 4, end - begin - 4) + ">";
}

Fault make_fault(const Worker& w, int thread, where at, std::string problem) {
  std::string text = place(w, thread);
  if (at.line != 0) text += ", " + text_of(at);
  Fault f(text + ": " + problem + (thread >= 0 ? census(w) : ""));
  f.kernel = kernel_name(*w.kernel);
  f.launched = w.launched;
  f.at = at;
  f.problem = std::move(problem);
  const uint3 block = blockIdx;
  f.block[0] = block.x, f.block[1] = block.y, f.block[2] = block.z;
  if (thread >= 0) {
    f.thread[0] = w.ids[thread].x, f.thread[1] = w.ids[thread].y, f.thread[2] = w.ids[thread].z;
    f.warp = thread / 32;
    f.lane = thread % 32;
  }
  return f;
}

// Never throws: a fiber's frames cannot be unwound to the host's stack. `problem` is moved out, so that no
// frame left behind owns memory.
namespace {
void note_fault(Worker& w, int thread, where at, std::string& problem) {
  const std::string mine = std::move(problem);
  problem = {};
  if (w.pending_fault == nullptr) w.pending_fault = std::make_unique<Fault>(make_fault(w, thread, at, mine));
}
}  // namespace

void fault(where at, std::string problem) {
  if (here == nullptr) throw Fault(text_of(at) + ": " + problem);
  note_fault(*here, here->current, at, problem);
  abandon_fiber(here->host);
}

void fault(int lane, const std::string& problem) {
  Worker& w = *here;
  const int thread = w.current / 32 * 32 + lane;
  note_fault(w, thread, w.thread[w.current].at, const_cast<std::string&>(problem));
  abandon_fiber(w.host);
}

void throw_launch_fault(const Kernel& kernel, const dims& d, const std::string& problem) {
  Fault f(fmt::format("kernel {} (launched at {}): {}", kernel_name(kernel), text_of(d.at), problem));
  f.kernel = kernel_name(kernel);
  f.launched = f.at = d.at;
  f.problem = problem;
  throw f;
}

// Watchdog and stack overflow.

namespace {

struct Watch {
  std::mutex mutex;
  std::vector<Worker*> workers;
  double seconds = 60;
  bool running = false;
};

Watch& watch_state() {
  static Watch* w = [] {
    auto* fresh = new Watch;
    if (const char* value = std::getenv("SIMT_WATCHDOG")) fresh->seconds = std::atof(value);
    return fresh;
  }();
  return *w;
}

void watch_forever() {
  Watch& state = watch_state();
  struct Seen {
    Worker* worker;
    uint64_t block;
    std::chrono::steady_clock::time_point since;
  };
  std::vector<Seen> seen;
  for (;;) {
    double limit;
    {
      const std::lock_guard lock(state.mutex);
      limit = state.seconds;
      const auto now = std::chrono::steady_clock::now();
      for (Worker* w : state.workers) {
        const uint64_t block = w->busy_with.load(std::memory_order_relaxed);
        auto s = std::find_if(seen.begin(), seen.end(), [w](const Seen& x) { return x.worker == w; });
        if (s == seen.end()) {
          seen.push_back({w, block, now});
        } else if (s->block != block) {
          *s = {w, block, now};
        } else if (block != 0 && limit > 0 && std::chrono::duration<double>(now - s->since).count() > limit) {
          const uint3 id = w->ids[w->current];
          std::fprintf(stderr,
                       "simt: kernel %s (launched at %s) has been in one block for %g seconds, now in thread "
                       "(%u,%u,%u) = "
                       "warp %d lane %d: does it spin on memory that another thread writes?\n",
                       kernel_name(*w->kernel).c_str(), text_of(w->launched).c_str(), limit, id.x, id.y, id.z,
                       w->current / 32, w->current % 32);
          std::abort();
        }
      }
    }
    const double nap = limit > 0 ? std::min(1.0, limit / 4) : 1.0;
    std::this_thread::sleep_for(std::chrono::duration<double>(nap));
  }
}

void start_watchdog(Watch& state) {
  if (state.running || state.seconds <= 0) return;
  state.running = true;
  // The thread does not survive a fork; the child starts its own at its first worker.
  [[maybe_unused]] static const int once =
      pthread_atfork(nullptr, nullptr, [] { watch_state().running = false; });
  std::thread(watch_forever).detach();
}

#if !SIMT_ASAN
struct sigaction segv_before;

// Not async-signal-safe in the letter (fmt allocates), but the process ends here.
void on_segv(int signal, siginfo_t* info, void* context) {
  if (Worker* w = here) {
    const bool guard = w->stacks.guard_hit(info->si_addr);
    const std::string text =
        fmt::format("simt: {}: {}\n", place(*w, w->current),
                    guard ? std::string("stack overflow: this thread's local arrays need more than 60 KiB")
                          : fmt::format("invalid address {}", static_cast<const void*>(info->si_addr)));
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
  }
  if (segv_before.sa_flags & SA_SIGINFO) {
    segv_before.sa_sigaction(signal, info, context);
  } else {
    sigaction(SIGSEGV, &segv_before, nullptr);  // and the access is tried again
  }
}

void catch_overflows() {
  static thread_local char* stack = nullptr;
  if (stack == nullptr) {
    constexpr size_t kBytes = 64 * 1024;
    stack = static_cast<char*>(std::malloc(kBytes));  // for the life of the thread
    const stack_t alternate{stack, 0, kBytes};
    sigaltstack(&alternate, nullptr);
  }
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_segv;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &segv_before);
  });
}
#else
void catch_overflows() {}  // ASan's own handler names the line
#endif

}  // namespace

void watch(Worker* w) {
  catch_overflows();
  Watch& state = watch_state();
  const std::lock_guard lock(state.mutex);
  state.workers.push_back(w);
  start_watchdog(state);
}

void unwatch(Worker* w) {
  Watch& state = watch_state();
  const std::lock_guard lock(state.mutex);
  std::erase(state.workers, w);
}

}  // namespace detail

void set_watchdog(double seconds) {
  detail::Watch& state = detail::watch_state();
  const std::lock_guard lock(state.mutex);
  state.seconds = seconds;
  if (!state.workers.empty()) detail::start_watchdog(state);
}

}  // namespace simt
