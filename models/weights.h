// The model file (docs/data_formats.md): configuration as JSON, one dataset a tensor, and an
// index that makes opening one read. Format modrwkv.model; the kind is the backbone's name.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

struct NamedTensor {
  std::string name;     // as in the model, with its dots: "blocks.0.att.w1"
  Tensor tensor;        // f32, bf16, f16, f64, u8, i32 or i64, 1 to 4 axes
  int group = 0;        // of the optimiser: 0 decay, 1 no decay, 2 twice the rate and no decay
  bool buffer = false;  // not a weight
};

struct ModelFile {
  std::string kind;
  std::string config_json;           // canonical: sorted keys
  std::vector<NamedTensor> tensors;  // sorted by name, bytewise

  const Tensor* find(const std::string& name) const;  // null where missing
};

// Float tensors are stored as `dtype` where it is given (f32, bf16 or f64; rounded to nearest even), others as
// they are. Top-level keys of the configuration such as n_layer are repeated as attributes of /config.
void write_model_file(const std::string& path, const std::string& kind, const std::string& config_json,
                      const std::vector<NamedTensor>& tensors, std::optional<DType> dtype = std::nullopt);

// Everything, on the CPU, in the stored types, hashes verified. Refuses a file whose index and tensors
// disagree.
ModelFile read_model_file(const std::string& path);

}  // namespace modrwkv
