// Checks shapes, counts FLOPs and calls the vendor's GEMM.
#include "core/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/cuda/runtime.h"
#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

// Below this, some two milliseconds, a second thread may be late by more than it saves.
constexpr double kOneThreadFlops = 2e8;

std::atomic<int64_t> flops{0};
std::atomic<bool> tf32{false};

struct Matrix {
  int64_t rows, cols;
};

// A tensor as a matrix of its last axis; `skip` leading axes belong to the batch.
Matrix as_matrix(const Tensor& t, int skip) {
  require(t.rank() >= 1 + skip, "gemm: {} is not a matrix", t.str());
  const int64_t cols = t.size(-1);
  int64_t rows = 1;
  for (int i = skip; i < t.rank() - 1; ++i) rows *= t.size(i);
  return {rows, cols};
}

void bias_rows(Tensor& c, const Tensor& bias, int64_t m, int64_t n) {
  const auto copy = [&](auto t) {
    using T = decltype(t);
    T* y = c.data<T>();
    const T* b = bias.data<T>();
    parallel_for(m, std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) memcpy(y + i * n, b, size_t(n) * sizeof(T));
    });
  };
  for_cpu_float("gemm: bias", c.dtype(), copy);
}

void product(const Tensor& a, const Tensor& b, Tensor& c, GemmOptions o, const Tensor* bias, int64_t batch) {
  const int skip = batch < 0 ? 0 : 1;
  const Matrix ma = as_matrix(a, skip), mb = as_matrix(b, skip), mc = as_matrix(c, skip);
  const int64_t m = o.trans_a ? ma.cols : ma.rows, k = o.trans_a ? ma.rows : ma.cols;
  const int64_t kb = o.trans_b ? mb.cols : mb.rows, n = o.trans_b ? mb.rows : mb.cols;
  require(k == kb && mc.rows == m && mc.cols == n, "gemm: A {}{}, B {}{} and C {} do not fit", a.shape().str(),
          o.trans_a ? "^T" : "", b.shape().str(), o.trans_b ? "^T" : "", c.shape().str());
  require(a.device() == b.device() && a.device() == c.device(), "gemm: A on {}, B on {}, C on {}",
          to_string(a.device()), to_string(b.device()), to_string(c.device()));
  require(a.dtype() == b.dtype() &&
              (c.dtype() == a.dtype() || (a.dtype() == DType::bf16 && c.dtype() == DType::f32)),
          "gemm: types {} x {} -> {}", name_of(a.dtype()), name_of(b.dtype()), name_of(c.dtype()));
  require(bias == nullptr || (!o.accumulate && bias->numel() == n && bias->device() == c.device()),
          "gemm: bias {} for C {}", bias ? bias->str() : "", c.str());
  const int64_t problems = batch < 0 ? 1 : batch;
  if (m == 0 || n == 0 || problems == 0) return;
  flops.fetch_add(2 * m * n * k * problems, std::memory_order_relaxed);
  if (c.device().is_cuda()) {
    cuda::Matmul p;
    p.trans_a = o.trans_a;
    p.trans_b = o.trans_b;
    p.m = m;
    p.n = n;
    p.k = k;
    p.a = a.raw();
    p.b = b.raw();
    p.c = c.raw();
    p.bias = bias ? bias->raw() : nullptr;
    p.lda = ma.cols;
    p.ldb = mb.cols;
    p.ldc = n;
    p.batch = problems;
    p.stride_a = m * k;
    p.stride_b = k * n;
    p.stride_c = m * n;
    p.input = a.dtype();
    p.output = c.dtype();
    p.bias_type = bias ? bias->dtype() : c.dtype();
    p.beta = o.accumulate ? 1.0f : 0.0f;
    p.allow_tf32 = tf32;
    cuda::matmul(p, cuda::current_stream());
    return;
  }
  require(bias == nullptr || bias->dtype() == c.dtype(), "gemm: bias is {}, C is {}",
          bias ? name_of(bias->dtype()) : "", name_of(c.dtype()));
  set_blas_threads(2.0 * double(m) * double(n) * double(k) < kOneThreadFlops ? 1 : threads());
  if (bias != nullptr) bias_rows(c, *bias, m, n);
  const auto ta = o.trans_a ? CblasTrans : CblasNoTrans, tb = o.trans_b ? CblasTrans : CblasNoTrans;
  const double beta = o.accumulate || bias != nullptr ? 1.0 : 0.0;
  for_cpu_float("gemm", a.dtype(), [&](auto t) {
    using T = decltype(t);
    for (int64_t i = 0; i < problems; ++i) {
      const T* pa = a.data<T>() + i * m * k;
      const T* pb = b.data<T>() + i * k * n;
      T* pc = c.data<T>() + i * m * n;
      if constexpr (sizeof(T) == 4) {
        cblas_sgemm(CblasRowMajor, ta, tb, int(m), int(n), int(k), 1.0f, pa, int(ma.cols), pb, int(mb.cols),
                    float(beta), pc, int(n));
      } else {
        cblas_dgemm(CblasRowMajor, ta, tb, int(m), int(n), int(k), 1.0, pa, int(ma.cols), pb, int(mb.cols),
                    beta, pc, int(n));
      }
    }
  });
}

}  // namespace

void gemm(const Tensor& a, const Tensor& b, Tensor& c, GemmOptions options, const Tensor* bias) {
  product(a, b, c, options, bias, -1);
}

void batched_gemm(const Tensor& a, const Tensor& b, Tensor& c, GemmOptions options) {
  require(a.rank() >= 3 && b.rank() >= 3 && c.rank() >= 3 && a.size(0) == b.size(0) && a.size(0) == c.size(0),
          "batched_gemm: A {}, B {}, C {}", a.shape().str(), b.shape().str(), c.shape().str());
  product(a, b, c, options, nullptr, a.size(0));
}

int64_t gemm_flops() { return flops; }
void allow_tf32(bool on) { tf32 = on; }

}  // namespace modrwkv
