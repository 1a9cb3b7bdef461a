// Names and tables that saving and loading of checkpoints share.
#pragma once
#include <fmt/core.h>

#include <string>

#include "train/checkpoint.h"

namespace modrwkv {

constexpr const char* kCommonFile = "common.h5";
constexpr const char* kManifestFile = "MANIFEST.json";

inline std::string shard_name(int rank, int world) {
  return fmt::format("shard_{:05}_of_{:05}.h5", rank, world);
}

// body(object, attribute, field) for every typed field of the state: one list serves both directions.
template <class Body>
void each_attribute(TrainState& s, Body&& body) {
  body("/state", "step", s.step);
  body("/state", "tokens_seen", s.tokens_seen);
  body("/state", "samples_seen", s.samples_seen);
  body("/state", "epoch", s.epoch);
  body("/state", "adam_step", s.adam_step);
  body("/state", "world_size", s.world_size);
  body("/state", "dp", s.dp);
  body("/state", "tp", s.tp);
  body("/state", "pp", s.pp);
  body("/state", "global_batch", s.global_batch);
  body("/state", "micro_batch", s.micro_batch);
  body("/state", "accum", s.accum);
  body("/state", "loss_scale", s.loss_scale);
  body("/state", "lr", s.lr);
  body("/state", "best_metric", s.best_metric);
  body("/state/data", "seed", s.seed);
  body("/state/data", "cursor", s.cursor);
  body("/state/data", "epoch_len", s.epoch_len);
  body("/state/data", "dataset_hash", s.dataset_hash);
  body("/state/data", "shuffle", s.shuffle);
  body("/state/rng", "philox_key", s.philox_key);
  body("/state/rng", "philox_counter", s.philox_counter);
}

}  // namespace modrwkv
