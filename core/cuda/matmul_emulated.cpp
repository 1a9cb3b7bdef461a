// matmul in the emulator: queued like a kernel, computed by OpenBLAS on one thread, bf16 widened to f32.
#include <cblas.h>

#include <vector>

#include "core/cuda/matmul_check.h"
#include "core/simt/emulator.h"

namespace modrwkv::cuda {
namespace {

// Elements from the first to the last of `batch` matrices [rows, columns].
int64_t extent(int64_t rows, int64_t columns, int64_t ld, int64_t stride, int64_t batch) {
  return rows == 0 || columns == 0 ? 0 : (batch - 1) * stride + (rows - 1) * ld + columns;
}

void require_ranges(const Matmul& p, bool from_host) {
  const auto check = [&](const void* x, int64_t elements, DType type) {
    if (elements > 0)
      simt::detail::require_device_range("matmul", x, size_t(elements) * size_of(type), from_host);
  };
  check(p.a, extent(p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k, p.lda, p.stride_a, p.batch), p.input);
  check(p.b, extent(p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n, p.ldb, p.stride_b, p.batch), p.input);
  check(p.c, extent(p.m, p.n, p.ldc, p.stride_c, p.batch), p.output);
  if (p.bias != nullptr) check(p.bias, p.n, p.bias_type);
}

float element(const void* p, int64_t i, DType type) {
  return type == DType::f32 ? static_cast<const float*>(p)[i] : to_float(static_cast<const bf16*>(p)[i]);
}

// A dense f32 copy of one matrix.
std::vector<float> widened(const void* p, int64_t first, int64_t rows, int64_t columns, int64_t ld,
                           DType type) {
  std::vector<float> x(size_t(rows * columns));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) x[size_t(r * columns + c)] = element(p, first + r * ld + c, type);
  }
  return x;
}

void multiply(const Matmul& p) {
  require_ranges(p, false);
  const int threads = openblas_get_num_threads();
  if (threads != 1) openblas_set_num_threads(1);
  const int64_t a_rows = p.trans_a ? p.k : p.m, a_columns = p.trans_a ? p.m : p.k;
  const int64_t b_rows = p.trans_b ? p.n : p.k, b_columns = p.trans_b ? p.k : p.n;
  std::vector<float> c(size_t(p.m * p.n));
  for (int64_t i = 0; i < p.batch; ++i) {
    const std::vector<float> a = widened(p.a, i * p.stride_a, a_rows, a_columns, p.lda, p.input);
    const std::vector<float> b = widened(p.b, i * p.stride_b, b_rows, b_columns, p.ldb, p.input);
    std::fill(c.begin(), c.end(), 0.0f);
    if (p.k > 0) {
      cblas_sgemm(CblasRowMajor, p.trans_a ? CblasTrans : CblasNoTrans, p.trans_b ? CblasTrans : CblasNoTrans,
                  int(p.m), int(p.n), int(p.k), 1.0f, a.data(), int(a_columns), b.data(), int(b_columns), 0.0f,
                  c.data(), int(p.n));
    }
    for (int64_t row = 0; row < p.m; ++row) {
      for (int64_t column = 0; column < p.n; ++column) {
        const int64_t at = i * p.stride_c + row * p.ldc + column;
        float y = c[size_t(row * p.n + column)];
        if (p.beta != 0) y += p.beta * element(p.c, at, p.output);
        if (p.bias != nullptr) y += element(p.bias, column, p.bias_type);
        if (p.output == DType::f32) {
          static_cast<float*>(p.c)[at] = y;
        } else {
          static_cast<bf16*>(p.c)[at] = to_bf16(y);
        }
      }
    }
  }
  if (threads != 1) openblas_set_num_threads(threads);
}

}  // namespace

void matmul(const Matmul& problem, Stream stream) {
  if (!check_matmul(problem)) return;
  require_ranges(problem, true);
  simt::detail::enqueue(stream, [problem] { multiply(problem); });
}

}  // namespace modrwkv::cuda
