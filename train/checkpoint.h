// Checkpoints (docs/data_formats.md): a directory that its MANIFEST.json, written last,
// commits.
//
//     CHECKPOINTS/step_00012000/common.h5                 configuration, counters, place in the data
//                               shard_00000_of_00008.h5   element ranges of the flat master weights and moments
//                               MANIFEST.json             names, sizes and hashes of the files
//
// Flat order: trained tensors sorted by name, each padded with zeros to a multiple of 64 elements. A shard says
// which ranges of that order it holds, so that any number of ranks can load what any other number has saved.
// Loading checks sizes always, and hashes up to 20 GB or when asked. Errors name the checkpoint and file; a
// damaged one never counts as the newest.
#pragma once
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/hdf5.h"
#include "core/tensor.h"
#include "models/weights.h"

namespace modrwkv {

constexpr uint64_t kFlatAlign = 64;

struct FlatTensor {
  std::string name;
  uint64_t begin = 0, count = 0;  // elements, without the padding behind it
};

struct FlatRange {
  uint64_t begin = 0, end = 0;
  bool operator==(const FlatRange&) const = default;
};

struct FlatMap {
  std::vector<FlatTensor> tensors;  // sorted by name
  uint64_t total = 0;               // with padding: a multiple of 64
};

// The flat order of tensors given by name and element count, in any order.
FlatMap flat_map(std::vector<std::pair<std::string, uint64_t>> tensors);
FlatRange flat_slice(uint64_t total, int rank, int world);

// Counters and choices of a run: attributes of /state.
struct TrainState {
  uint64_t step = 0, tokens_seen = 0, samples_seen = 0, epoch = 0, adam_step = 0;
  uint32_t world_size = 1, dp = 1, tp = 1, pp = 1, global_batch = 0, micro_batch = 0, accum = 1;
  double loss_scale = 1, lr = 0, best_metric = 0;
  // The data: next sample, and what the order is a function of.
  uint64_t seed = 0, cursor = 0, epoch_len = 0, dataset_hash = 0;
  std::string shuffle = "feistel.v1";
  std::vector<int32_t> carry;  // rest of a half-packed document
  uint64_t philox_key = 0, philox_counter = 0;
  std::map<std::string, Attribute> extra;  // a trainer's own: best step, patience left, stage
};

struct CheckpointData {
  std::string config_json;  // the model's
  std::string train_json;   // all options of the run
  TrainState state;
  FlatMap map;
  // Ranges of the flat order that this rank holds, ascending; their elements stand back to back in the buffers.
  // Empty: all.
  std::vector<FlatRange> ranges;
  Tensor master, m, v;              // [S], f32 or f64, all of one type
  Tensor ema;                       // the same, or undefined
  std::vector<NamedTensor> frozen;  // parameters that do not train, in their stored types
};

// ---------------------------------------------------------------- saving

// One rank: writes all of CHECKPOINTS/step_X and returns its path. Nothing that is there is harmed by a
// failure.
std::string save_checkpoint(const std::string& folder, const CheckpointData& data);

// The same in the steps that several ranks take between barriers: rank 0 begins, everyone writes its shard,
// rank 0 commits.
std::string begin_checkpoint(const std::string& folder, uint64_t step);  // path of step_X.tmp, empty
void write_common(const std::string& temporary, const CheckpointData& data);
void write_shard(const std::string& temporary, const CheckpointData& data, int rank, int world);
std::string commit_checkpoint(const std::string& folder, const CheckpointData& data, int world);

struct KeepRule {
  int last = 3;
  uint64_t every = 0;         // multiples of it stay; 0: none
  std::set<uint64_t> always;  // the best one, the one the run started from
};
void remove_old_checkpoints(const std::string& folder, const KeepRule& keep);
// At the start of a run: what a crash has left half deleted (*.trash), and half written for more than a day.
void clean_checkpoints(const std::string& folder);

// ---------------------------------------------------------------- loading

struct LoadOptions {
  std::optional<bool> verify;  // hashes; default: below 20 GB
  int rank = 0, world = 1;     // loads flat_slice(total, rank, world)
};

std::string checkpoint_name(uint64_t step);  // "step_00012000"
std::vector<uint64_t> list_checkpoints(
    const std::string& folder);  // committed steps, ascending; not yet validated
void check_checkpoint(const std::string& path,
                      std::optional<bool> verify = std::nullopt);  // all of it, but loads no buffers
CheckpointData load_checkpoint(const std::string& path, const LoadOptions& options = {});
// The newest checkpoint that loads. What does not is told to `report`, one line each; where none does, throws
// the first of these lines. Nothing where the folder holds no checkpoint.
std::optional<CheckpointData> load_newest_checkpoint(
    const std::string& folder, const LoadOptions& options = {},
    const std::function<void(const std::string&)>& report = {});

// Throws one line about the first tensor or configuration key in which the checkpoint differs from the model.
void require_same_model(const std::string& path, const CheckpointData& data, const std::string& config_json,
                        const FlatMap& map);

}  // namespace modrwkv
