// Saving, keeping and choosing checkpoints; loading is in checkpoint_load.cpp.
#include "train/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "train/checkpoint_internal.h"

namespace modrwkv {

FlatMap flat_map(std::vector<std::pair<std::string, uint64_t>> tensors) {
  std::sort(tensors.begin(), tensors.end());
  FlatMap map;
  for (const auto& [name, count] : tensors) {
    require(map.tensors.empty() || map.tensors.back().name != name, "checkpoint: tensor {} occurs twice", name);
    map.tensors.push_back({name, map.total, count});
    map.total += (count + kFlatAlign - 1) / kFlatAlign * kFlatAlign;
  }
  return map;
}

FlatRange flat_slice(uint64_t total, int rank, int world) {
  const uint64_t blocks = total / kFlatAlign, r = uint64_t(rank), n = uint64_t(world);
  return {kFlatAlign * (blocks * r / n), rank + 1 == world ? total : kFlatAlign * (blocks * (r + 1) / n)};
}

std::string checkpoint_name(uint64_t step) { return fmt::format("step_{:08}", step); }

namespace {

// The step of "step_00012000"; nothing for other names, step_X.tmp and step_X.trash among them.
std::optional<uint64_t> step_of(const std::string& name) {
  if (name.rfind("step_", 0) != 0 || name.size() < 13 || name.size() > 24) return std::nullopt;
  uint64_t step = 0;
  for (char c : name.substr(5)) {
    if (c < '0' || c > '9') return std::nullopt;
    step = step * 10 + uint64_t(c - '0');
  }
  return checkpoint_name(step) == name ? std::optional(step) : std::nullopt;
}

bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

// Renamed first: a crash in between leaves no checkpoint that lacks a file.
void trash(const std::string& path) {
  remove_tree(path + ".trash");
  rename_path(path, path + ".trash");
  remove_tree(path + ".trash");
}

std::vector<FlatRange> ranges_of(const CheckpointData& data) {
  return data.ranges.empty() ? std::vector<FlatRange>{{0, data.map.total}} : data.ranges;
}

}  // namespace

// ---------------------------------------------------------------- saving

std::string begin_checkpoint(const std::string& folder, uint64_t step) {
  make_directories(folder);
  const std::string temporary = join_path(folder, checkpoint_name(step) + ".tmp");
  remove_tree(temporary);  // of a save of this step that did not end
  make_directories(temporary);
  return temporary;
}

void write_common(const std::string& temporary, const CheckpointData& data) {
  const std::string path = join_path(temporary, kCommonFile);
  FileWriter file(path, "modrwkv.checkpoint", "common");
  file.write_blob("/config/json", Json::parse(data.config_json, path + ": configuration").canonical());
  file.write_blob("/train/json", Json::parse(data.train_json, path + ": options").canonical());
  TrainState state = data.state;
  each_attribute(state, [&](const char* object, const char* name, auto& value) {
    file.set_attribute(object, name, value);
  });
  file.write_vector("/state/data/carry", state.carry);
  for (const auto& [name, value] : state.extra) file.set_attribute("/state/extra", name, value);

  std::vector<uint64_t> rows;
  std::vector<std::string> names;
  for (const FlatTensor& t : data.map.tensors) {
    rows.insert(rows.end(), {t.begin, t.count});
    names.push_back(t.name);
  }
  file.write("/flat/map", ElementType::u64, {names.size(), 2}, rows.data());
  file.write_strings("/flat/names", names);
  file.set_attribute("/flat", "total", data.map.total);
  file.set_attribute("/frozen", "count", uint64_t(data.frozen.size()));
  for (const NamedTensor& t : data.frozen) file.write("/frozen/" + t.name, t.tensor);
  file.commit();
}

void write_shard(const std::string& temporary, const CheckpointData& data, int rank, int world) {
  const std::string path = join_path(temporary, shard_name(rank, world));
  const std::vector<FlatRange> ranges = ranges_of(data);
  std::vector<uint64_t> rows;
  uint64_t size = 0, before = 0;
  for (const FlatRange& r : ranges) {
    require(before <= r.begin && r.begin <= r.end && r.end <= data.map.total,
            "{}: range [{}, {}) is out of order or beyond {}", path, r.begin, r.end, data.map.total);
    rows.insert(rows.end(), {r.begin, r.end});
    size += r.end - r.begin;
    before = r.end;
  }
  FileWriter file(path, "modrwkv.shard", "flat");
  file.set_attribute("/flat", "total", data.map.total);
  file.set_attribute("/flat", "rank", uint32_t(rank));
  file.set_attribute("/flat", "world_size", uint32_t(world));
  file.set_attribute("/flat", "step", data.state.step);
  file.write("/flat/ranges", ElementType::u64, {ranges.size(), 2}, rows.data());
  const auto put = [&](const char* name, const Tensor& t) {
    require(t.defined() && t.rank() == 1 && uint64_t(t.numel()) == size,
            "{}: /flat/{}: buffer is {}, the ranges hold {} elements", path, name, t.str(), size);
    require((t.dtype() == DType::f32 || t.dtype() == DType::f64) && t.dtype() == data.master.dtype(),
            "{}: /flat/{}: element type is {}, expected f32 or f64 for all", path, name, name_of(t.dtype()));
    file.write(std::string("/flat/") + name, t);
  };
  put("master", data.master);
  put("m", data.m);
  put("v", data.v);
  if (data.ema.defined()) put("ema", data.ema);
  file.commit();
}

std::string commit_checkpoint(const std::string& folder, const CheckpointData& data, int world) {
  const std::string final_path = join_path(folder, checkpoint_name(data.state.step)),
                    temporary = final_path + ".tmp";
  std::vector<std::string> names{kCommonFile};
  for (int r = 0; r < world; ++r) names.push_back(shard_name(r, world));
  Json files = Json::array();
  for (const std::string& name : names) {
    const std::string path = join_path(temporary, name);
    files.push(
        Json::object().set("name", name).set("bytes", file_bytes(path)).set("xxh64", hex(xxh64_of_file(path))));
  }
  const std::string config = Json::parse(data.config_json).canonical();
  Json manifest = Json::object();
  manifest.set("format", "modrwkv.checkpoint")
      .set("major", 1)
      .set("minor", 0)
      .set("step", data.state.step)
      .set("world", world);
  manifest.set("files", files)
      .set("flat_total", data.map.total)
      .set("config_hash", hex(xxh64(config.data(), config.size())));
  manifest.set("dataset_hash", hex(data.state.dataset_hash)).set("time", int64_t(time(nullptr)));
  write_file(join_path(temporary, kManifestFile), manifest.pretty());
  sync_directory(temporary);
  if (path_exists(
          final_path)) {  // saved again after a resume: exchanged, so that there is always one of the two
    if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) == 0) {
      sync_directory(folder);
      trash(temporary);
    } else {
      require(errno == EINVAL || errno == ENOSYS, "{}: cannot rename to {}: {}", temporary, final_path,
              strerror(errno));
      trash(final_path);
      rename_path(temporary, final_path);
    }
  } else {
    rename_path(temporary, final_path);
  }
  sync_directory(folder);
  write_file(join_path(folder, "latest"), checkpoint_name(data.state.step) + "\n");  // a hint for people
  return final_path;
}

