// Conv1D sequence compressor (ModRWKV, eq. 5): shortens a sequence of tokens by its stride; width stays.
#pragma once
#include "models/init.h"
#include "models/module.h"

namespace modrwkv {

struct CompressorConfig {
  int64_t kernel = 5;  // 0: no compressor
  int64_t stride = 4;
};

class Compressor : public Module {
 public:
  Compressor(const CompressorConfig& config, int64_t width, const Init& init);
  // [B, N, width] -> [B, tokens(N), width]. A series is padded with zeros on the left only, and only as far as
  // it takes for the last kernel to end on the last step, so that the newest values are never dropped.
  Variable forward(const Variable& x) const;
  static int64_t tokens(const CompressorConfig& config, int64_t steps);

 private:
  static int64_t pad_left(const CompressorConfig& config, int64_t steps);
  CompressorConfig config_;
  Variable weight_, bias_;
};

}  // namespace modrwkv
