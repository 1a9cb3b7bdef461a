// RWKV-7 ("x070", arXiv 2503.14456), the backbone: names, shapes and initialisation are those of the official
// checkpoints.
//
//   x = ln0(embedding);  for each block: x += time_mix(ln1(x)), x += channel_mix(ln2(x));  logits =
//   head(ln_out(x))
//
// Time mix, per head with state S [value, key] and, for each token, vectors r, k, v, a, b and decay w in
// (0.545, 1):
//   u = S a;  S = S diag(w) + u b^T + v k^T;  y = S r
#pragma once
#include <memory>
#include <vector>

#include "models/init.h"
#include "models/module.h"

namespace modrwkv {

struct Rwkv7Config {
  int64_t layers = 1;
  int64_t width = 64;      // C, a multiple of head_size
  int64_t head_size = 64;  // N
  int64_t ffn = 0;         // 0: 4 * width
  int64_t vocab = 0;       // 0: no embedding and no head, vectors come from outside
  int64_t rank_w = 0, rank_a = 0, rank_v = 0, rank_g = 0;  // 0: by the official rule for this width

  int64_t heads() const { return width / head_size; }
  void complete();  // fills the zeros in; refuses what does not fit
};

// What a sequence leaves behind; all members undefined means zeros.
struct Rwkv7State {
  struct Layer {
    Variable att_x;  // [B, C], last input of the time mix
    Variable S;      // [B, H, N, N], f32
    Variable ffn_x;  // [B, C], last input of the channel mix
  };
  std::vector<Layer> layers;
};

class Rwkv7Block;

class Rwkv7 : public Module {
 public:
  Rwkv7(Rwkv7Config config, const Init& init);
  ~Rwkv7() override;
  const Rwkv7Config& config() const { return config_; }

  Variable embed(const Tensor& tokens) const;  // i32 [B, T] -> [B, T, C]
  // x [B, T, C], before ln0 -> [B, T, C] after ln_out. `state` (optional) is read and replaced. reset u8 [B, T]
  // (optional): 1 where a new document starts, which sees nothing of what came before it.
  Variable forward(const Variable& x, Rwkv7State* state = nullptr, const Tensor& reset = Tensor()) const;
  Variable head(const Variable& hidden) const;  // [.., C] -> logits [.., V]

 private:
  Rwkv7Config config_;
  Variable emb_, ln0_weight_, ln0_bias_, ln_out_weight_, ln_out_bias_, head_;
  std::vector<std::unique_ptr<Rwkv7Block>> blocks_;
};

}  // namespace modrwkv
