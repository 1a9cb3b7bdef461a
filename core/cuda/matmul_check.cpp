#include "core/cuda/matmul_check.h"

#include "core/error.h"

namespace modrwkv::cuda {
namespace {

void check_operand(const char* name, const void* p, int64_t rows, int64_t columns, int64_t ld, int64_t stride,
                   int64_t batch, DType type) {
  if (rows == 0 || columns == 0) return;
  require(p != nullptr, "matmul: {} is null", name);
  require(ld >= columns, "matmul: {} is stored [{}, {}] but its row stride is {}", name, rows, columns, ld);
  require(batch == 1 || stride >= 0, "matmul: {} has the batch stride {}", name, stride);
  const size_t alignment = type == DType::bf16 ? 16 : size_of(type);
  require(uintptr_t(p) % alignment == 0, "matmul: {} ({}) lies at {}, expected a multiple of {} bytes", name,
          name_of(type), p, alignment);
}

}  // namespace

bool check_matmul(const Matmul& p) {
  require(p.m >= 0 && p.n >= 0 && p.k >= 0 && p.batch >= 0, "matmul: negative size: m {}, n {}, k {}, batch {}",
          p.m, p.n, p.k, p.batch);
  require(p.input == DType::f32 || p.input == DType::bf16, "matmul: inputs are {}, expected f32 or bf16",
          name_of(p.input));
  require(p.output == DType::f32 || (p.output == DType::bf16 && p.input == DType::bf16),
          "matmul: {} inputs cannot give a {} result", name_of(p.input), name_of(p.output));
  require(p.m <= INT32_MAX && p.n <= INT32_MAX && p.k <= INT32_MAX && p.batch <= INT32_MAX,
          "matmul: a size passes 2^31: m {}, n {}, k {}, batch {}", p.m, p.n, p.k, p.batch);
  if (p.m == 0 || p.n == 0 || p.batch == 0) return false;
  check_operand("A", p.a, p.trans_a ? p.k : p.m, p.trans_a ? p.m : p.k, p.lda, p.stride_a, p.batch, p.input);
  check_operand("B", p.b, p.trans_b ? p.n : p.k, p.trans_b ? p.k : p.n, p.ldb, p.stride_b, p.batch, p.input);
  check_operand("C", p.c, p.m, p.n, p.ldc, p.stride_c, p.batch, p.output);
  require(p.batch == 1 || p.stride_c >= (p.m - 1) * p.ldc + p.n,
          "matmul: results of a batch overlap: stride {} of [{}, {}]", p.stride_c, p.m, p.ldc);
  if (p.bias != nullptr) {
    require(p.bias_type == p.output, "matmul: the bias is {}, expected {} like C", name_of(p.bias_type),
            name_of(p.output));
    check_operand("bias", p.bias, 1, p.n, p.n, 0, 1, p.bias_type);
  }
  require(p.k > 0 || (p.bias == nullptr && (p.beta == 0 || p.beta == 1)),
          "matmul: k = 0 with a bias, or with beta {}", p.beta);
  return true;
}

}  // namespace modrwkv::cuda
