// The adapter between an encoder and the backbone: one MLP and a layer norm (ModRWKV, eq. 4).
//   m = mlp.2(relu(mlp.0(x)));  y = m + LN(m);  hidden width = scale * backbone width
#pragma once
#include "models/init.h"
#include "models/module.h"

namespace modrwkv {

struct AdapterConfig {
  int64_t scale = 4;  // 2, 4 or 8
};

class Adapter : public Module {
 public:
  Adapter(const AdapterConfig& config, int64_t in, int64_t out, const Init& init);
  Variable forward(const Variable& x) const;  // [B, N, in] -> [B, N, out]

 private:
  Variable mlp0_weight_, mlp0_bias_, mlp2_weight_, mlp2_bias_, norm_weight_, norm_bias_;
};

}  // namespace modrwkv
