// Which kernels this process executed, and under which schedules: appended to $SIMT_COVERAGE at exit, one line
// "kernel<TAB>source file<TAB>schedule" each. The kernel is the mangled name of KernelTag<K>, which is also the
// name of a symbol in the object: tools/kernel_coverage.sh compares the two.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "core/simt/internal.h"

namespace simt::detail {
namespace {

std::mutex mutex;
Kernel* first = nullptr;

void append_coverage() {
  const char* path = std::getenv("SIMT_COVERAGE");
  if (path == nullptr || *path == 0) return;
  std::string lines;
  for (const Kernel* k = first; k != nullptr; k = k->next) {
    for (int s = 0; s < kSchedules; ++s) {
      if (k->schedules >> s & 1) lines += fmt::format("{}\t{}\t{}\n", k->symbol, k->file, name_of(Schedule(s)));
    }
  }
  const int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
  if (file < 0 || write(file, lines.data(), lines.size()) != ssize_t(lines.size())) {
    std::fprintf(stderr, "simt: SIMT_COVERAGE=%s: the list of kernels cannot be written\n", path);
    _exit(1);
  }
  close(file);
}

}  // namespace

void record_coverage(Kernel& kernel, Schedule schedule) {
  if (kernel.schedules >> int(schedule) & 1) return;
  const std::lock_guard lock(mutex);
  kernel.schedules |= 1u << int(schedule);
  if (kernel.listed) return;
  kernel.listed = true;
  kernel.next = first;
  if (first == nullptr) std::atexit(append_coverage);
  first = &kernel;
}

}  // namespace simt::detail
