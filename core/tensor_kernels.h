// The element-wise kernels that Tensor itself needs on CUDA. f32 and bf16, and f32 <-> i32, i64 where noted.
#pragma once
#include "core/tensor.h"

namespace modrwkv::cuda {

MODRWKV_LAUNCHER void convert(const Tensor& from, Tensor& to);  // f32 <-> bf16; to = from
MODRWKV_LAUNCHER void add_to(const Tensor& from, Tensor& to);   // f32 and bf16, mixed; to += from
MODRWKV_LAUNCHER void fill_value(Tensor& to, double value);     // f32, bf16, i32

}  // namespace modrwkv::cuda
