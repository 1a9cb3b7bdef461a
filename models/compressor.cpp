// The conv1d compressor.
#include "models/compressor.h"

#include <cmath>

#include "core/error.h"
#include "ops/conv1d.h"

namespace modrwkv {

Compressor::Compressor(const CompressorConfig& config, int64_t width, const Init& init) : config_(config) {
  require(config.kernel >= 0 && config.stride >= 1, "compressor: kernel {} and stride {}", config.kernel,
          config.stride);
  if (config.kernel == 0) return;
  const double bound = 1 / std::sqrt(double(width * config.kernel));
  add_parameter("weight", weight_, init.uniform("compressor.weight", {width, width, config.kernel}, bound));
  add_parameter("bias", bias_, init.uniform("compressor.bias", {width}, bound));
}

int64_t Compressor::pad_left(const CompressorConfig& c, int64_t steps) {
  if (steps < c.kernel) return c.kernel - steps;
  return (c.stride - (steps - c.kernel) % c.stride) % c.stride;
}

int64_t Compressor::tokens(const CompressorConfig& c, int64_t steps) {
  return c.kernel == 0 ? steps : (steps + pad_left(c, steps) - c.kernel) / c.stride + 1;
}

Variable Compressor::forward(const Variable& x) const {
  if (config_.kernel == 0) return x;
  return conv1d(x, weight_, bias_, {.stride = config_.stride, .pad_left = pad_left(config_, x.size(1))});
}

}  // namespace modrwkv
