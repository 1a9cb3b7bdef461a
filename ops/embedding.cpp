// Embedding: checks, CPU loops and the tape.
#include "ops/embedding.h"

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"

namespace modrwkv {
namespace {

namespace cpu {

void embedding_forward(const Tensor& weight, const Tensor& ids, Tensor& y) {
  const int64_t V = weight.size(0), C = weight.size(1), tokens = ids.numel();
  const int32_t* id = ids.data<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    require(id[t] >= 0 && id[t] < V, "embedding: id {} at position {} is outside the vocabulary of {}", id[t],
            t, V);
  }
  for_cpu_float("embedding", weight.dtype(), [&](auto zero) {
    using T = decltype(zero);
    parallel_for(tokens, 1 + (1 << 15) / (C + 1), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        std::copy_n(weight.data<T>() + id[t] * C, C, y.data<T>() + t * C);
      }
    });
  });
}

// A thread owns a range of channels and walks over all tokens.
void embedding_backward(const Tensor& dy, const Tensor& ids, Tensor& dweight) {
  const int64_t C = dweight.size(1), tokens = ids.numel();
  const int32_t* id = ids.data<int32_t>();
  for_cpu_float("embedding", dy.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dw = dweight.data<T>();
    parallel_for(dweight.numel(), 1 << 16,
                 [&](int64_t begin, int64_t end) { std::fill(dw + begin, dw + end, T(0)); });
    parallel_for(C, 1 + (1 << 15) / (tokens + 1), [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tokens; ++t) {
        const T* from = dy.data<T>() + t * C;
        T* to = dw + id[t] * C;
        for (int64_t c = begin; c < end; ++c) to[c] += from[c];
      }
    });
  });
}

}  // namespace cpu
}  // namespace

Variable embedding(const Variable& weight, const Tensor& ids) {
  require(weight.shape().rank() == 2, "embedding: weight is {}, expected [V, C]", weight.value().str());
  require(ids.defined() && ids.dtype() == DType::i32 && ids.device() == weight.device() &&
              ids.rank() < Shape::kMaxRank,
          "embedding: ids are {}, expected i32 on {} with at most {} axes", ids.str(),
          to_string(weight.device()), Shape::kMaxRank - 1);
  std::vector<int64_t> sizes;
  for (int i = 0; i < ids.rank(); ++i) sizes.push_back(ids.size(i));
  sizes.push_back(weight.size(1));
  Tensor y = Tensor::empty(Shape(sizes), weight.dtype(), weight.device());
  run(weight.device(), cpu::embedding_forward, cuda::embedding_forward, weight.value(), ids, y);
  return record("embedding", y, {weight}, [ids](Grads& g) {
    Tensor dweight = g.write_param(0);
    run(ids.device(), cpu::embedding_backward, cuda::embedding_backward, g.out(), ids, dweight);
  });
}

}  // namespace modrwkv
