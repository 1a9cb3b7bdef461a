// Initial values of parameters. Always computed on the CPU, from Philox with counter (init, hash of the
// parameter's name, position), so that a parameter's values depend on the seed and its name alone. All results
// are f32 on the CPU.
#pragma once
#include <string>

#include "core/tensor.h"

namespace modrwkv {

class Init {
 public:
  explicit Init(uint64_t seed) : seed_(seed) {}
  Tensor uniform(const std::string& name, const Shape& shape, double bound) const;  // in (-bound, bound)
  // A matrix with orthonormal rows or columns (the shorter side) times gain: Q of the QR decomposition of a
  // normal matrix, columns multiplied by the signs of R's diagonal, as torch.nn.init.orthogonal_.
  Tensor orthogonal(const std::string& name, int64_t rows, int64_t cols, double gain) const;

 private:
  uint64_t seed_;
};

}  // namespace modrwkv
