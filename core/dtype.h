// Element types of tensors and the dispatch from a run-time DType to a C++ type.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/bf16.h"

namespace modrwkv {

// f16 occurs in files only; bf16 on the CPU is storage only.
enum class DType : uint8_t { f32, bf16, f16, f64, i32, i64, u8 };

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr const char* name_of(DType t) {
  constexpr const char* names[] = {"f32", "bf16", "f16", "f64", "i32", "i64", "u8"};
  return names[int(t)];
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::u8;
};

[[noreturn]] void fail_dtype(const char* where, DType got, const char* expected);  // tensor.cpp

// CPU ops compute in f32 and f64: calls body(float{}) or body(double{}).
template <class Body>
void for_cpu_float(const char* op, DType t, Body&& body) {
  if (t == DType::f32) return body(float{});
  if (t == DType::f64) return body(double{});
  fail_dtype(op, t, "f32 or f64 on the CPU");
}

// CUDA ops store f32 or bf16 and compute in fp32: calls body(float{}) or body(bf16{}).
template <class Body>
void for_cuda_float(const char* op, DType t, Body&& body) {
  if (t == DType::f32) return body(float{});
  if (t == DType::bf16) return body(bf16{});
  fail_dtype(op, t, "f32 or bf16 on CUDA");
}

}  // namespace modrwkv
