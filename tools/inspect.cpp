// Shows what a data set, model, checkpoint or run folder holds: format, attributes, configuration, every
// dataset with type, shape and range of values. All hashes are verified on the way.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/json.h"
#include "core/program.h"
#include "train/checkpoint.h"

using namespace modrwkv;

namespace {

struct InspectOptions {
  std::string path;
  bool values = true;

  template <class V>
  void fields(V& v) {
    v.positional("PATH", path, "an HDF5 file, a checkpoint or a run folder", Required{});
    v("values", values, "read the data: ranges of values, hashes");
  }
};

float from_half(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                          : exponent     ? std::ldexp(float(1024 + mantissa), exponent - 25)
                                         : std::ldexp(float(mantissa), -24);
  return h & 0x8000 ? -magnitude : magnitude;
}

struct ValueRange {
  double low = INFINITY, high = -INFINITY, sum = 0;
  uint64_t count = 0, nan = 0;
  void add(double x) {
    if (std::isnan(x)) {
      ++nan;
      return;
    }
    low = std::min(low, x), high = std::max(high, x), sum += x, ++count;
  }
};

template <class T, class Convert>
void add_all(const char* bytes, uint64_t n, ValueRange& range, Convert&& convert) {
  for (uint64_t i = 0; i < n; ++i) {
    T x;
    memcpy(&x, bytes + i * sizeof x, sizeof x);
    range.add(double(convert(x)));
  }
}

void add_all(ElementType type, const char* bytes, uint64_t n, ValueRange& range) {
  const auto same = [](auto x) { return x; };
  switch (type) {
    case ElementType::f32:
      return add_all<float>(bytes, n, range, same);
    case ElementType::f64:
      return add_all<double>(bytes, n, range, same);
    case ElementType::bf16:
      return add_all<bf16>(bytes, n, range, [](bf16 x) { return to_float(x); });
    case ElementType::f16:
      return add_all<uint16_t>(bytes, n, range, from_half);
    case ElementType::i8:
      return add_all<int8_t>(bytes, n, range, same);
    case ElementType::i16:
      return add_all<int16_t>(bytes, n, range, same);
    case ElementType::i32:
      return add_all<int32_t>(bytes, n, range, same);
    case ElementType::i64:
      return add_all<int64_t>(bytes, n, range, same);
    case ElementType::u8:
      return add_all<uint8_t>(bytes, n, range, same);
    case ElementType::u16:
      return add_all<uint16_t>(bytes, n, range, same);
    case ElementType::u32:
      return add_all<uint32_t>(bytes, n, range, same);
    case ElementType::u64:
      return add_all<uint64_t>(bytes, n, range, same);
  }
}

// "min -1.2 mean 0.01 max 3.4", from one pass that also verifies the hash.
std::string range_of(const FileReader& file, const DatasetInfo& d) {
  constexpr uint64_t kPiece = uint64_t(8) << 20;  // bytes, whole elements of every type
  std::vector<char> bytes(std::min(d.bytes, kPiece));
  ValueRange range;
  Xxh64 hash;
  if (d.offset) {
    for (uint64_t at = 0; at < d.bytes; at += kPiece) {
      const uint64_t n = std::min(kPiece, d.bytes - at);
      file.read_bytes(d, at, n, bytes.data());
      hash.add(bytes.data(), n);
      add_all(d.type, bytes.data(), n / size_of(d.type), range);
    }
    require(!d.xxh64 || hash.value() == *d.xxh64, "{}: {}: is damaged (xxh64 is {}, expected {})", file.path(),
            d.name, hex(hash.value()), hex(d.xxh64.value_or(0)));
  } else {
    bytes.resize(d.bytes);
    file.read_all(d, bytes.data());
    add_all(d.type, bytes.data(), d.elements, range);
  }
  if (range.count == 0) return range.nan ? "all NaN" : "";
  std::string text = fmt::format("min {:.6g}  mean {:.6g}  max {:.6g}", range.low,
                                 range.sum / double(range.count), range.high);
  return range.nan ? text + fmt::format("  {} NaN", range.nan) : text;
}

std::string attributes_of(const FileReader& file, const std::string& object) {
  std::string text;
  for (const std::string& name : file.attributes(object)) {
    if (name == "xxh64" || name == "dtype") continue;
    text += fmt::format("  {}={}", one_line(name, 100), one_line(file.attribute(object, name)->str(), 100));
  }
  return text;
}

void show_dataset(const FileReader& file, const std::string& name, bool values) {
  const DatasetInfo d = file.info(name);
  std::string note;
  if (d.type != ElementType::u8 || d.shape.size() > 1) {
    if (values) note = range_of(file, d);
  } else if (file.has(name + "_off") && d.bytes <= 1 << 20) {
    const std::vector<std::string> strings = file.read_strings(name);
    for (size_t i = 0; i < strings.size() && i < 8; ++i) note += (i ? ", " : "") + one_line(strings[i], 40);
    if (strings.size() > 8) note += ", ...";
  } else if (values) {
    file.verify(name);
  }
  const std::string attributes = attributes_of(file, name);
  fmt::print("  {:<36} {:<5} {:<18} {}{}\n", one_line(name, 200), name_of(d.type), d.shape_str(), note,
             attributes);
}

void show_group(const FileReader& file, const std::string& group, bool values, int depth) {
  require(depth < 8, "{}: {}: groups are nested too deep", file.path(), one_line(group, 100));
  for (const std::string& name : file.list(group)) {
    const std::string full = (group == "/" ? "" : group) + "/" + name;
    if (!file.is_group(full)) {
      show_dataset(file, full, values);
      continue;
    }
    const std::string attributes = attributes_of(file, full);
    if (!attributes.empty()) fmt::print("  {:<36}{}\n", one_line(full, 200), attributes);
    show_group(file, full, values, depth + 1);
  }
}

void show_file(const std::string& path, bool values) {
  const FileReader file(path);
  const FileHeader& h = file.header();
  fmt::print("{}: {} {}.{}", path, one_line(h.format, 64), h.major, h.minor);
  if (!h.kind.empty()) fmt::print(", {}", one_line(h.kind, 64));
  fmt::print(", {} bytes", file.file_bytes());
  if (!h.writer.empty()) fmt::print(", written by {}", one_line(h.writer, 100));
  if (h.uuid.size() == 2) fmt::print(", uuid {}{}", hex(h.uuid[0]), hex(h.uuid[1]));
  fmt::print("\n");
  show_group(file, "/", values, 0);
  for (const char* name : {"/config/json", "/train/json"}) {
    if (!file.has(name)) continue;
    fmt::print("{} {}", name, Json::parse(file.read_blob(name, 64 << 20), path + ": " + name).pretty());
  }
}

void show_checkpoint(const std::string& path, bool values) {
  check_checkpoint(path, values);
  const Json manifest = Json::parse(read_file(join_path(path, "MANIFEST.json"), 64 << 20), path);
  fmt::print("{}: checkpoint of step {}, {} rank(s), complete\n", path, manifest.get_int("step"),
             manifest.get_int("world"));
  for (const Json& f : manifest.at("files").items()) show_file(join_path(path, f.get_string("name")), values);
}

void show_run(const std::string& path, bool values) {
  const std::string checkpoints = join_path(path, "checkpoints"), model = join_path(path, "model.h5");
  const std::vector<uint64_t> steps = list_checkpoints(checkpoints);
  require(!steps.empty() || path_exists(model),
          "{}: is neither a run folder nor a checkpoint: no model.h5, no checkpoints, no MANIFEST.json", path);
  for (uint64_t step : steps) {
    const std::string at = join_path(checkpoints, checkpoint_name(step));
    check_checkpoint(at, values);
    fmt::print("{}: checkpoint, complete\n", at);
  }
  if (path_exists(model)) show_file(model, values);
}

int inspect(Arguments& arguments) {
  const auto options = parse_options<InspectOptions>(
      arguments, "Shows what a file, a checkpoint or a run folder of ours holds.");
  if (!is_directory(options.path)) {
    show_file(options.path, options.values);
  } else if (path_exists(join_path(options.path, "MANIFEST.json"))) {
    show_checkpoint(options.path, options.values);
  } else {
    show_run(options.path, options.values);
  }
  return kDone;
}

}  // namespace

int main(int argc, char** argv) { return run_program(argc, argv, inspect); }
