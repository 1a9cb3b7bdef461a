// CPU threads over rows. OpenMP and BLAS share one thread count.
#pragma once
#include <omp.h>

#include <cstdint>

namespace modrwkv {

void set_threads(int count);  // of this process; 0 means all cores of the machine
int threads();
void set_blas_threads(int count);  // of the products that follow; gemm chooses by their size

// Calls body(begin, end) on disjoint ranges that cover [0, n). `grain` items are some ten microseconds of work;
// a second thread is woken only where each gets 32 grains, because on a busy machine it may be late by more
// than it saves. grain 0: every item is worth a thread. The ranges depend on n, grain and the thread count
// alone.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  if (n <= 0) return;
  const int64_t most = grain == 0 ? n : n / (32 * grain);
  const int team = int(most < threads() ? most : threads());
  if (team <= 1 || omp_in_parallel()) return body(int64_t(0), n);
#pragma omp parallel num_threads(team)
  {
    const int64_t t = omp_get_thread_num(), all = omp_get_num_threads();
    const int64_t begin = n * t / all, end = n * (t + 1) / all;
    if (begin < end) body(begin, end);
  }
}

}  // namespace modrwkv
