// The first argument of simt::launch. Included by both halves, after dim3 is known.
#pragma once

namespace simt {

// A grid or block from any integers, so that {rows, 256, 0, stream} needs no casts. A size below 0 or past 32
// bits becomes 0, which no launch accepts.
struct extent {
  extent(dim3 size) : size(size) {}
  template <class X, class Y = int, class Z = int>
  requires(std::is_integral_v<X>&& std::is_integral_v<Y>&& std::is_integral_v<Z>) extent(X x, Y y = 1, Z z = 1)
      : size(checked(x), checked(y), checked(z)) {}
  template <class I>
  static unsigned checked(I n) {
    const auto wide = static_cast<long long>(n);
    return wide < 0 || wide > 0xffffffffll ? 0u : static_cast<unsigned>(wide);
  }
  dim3 size;
};

struct byte_count {
  template <class I>
  requires std::is_integral_v<I> byte_count(I n) : n(static_cast<size_t>(n)) {}
  size_t n;
};

struct dims {
  dims(extent grid, extent block, byte_count smem, modrwkv::cuda::Stream stream SIMT_AT)
      : grid(grid.size), block(block.size), smem(smem.n), stream(stream) {
#ifdef SIMT_EMULATED
    this->at = at;
#endif
  }
  dim3 grid, block;
  size_t smem;  // dynamic shared memory
  modrwkv::cuda::Stream stream;
#ifdef SIMT_EMULATED
  where at;
#endif
};

}  // namespace simt
