// Loading checkpoints: a manifest, the files it names, and from the shards the ranges a rank wants.
#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "train/checkpoint.h"
#include "train/checkpoint_internal.h"

namespace modrwkv {
namespace {

constexpr uint64_t kVerifyBelow = 20000000000;

struct Manifest {
  uint64_t step = 0, flat_total = 0;
  int world = 1;
  std::string config_hash;
};

// Reads MANIFEST.json and checks that the files are there, of the right size and, when asked, content.
Manifest check_manifest(const std::string& path, std::optional<bool> verify) {
  const std::string file = join_path(path, kManifestFile);
  require(path_exists(path), "{}: is missing", path);
  require(path_exists(file), "{}: is missing: the checkpoint was not completed", file);
  const Json json = Json::parse(read_file(file, 64 << 20), file);
  Manifest manifest;
  struct Entry {
    std::string name, hash;
    uint64_t bytes;
  };
  std::vector<Entry> entries;
  try {
    require(json.get_string("format") == "modrwkv.checkpoint", "is not the manifest of a checkpoint");
    require(json.get_int("major") == 1, "has format version {}, this program reads 1", json.get_int("major"));
    manifest.step = uint64_t(json.get_int("step"));
    manifest.flat_total = uint64_t(json.get_int("flat_total"));
    const int64_t world = json.get_int("world");
    require(world >= 1 && world <= 1000000, "world is {}", world);
    manifest.world = int(world);
    manifest.config_hash = json.get_string("config_hash");
    for (const Json& f : json.at("files").items()) {
      entries.push_back({f.get_string("name"), f.get_string("xxh64"), uint64_t(f.get_int("bytes"))});
    }
  } catch (const Error& e) {
    fail("{}: {}", file, e.what());
  }
  std::vector<std::string> needed{kCommonFile};
  for (int r = 0; r < manifest.world; ++r) needed.push_back(shard_name(r, manifest.world));
  for (const std::string& name : needed) {
    const bool named =
        std::any_of(entries.begin(), entries.end(), [&](const Entry& e) { return e.name == name; });
    require(named, "{}: does not name {}", file, name);
  }
  uint64_t bytes = 0;
  for (const Entry& e : entries) {
    const std::string at = join_path(path, e.name);
    require(e.name.find('/') == std::string::npos, "{}: names {}, which is outside the checkpoint", file,
            e.name);
    require(path_exists(at), "{}: is missing", at);
    const uint64_t found = file_bytes(at);
    require(found == e.bytes, "{}: has {} bytes, expected {}", at, found, e.bytes);
    bytes += found;
  }
  if (!verify.value_or(bytes < kVerifyBelow)) return manifest;
  for (const Entry& e : entries) {
    const std::string at = join_path(path, e.name), found = hex(xxh64_of_file(at));
    require(found == e.hash, "{}: is damaged (xxh64 is {}, expected {})", at, found, e.hash);
  }
  return manifest;
}

template <class T>
void read_field(const FileReader& file, const char* object, const char* name, T& value) {
  if constexpr (std::is_same_v<T, double>) {
    value = file.attribute_double(object, name);
  } else if constexpr (std::is_same_v<T, std::string>) {
    value = file.attribute_string(object, name);
  } else {
    const uint64_t x = file.attribute_uint(object, name);
    require(x <= std::numeric_limits<T>::max(), "{}: {}: attribute {} is {}", file.path(), object, name, x);
    value = T(x);
  }
}

void load_common(const std::string& path, const Manifest& manifest, CheckpointData& data) {
  const FileReader file(join_path(path, kCommonFile));
  file.require_format("modrwkv.checkpoint");
  data.config_json = file.read_blob("/config/json", 64 << 20);
  require(hex(xxh64(data.config_json.data(), data.config_json.size())) == manifest.config_hash,
          "{}: /config/json: is not the one the manifest names", file.path());
  data.train_json = file.read_blob("/train/json", 64 << 20);
  each_attribute(data.state, [&](const char* object, const char* name, auto& value) {
    read_field(file, object, name, value);
  });
  require(data.state.step == manifest.step, "{}: is of step {}, the manifest of step {}", file.path(),
          data.state.step, manifest.step);
  data.state.carry = file.read_vector<int32_t>("/state/data/carry", {-1});
  if (file.is_group("/state/extra")) {
    for (const std::string& name : file.attributes("/state/extra")) {
      data.state.extra.emplace(name, *file.attribute("/state/extra", name));
    }
  }

  const std::vector<std::string> names = file.read_strings("/flat/names");
  const std::vector<uint64_t> rows = file.read_vector<uint64_t>("/flat/map", {int64_t(names.size()), 2});
  std::vector<std::pair<std::string, uint64_t>> counts;
  for (size_t i = 0; i < names.size(); ++i) counts.emplace_back(names[i], rows[2 * i + 1]);
  data.map = flat_map(counts);
  bool same = data.map.total == file.attribute_uint("/flat", "total") && data.map.total == manifest.flat_total;
  for (size_t i = 0; i < names.size(); ++i)
    same = same && data.map.tensors[i].name == names[i] && data.map.tensors[i].begin == rows[2 * i];
  require(same, "{}: /flat/map: is not the flat order of its tensors", file.path());

  for (const std::string& name : file.list("/frozen"))
    data.frozen.push_back({name, file.read("/frozen/" + name), 0, false});
}

struct Shard {
  std::unique_ptr<FileReader> file;
  std::vector<FlatRange> ranges;
  DatasetInfo master, m, v;
  std::optional<DatasetInfo> ema;
};

Shard open_shard(const std::string& path, int rank, const Manifest& manifest) {
  Shard shard;
  shard.file = std::make_unique<FileReader>(join_path(path, shard_name(rank, manifest.world)));
  const FileReader& file = *shard.file;
  file.require_format("modrwkv.shard");
  const auto same = [&](const char* name, uint64_t expected) {
    const uint64_t found = file.attribute_uint("/flat", name);
    require(found == expected, "{}: /flat: {} is {}, expected {}", file.path(), name, found, expected);
  };
  same("rank", uint64_t(rank));
  same("world_size", uint64_t(manifest.world));
  same("step", manifest.step);
  same("total", manifest.flat_total);
  const std::vector<uint64_t> rows = file.read_vector<uint64_t>("/flat/ranges", {-1, 2});
  uint64_t size = 0, before = 0;
  for (size_t i = 0; i < rows.size(); i += 2) {
    require(before <= rows[i] && rows[i] <= rows[i + 1] && rows[i + 1] <= manifest.flat_total,
            "{}: /flat/ranges: [{}, {}) is out of order or beyond {}", file.path(), rows[i], rows[i + 1],
            manifest.flat_total);
    shard.ranges.push_back({rows[i], rows[i + 1]});
    size += rows[i + 1] - rows[i];
    before = rows[i + 1];
  }
  shard.master = file.info("/flat/master", {std::nullopt, {int64_t(size)}});
  require(shard.master.type == ElementType::f32 || shard.master.type == ElementType::f64,
          "{}: /flat/master: holds {}, expected f32 or f64", file.path(), name_of(shard.master.type));
  shard.m = file.info("/flat/m", {shard.master.type, {int64_t(size)}});
  shard.v = file.info("/flat/v", {shard.master.type, {int64_t(size)}});
  if (file.has("/flat/ema")) shard.ema = file.info("/flat/ema", {shard.master.type, {int64_t(size)}});
  return shard;
}

// Every element in exactly one shard.
void check_tiling(const std::string& path, const std::vector<Shard>& shards, uint64_t total) {
  std::vector<FlatRange> all;
  for (const Shard& s : shards) all.insert(all.end(), s.ranges.begin(), s.ranges.end());
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  uint64_t at = 0;
  for (const FlatRange& r : all) {
    require(r.begin == at, "{}: the shards hold elements [{}, {}) {}", path, std::min(r.begin, at),
            std::max(r.begin, at), r.begin > at ? "nowhere" : "twice");
    at = r.end;
  }
  require(at == total, "{}: the shards hold elements [{}, {}) nowhere", path, at, total);
}

std::vector<Shard> open_shards(const std::string& path, const Manifest& manifest) {
  std::vector<Shard> shards;
  for (int r = 0; r < manifest.world; ++r) {
    shards.push_back(open_shard(path, r, manifest));
    const Shard &first = shards.front(), &last = shards.back();
    require(first.master.type == last.master.type && first.ema.has_value() == last.ema.has_value(),
            "{}: holds other buffers than shard 0", last.file->path());
  }
  check_tiling(path, shards, manifest.flat_total);
  return shards;
}

void load_flat(const std::string& path, const Manifest& manifest, const LoadOptions& options,
               CheckpointData& data) {
  const std::vector<Shard> shards = open_shards(path, manifest);
  const FlatRange want = flat_slice(manifest.flat_total, options.rank, options.world);
  data.ranges = {want};
  const DType type = *dtype_of(shards.front().master.type);
  const Shape shape{int64_t(want.end - want.begin)};
  data.master = Tensor::empty(shape, type);
  data.m = Tensor::empty(shape, type);
  data.v = Tensor::empty(shape, type);
  if (shards.front().ema) data.ema = Tensor::empty(shape, type);
  const uint64_t word = size_of(type);
  for (const Shard& shard : shards) {
    uint64_t stored = 0;  // elements of this shard before the range
    for (const FlatRange& r : shard.ranges) {
      const uint64_t begin = std::max(r.begin, want.begin), end = std::min(r.end, want.end);
      if (begin < end) {
        const uint64_t from = (stored + begin - r.begin) * word, bytes = (end - begin) * word,
                       to = (begin - want.begin) * word;
        const auto get = [&](const DatasetInfo& d, const Tensor& t) {
          shard.file->read_bytes(d, from, bytes, static_cast<char*>(t.raw()) + to);
        };
        get(shard.master, data.master);
        get(shard.m, data.m);
        get(shard.v, data.v);
        if (shard.ema) get(*shard.ema, data.ema);
      }
      stored += r.end - r.begin;
    }
  }
}

// The first key in which two configurations differ, as a sentence; empty where they agree.
std::string difference(const Json& saved, const Json& ours, const std::string& prefix = "") {
  if (saved.is_object() && ours.is_object()) {
    for (const auto& [key, value] : ours.members()) {
      const Json* theirs = saved.find(key);
      if (!theirs) return fmt::format("has no configuration key {}{}", prefix, key);
      const std::string inner = difference(*theirs, value, prefix + key + ".");
      if (!inner.empty()) return inner;
    }
    for (const auto& member : saved.members()) {
      if (!ours.find(member.first))
        return fmt::format("has configuration key {}{}, which this model has not", prefix, member.first);
    }
    return "";
  }
  if (saved == ours) return "";
  return fmt::format("has {} = {}, this model has {}", prefix.substr(0, prefix.size() - !prefix.empty()),
                     saved.dump().substr(0, 80), ours.dump().substr(0, 80));
}

}  // namespace

void check_checkpoint(const std::string& path, std::optional<bool> verify) {
  const Manifest manifest = check_manifest(path, verify);
  CheckpointData data;
  load_common(path, manifest, data);
  open_shards(path, manifest);
}

CheckpointData load_checkpoint(const std::string& path, const LoadOptions& options) {
  const Manifest manifest = check_manifest(path, options.verify);
  CheckpointData data;
  load_common(path, manifest, data);
  load_flat(path, manifest, options, data);
  return data;
}

std::optional<CheckpointData> load_newest_checkpoint(const std::string& folder, const LoadOptions& options,
                                                     const std::function<void(const std::string&)>& report) {
  std::vector<uint64_t> steps = list_checkpoints(folder);
  std::string first;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::string path = join_path(folder, checkpoint_name(*step));
    try {
      CheckpointData data = load_checkpoint(path, options);
      require(data.state.step == *step, "{}: holds step {}", path, data.state.step);
      return data;
    } catch (const Error& e) {
      if (first.empty()) first = e.what();
      if (report) report(e.what());
    }
  }
  if (!first.empty()) throw Error(first);
  return std::nullopt;
}

void require_same_model(const std::string& path, const CheckpointData& data, const std::string& config_json,
                        const FlatMap& map) {
  const std::string config =
      difference(Json::parse(data.config_json, path), Json::parse(config_json, "configuration"));
  require(config.empty(), "{}: {}", path, config);
  const auto &saved = data.map.tensors, &ours = map.tensors;
  for (size_t i = 0; i < std::max(saved.size(), ours.size()); ++i) {
    if (i >= saved.size() || (i < ours.size() && ours[i].name < saved[i].name))
      fail("{}: has no tensor {}", path, ours[i].name);
    if (i >= ours.size() || saved[i].name != ours[i].name)
      fail("{}: has tensor {}, which this model has not", path, saved[i].name);
    require(saved[i].count == ours[i].count, "{}: tensor {} has {} elements, this model's has {}", path,
            saved[i].name, saved[i].count, ours[i].count);
  }
}

}  // namespace modrwkv
