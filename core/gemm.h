// Matrix products, row-major: OpenBLAS on the CPU (f32, f64), cuBLASLt on CUDA (f32, bf16; fp32 accumulation).
#pragma once
#include "core/tensor.h"

namespace modrwkv {

// C[m,n] = op(A)[m,k] op(B)[k,n]  (+ C where accumulate)  (+ bias[n]).
// A is stored [m,k], or [k,m] with trans_a; B [k,n], or [n,k] with trans_b; the leading sizes may be spread
// over several axes ([B,T,C] is a matrix of B*T rows). bf16 inputs may write an f32 result. bias (of
// C's type) and accumulate exclude each other.
struct GemmOptions {
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;
};
void gemm(const Tensor& a, const Tensor& b, Tensor& c, GemmOptions options = {}, const Tensor* bias = nullptr);

// `batch` independent products over axis 0: A [batch,..], B [batch,..], C [batch,m,n].
void batched_gemm(const Tensor& a, const Tensor& b, Tensor& c, GemmOptions options = {});

// Multiply-adds done by gemm so far in this process, times two; utilisation = difference / time.
int64_t gemm_flops();

// f32 products on CUDA in tf32 (10-bit mantissa), off by default.
void allow_tf32(bool on);

}  // namespace modrwkv
