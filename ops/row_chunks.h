// CPU loops over rows whose parameter gradients are sums over all rows. Rows are cut into chunks of a fixed
// size, each chunk has sums of its own, and these are added in order: the result does not depend on the number
// of threads.
#pragma once
#include <algorithm>
#include <array>
#include <vector>

#include "core/parallel.h"
#include "core/tensor.h"

namespace modrwkv {

constexpr int64_t kRowsPerChunk = 32;
constexpr size_t kMaxChunkSums = 6;
template <class T>
using ChunkSums = std::array<T*, kMaxChunkSums>;

// Calls body(begin, end, sums) for every chunk of rows [begin, end). sums[i] are the chunk's own sums for
// totals[i], zero at first and as many as totals[i] has elements; null where totals[i] is undefined. `work` is
// about the cost of a row.
template <class T, class Body>
void for_row_chunks(int64_t rows, int64_t work, const std::vector<Tensor>& totals, Body&& body) {
  const int64_t chunks = (rows + kRowsPerChunk - 1) / kRowsPerChunk;
  int64_t columns = 0;
  for (const Tensor& t : totals) columns += t.defined() ? t.numel() : 0;
  const MemoryScope scope(MemoryTag::workspace);
  const Tensor partial = Tensor::empty({chunks, columns}, DTypeOf<T>::value);
  parallel_for(chunks, 1 + (1 << 15) / (work * kRowsPerChunk + 1), [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      T* free = partial.data<T>() + chunk * columns;
      std::fill(free, free + columns, T(0));
      ChunkSums<T> sums{};
      for (size_t i = 0; i < totals.size(); ++i) {
        if (!totals[i].defined()) continue;
        sums[i] = free;
        free += totals[i].numel();
      }
      body(chunk * kRowsPerChunk, std::min(rows, (chunk + 1) * kRowsPerChunk), sums);
    }
  });
  const T* column = partial.data<T>();
  for (const Tensor& t : totals) {
    if (!t.defined()) continue;
    T* total = t.data<T>();
    parallel_for(t.numel(), 1 + (1 << 15) / (chunks + 1), [&](int64_t begin, int64_t end) {
      std::fill(total + begin, total + end, T(0));
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const T* sums = column + chunk * columns;
        for (int64_t c = begin; c < end; ++c) total[c] += sums[c];
      }
    });
    column += t.numel();
  }
}

}  // namespace modrwkv
