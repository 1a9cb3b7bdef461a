// WaveNet encoder of a series: causal dilated convolutions with gated units, residual and skip connections
// (van den Oord et al. 2016, arXiv 1609.03499).
//
//   h = embed(patch);  for block i, dilation 2^i:  z = tanh(filter(h)) * sigmoid(gate(h)),  s += skip(z),  h +=
//   res(z) tokens = out2(relu(out1(relu(s))))
#pragma once
#include <memory>
#include <vector>

#include "models/init.h"
#include "models/module.h"

namespace modrwkv {

struct WaveNetConfig {
  int64_t patch =
      4;  // values of the series that make one step; the oldest patch is filled up with zeros on the left
  int64_t residual = 16;  // R
  int64_t skip = 32;      // S
  int64_t out = 64;       // E, width of a token
  int64_t kernel = 2;
  int64_t blocks = 7;  // dilations 1, 2, 4, .. 2^(blocks-1)

  int64_t receptive_field() const { return 1 + (kernel - 1) * ((int64_t(1) << blocks) - 1); }  // in steps
  int64_t steps(int64_t lookback) const { return (lookback + patch - 1) / patch; }
};

class WaveNet : public Module {
 public:
  WaveNet(const WaveNetConfig& config, const Init& init);
  ~WaveNet() override;
  Variable encode(const Variable& series) const;  // [B, L] -> [B, ceil(L / patch), E]

 private:
  struct Block;
  WaveNetConfig config_;
  Variable embed_weight_, embed_bias_, out1_weight_, out1_bias_, out2_weight_, out2_bias_;
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace modrwkv
