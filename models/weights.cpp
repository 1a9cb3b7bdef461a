// Model files.
#include "models/weights.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/hdf5.h"
#include "core/json.h"

namespace modrwkv {
namespace {

// What a reader needs before it allocates.
constexpr const char* kCounts[] = {"n_layer", "n_embd", "head_size", "n_head", "ffn_dim",
                                   "vocab",   "rank_w", "rank_a",    "rank_v", "rank_g"};
constexpr const char* kReals[] = {"ln_eps", "gn_eps"};
constexpr const char* kTexts[] = {"adapter", "encoder"};

std::optional<Attribute> config_attribute(const Json& config, const std::string& key) {
  const Json* value = config.find(key);
  if (!value) return std::nullopt;
  const auto is = [&](const auto& list) {
    return std::find(std::begin(list), std::end(list), key) != std::end(list);
  };
  if (is(kTexts)) return value->is_string() ? std::optional<Attribute>(value->as_string()) : std::nullopt;
  if (is(kReals)) return value->is_number() ? std::optional<Attribute>(value->as_double()) : std::nullopt;
  if (value->kind() != Json::Kind::integer || value->as_int() < 0 || value->as_int() > int64_t(UINT32_MAX))
    return std::nullopt;
  return std::optional<Attribute>(std::in_place, uint32_t(value->as_int()));
}

template <class Body>
void for_config_keys(Body&& body) {
  for (const char* key : kCounts) body(key);
  for (const char* key : kReals) body(key);
  for (const char* key : kTexts) body(key);
}

bool is_float(DType type) {
  return type == DType::f32 || type == DType::f64 || type == DType::bf16 || type == DType::f16;
}

struct Index {
  std::string names;  // joined by \n
  std::vector<uint8_t> types, ranks;
  std::vector<uint64_t> shapes, offsets, bytes;  // shapes: four a tensor, unused ones are 1

  void add(const std::string& name, ElementType type, const std::vector<uint64_t>& shape,
           std::optional<uint64_t> offset, uint64_t size) {
    names += (types.empty() ? "" : "\n") + name;
    types.push_back(uint8_t(type));
    ranks.push_back(uint8_t(shape.size()));
    for (size_t i = 0; i < 4; ++i) shapes.push_back(i < shape.size() ? shape[i] : 1);
    offsets.push_back(offset.value_or(0));
    bytes.push_back(size);
  }
};

void check_index(const FileReader& file, const Index& found) {
  const int64_t n = int64_t(found.types.size());
  const auto agree = [&](const char* table, bool same) {
    require(same, "{}: /index/{}: disagrees with the tensors", file.path(), table);
  };
  agree("names", file.read_blob("/index/names") == found.names);
  agree("dtype", file.read_vector<uint8_t>("/index/dtype", {n}) == found.types);
  agree("ndim", file.read_vector<uint8_t>("/index/ndim", {n}) == found.ranks);
  agree("shape", file.read_vector<uint64_t>("/index/shape", {n, 4}) == found.shapes);
  agree("offset", file.read_vector<uint64_t>("/index/offset", {n}) == found.offsets);
  agree("bytes", file.read_vector<uint64_t>("/index/bytes", {n}) == found.bytes);
}

}  // namespace

const Tensor* ModelFile::find(const std::string& name) const {
  const auto at =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const NamedTensor& t, const std::string& wanted) { return t.name < wanted; });
  return at != tensors.end() && at->name == name ? &at->tensor : nullptr;
}

void write_model_file(const std::string& path, const std::string& kind, const std::string& config_json,
                      const std::vector<NamedTensor>& tensors, std::optional<DType> dtype) {
  const Json config = Json::parse(config_json, path + ": configuration");
  require(config.is_object(), "{}: the configuration is not a JSON object", path);
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->name < b->name; });

  FileWriter file(path, "modrwkv.model", kind);
  file.write_blob("/config/json", config.canonical());
  for_config_keys([&](const char* key) {
    if (const auto value = config_attribute(config, key)) file.set_attribute("/config", key, *value);
  });
  Index index;
  file.set_attribute("/tensors", "count", uint64_t(order.size()));
  for (const NamedTensor* t : order) {
    const std::string name = "/tensors/" + t->name;
    require(t->name.find('/') == std::string::npos && !t->name.empty(), "{}: {}: a tensor's name has no '/'",
            path, t->name);
    require(t->tensor.defined(), "{}: {}: the tensor is undefined", path, name);
    const bool convert = dtype && is_float(t->tensor.dtype()) && t->tensor.dtype() != *dtype;
    const Tensor here = convert ? t->tensor.to(kCpu).to(*dtype) : t->tensor.to(kCpu);
    file.write(name, here);
    file.set_attribute(name, "role", t->buffer ? "buffer" : "weight");
    file.set_attribute(name, "group", t->group);
    std::vector<uint64_t> shape;
    for (int i = 0; i < here.rank(); ++i) shape.push_back(uint64_t(here.size(i)));
    index.add(t->name, element_type_of(here.dtype()), shape, file.offset_of(name), here.bytes());
  }
  file.write_blob("/index/names", index.names);
  file.write_vector("/index/dtype", index.types);
  file.write_vector("/index/ndim", index.ranks);
  file.write("/index/shape", ElementType::u64, {order.size(), 4}, index.shapes.data());
  file.write_vector("/index/offset", index.offsets);
  file.write_vector("/index/bytes", index.bytes);
  file.commit();
}

ModelFile read_model_file(const std::string& path) {
  const FileReader file(path);
  file.require_format("modrwkv.model");
  ModelFile model;
  model.kind = file.header().kind;
  const Json config = Json::parse(file.read_blob("/config/json", 16 << 20), path + ": /config/json");
  require(config.is_object(), "{}: /config/json: is not an object", path);
  model.config_json = config.canonical();
  for_config_keys([&](const char* key) {
    const auto stored = file.attribute("/config", key);
    const auto meant = config_attribute(config, key);
    require(!stored || !meant || stored->str() == meant->str(),
            "{}: /config: attribute {} is {}, /config/json says {}", path, key, stored ? stored->str() : "",
            meant ? meant->str() : "");
  });

  // All headers are checked before the first tensor is allocated.
  std::vector<DatasetInfo> infos;
  Index found;
  for (const std::string& name : file.list("/tensors")) {
    infos.push_back(file.info("/tensors/" + name));
    const DatasetInfo& d = infos.back();
    require(dtype_of(d.type).has_value(), "{}: {}: holds {}, which tensors do not have", path, d.name,
            name_of(d.type));
    found.add(name, d.type, d.shape, d.offset, d.bytes);
  }
  if (file.is_group("/index")) check_index(file, found);  // a cache: files from elsewhere may lack it

  for (const DatasetInfo& d : infos) {
    NamedTensor t;
    t.name = d.name.substr(strlen("/tensors/"));
    t.tensor = Tensor::empty(Shape(std::vector<int64_t>(d.shape.begin(), d.shape.end())), *dtype_of(d.type));
    file.read_all(d, t.tensor.raw());
    if (file.has_attribute(d.name, "group")) {
      const int64_t group = file.attribute_int(d.name, "group");
      require(group >= 0 && group < 1000, "{}: {}: attribute group is {}", path, d.name, group);
      t.group = int(group);
    }
    if (file.has_attribute(d.name, "role")) t.buffer = file.attribute_string(d.name, "role") == "buffer";
    model.tensors.push_back(std::move(t));
  }
  return model;
}

}  // namespace modrwkv
