// Uniform and orthogonal initialisation.
#include "models/init.h"

#include <algorithm>
#include <vector>

#include "core/error.h"
#include "core/random.h"

extern "C" {  // LAPACK, in OpenBLAS
void dgeqrf_(const int* m, const int* n, double* a, const int* lda, double* tau, double* work, const int* lwork,
             int* info);
void dorgqr_(const int* m, const int* n, const int* k, double* a, const int* lda, const double* tau,
             double* work, const int* lwork, int* info);
}

namespace modrwkv {
namespace {

uint32_t hash(const std::string& name) {  // FNV-1a
  uint32_t h = 2166136261u;
  for (const char c : name) h = (h ^ uint8_t(c)) * 16777619u;
  return h;
}

}  // namespace

Tensor Init::uniform(const std::string& name, const Shape& shape, double bound) const {
  RandomStream random(seed_, Purpose::init, 0, hash(name));
  Tensor t = Tensor::empty(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = float(random.uniform(-bound, bound));
  return t;
}

Tensor Init::orthogonal(const std::string& name, int64_t rows, int64_t cols, double gain) const {
  // LAPACK is column-major: a row-major [rows, cols] array is its transpose, so the tall orientation needs long
  // >= short.
  const int64_t tall = std::max(rows, cols), thin = std::min(rows, cols);
  RandomStream random(seed_, Purpose::init, 0, hash(name));
  std::vector<double> a(size_t(tall * thin)), tau(static_cast<size_t>(thin));
  for (double& x : a) x = random.normal();
  const int m = int(tall), n = int(thin);
  int info = 0, lwork = -1;
  double best = 0;
  dgeqrf_(&m, &n, a.data(), &m, tau.data(), &best, &lwork, &info);
  lwork = std::max(int(best), n);
  std::vector<double> work(static_cast<size_t>(lwork));
  dgeqrf_(&m, &n, a.data(), &m, tau.data(), work.data(), &lwork, &info);
  require(info == 0, "initialisation of {}: dgeqrf returned {}", name, info);
  std::vector<double> sign(static_cast<size_t>(thin));
  for (int64_t j = 0; j < thin; ++j) sign[size_t(j)] = a[size_t(j * tall + j)] < 0 ? -gain : gain;
  dorgqr_(&m, &n, &n, a.data(), &m, tau.data(), work.data(), &lwork, &info);
  require(info == 0, "initialisation of {}: dorgqr returned {}", name, info);
  Tensor t = Tensor::empty({rows, cols});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t i = rows >= cols ? r : c, j = rows >= cols ? c : r;  // element (i, j) of the tall Q
      t.data<float>()[r * cols + c] = float(sign[size_t(j)] * a[size_t(j * tall + i)]);
    }
  }
  return t;
}

}  // namespace modrwkv
