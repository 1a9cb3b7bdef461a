// One thread count for OpenMP and OpenBLAS.
#include "core/parallel.h"

#include <cblas.h>

#include <algorithm>

namespace modrwkv {
namespace {
int count = 0, blas_count = 0;
}

void set_threads(int n) {
  count = n > 0 ? n : std::max(1, omp_get_num_procs());
  omp_set_num_threads(count);
  set_blas_threads(count);
}

void set_blas_threads(int n) {
  if (n == blas_count) return;
  openblas_set_num_threads(n);
  blas_count = n;
}

int threads() {
  if (count == 0) set_threads(0);
  return count;
}

}  // namespace modrwkv
