// The one-MLP adapter.
#include "models/adapter.h"

#include <cmath>

#include "core/error.h"
#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/layer_norm.h"
#include "ops/linear.h"

namespace modrwkv {

Adapter::Adapter(const AdapterConfig& config, int64_t in, int64_t out, const Init& init) {
  require(config.scale == 2 || config.scale == 4 || config.scale == 8, "adapter: scale {} is none of 2, 4, 8",
          config.scale);
  const int64_t hidden = config.scale * out;
  const auto layer = [&](const std::string& name, Variable& weight, Variable& bias, int64_t rows,
                         int64_t cols) {
    const double bound = 1 / std::sqrt(double(cols));
    add_parameter(name + ".weight", weight, init.uniform("adapter." + name + ".weight", {rows, cols}, bound));
    add_parameter(name + ".bias", bias, init.uniform("adapter." + name + ".bias", {rows}, bound));
  };
  layer("mlp.0", mlp0_weight_, mlp0_bias_, hidden, in);
  layer("mlp.2", mlp2_weight_, mlp2_bias_, out, hidden);
  add_parameter("pre_norm.weight", norm_weight_, Tensor::full({out}, 1.0));
  add_parameter("pre_norm.bias", norm_bias_, Tensor::zeros({out}));
}

Variable Adapter::forward(const Variable& x) const {
  const Variable m = linear(relu(linear(x, mlp0_weight_, mlp0_bias_)), mlp2_weight_, mlp2_bias_);
  return add(m, layer_norm(m, norm_weight_, norm_bias_, 1e-5));
}

}  // namespace modrwkv