std::string save_checkpoint(const std::string& folder, const CheckpointData& data) {
  const std::string temporary = begin_checkpoint(folder, data.state.step);
  try {
    write_common(temporary, data);
    write_shard(temporary, data, 0, 1);
    return commit_checkpoint(folder, data, 1);
  } catch (...) {
    try {
      remove_tree(temporary);  // a full disk needs the room
    } catch (const Error&) {   // the first error tells more
    }
    throw;
  }
}

// ---------------------------------------------------------------- keeping

std::vector<uint64_t> list_checkpoints(const std::string& folder) {
  std::vector<uint64_t> steps;
  if (!path_exists(folder)) return steps;
  for (const std::string& name : list_directory(folder)) {
    const auto step = step_of(name);
    if (step && path_exists(join_path(join_path(folder, name), kManifestFile))) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void remove_old_checkpoints(const std::string& folder, const KeepRule& keep) {
  require(keep.last >= 1, "{}: at least one checkpoint must be kept, not {}", folder, keep.last);
  const std::vector<uint64_t> steps = list_checkpoints(folder);
  for (size_t i = 0; i + size_t(keep.last) < steps.size(); ++i) {
    const uint64_t step = steps[i];
    if (keep.always.count(step) || (keep.every > 0 && step % keep.every == 0)) continue;
    trash(join_path(folder, checkpoint_name(step)));
  }
}

void clean_checkpoints(const std::string& folder) {
  if (!path_exists(folder)) return;
  for (const std::string& name : list_directory(folder)) {
    const std::string path = join_path(folder, name);
    if (ends_with(name, ".trash") && step_of(name.substr(0, name.find('.')))) remove_tree(path);
    if (!ends_with(name, ".tmp") || !step_of(name.substr(0, name.find('.')))) continue;
    struct stat s;
    const bool old = stat(path.c_str(), &s) == 0 && time(nullptr) - s.st_mtime > 24 * 3600;
    const bool complete = path_exists(join_path(path, kManifestFile));
    const std::string target = path.substr(0, path.size() - strlen(".tmp"));
    const bool replaced =
        complete && path_exists(join_path(target, kManifestFile));  // commit was exchanging the two
    if (replaced || (old && !complete)) remove_tree(path);
  }
}

}  // namespace modrwkv
