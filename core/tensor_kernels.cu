// Element-wise kernels of Tensor: conversion, addition, fill. One thread an element; all are bound by memory.
#include "core/tensor_kernels.h"

#include "core/cuda/runtime.h"
#include "core/simt/simt.h"

namespace modrwkv::cuda {
namespace {

constexpr int kThreads = 256;

unsigned blocks(int64_t n) { return unsigned((n + kThreads - 1) / kThreads); }

// Read size(From), write size(To) bytes an element.
template <class From, class To>
__global__ void convert_kernel(const From* from, To* to, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from_float<To>(to_float(from[i]));
}

// Read size(From) + size(To), write size(To) bytes an element.
template <class From, class To>
__global__ void add_to_kernel(const From* from, To* to, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from_float<To>(to_float(to[i]) + to_float(from[i]));
}

template <class T>
__global__ void fill_kernel(T* to, T value, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) to[i] = value;
}

}  // namespace

void convert(const Tensor& from, Tensor& to) {
  for_cuda_float("convert", from.dtype(), [&](auto f) {
    for_cuda_float("convert", to.dtype(), [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      if constexpr (sizeof(From) != sizeof(To)) {  // equal types are copied, not converted
        simt::launch<convert_kernel<From, To>>({blocks(to.numel()), kThreads, 0, current_stream()},
                                               from.data<From>(), to.data<To>(), to.numel());
      }
    });
  });
}

void add_to(const Tensor& from, Tensor& to) {
  for_cuda_float("add", from.dtype(), [&](auto f) {
    for_cuda_float("add", to.dtype(), [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      simt::launch<add_to_kernel<From, To>>({blocks(to.numel()), kThreads, 0, current_stream()},
                                            from.data<From>(), to.data<To>(), to.numel());
    });
  });
}

void fill_value(Tensor& to, double value) {
  if (to.dtype() == DType::i32) {
    simt::launch<fill_kernel<int32_t>>({blocks(to.numel()), kThreads, 0, current_stream()}, to.data<int32_t>(),
                                       int32_t(value), to.numel());
    return;
  }
  for_cuda_float("fill", to.dtype(), [&](auto t) {
    using T = decltype(t);
    simt::launch<fill_kernel<T>>({blocks(to.numel()), kThreads, 0, current_stream()}, to.data<T>(),
                                 from_float<T>(float(value)), to.numel());
  });
}

}  // namespace modrwkv::cuda
