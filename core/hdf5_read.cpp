// FileReader: reading what hdf5_untrusted.cpp has checked.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/hdf5_untrusted.h"
#include "core/parallel.h"

namespace modrwkv {

namespace {

constexpr uint64_t kReadPiece = uint64_t(16) << 20;  // bytes a thread reads at a time

}  // namespace

FileReader::FileReader(const std::string& path) : impl_(std::make_unique<Impl>()) {
  h5::prepare();
  impl_->open(path);
  impl_->read_header();
}

FileReader::~FileReader() = default;

const std::string& FileReader::path() const { return impl_->path; }
uint64_t FileReader::file_bytes() const { return impl_->file_size; }
const FileHeader& FileReader::header() const { return impl_->header; }

void FileReader::require_format(const std::string& format) const {
  require(impl_->header.format == format, "{}: is a {} file, expected {}", impl_->path,
          h5::printable(impl_->header.format), format);
}

std::vector<std::string> FileReader::list(const std::string& group) const {
  h5::prepare();
  std::vector<std::string> names;
  if (const Impl::Group* g = impl_->find_group(group)) {
    for (const auto& link : g->links) names.push_back(link.name);
  }
  return names;
}

bool FileReader::has(const std::string& name) const {
  h5::prepare();
  return h5::split(name).empty() || impl_->locate(name).first != nullptr;
}

bool FileReader::is_group(const std::string& name) const {
  h5::prepare();
  return impl_->find_group(name) != nullptr;
}

DatasetInfo FileReader::info(const std::string& name) const {
  h5::prepare();
  return impl_->describe(name);
}

DatasetInfo FileReader::info(const std::string& name, const Expect& expect) const {
  const DatasetInfo d = info(name);
  bool fits = !expect.type || *expect.type == d.type;
  std::string wanted = expect.type ? name_of(*expect.type) : "any type";
  if (!expect.shape.empty()) {
    fits = fits && expect.shape.size() == d.shape.size();
    wanted += " [";
    for (size_t i = 0; i < expect.shape.size(); ++i) {
      const int64_t n = expect.shape[i];
      wanted += (i ? ", " : "") + (n < 0 ? "any" : std::to_string(n));
      fits = fits && (n < 0 || uint64_t(n) == d.shape[i]);
    }
    wanted += "]";
  }
  require(fits, "{}: {}: expected {}, found {} {}", path(), name, wanted, name_of(d.type), d.shape_str());
  return d;
}

void FileReader::read_bytes(const DatasetInfo& d, uint64_t begin, uint64_t count, void* out) const {
  require(begin <= d.bytes && count <= d.bytes - begin, "{}: {}: bytes [{}, {}) of {}", path(), d.name, begin,
          begin + count, d.bytes);
  if (count == 0) return;
  if (!d.offset) {
    h5::prepare();
    const uint64_t row = d.bytes / d.shape[0], first = begin / row, last = (begin + count - 1) / row + 1;
    if (first * row == begin && last * row == begin + count)
      return impl_->read_rows_slowly(d, first, last, out);
    std::vector<char> rows((last - first) * row);
    impl_->read_rows_slowly(d, first, last, rows.data());
    memcpy(out, rows.data() + (begin - first * row), count);
    return;
  }
  const int64_t pieces = int64_t((count + kReadPiece - 1) / kReadPiece);
  std::atomic<bool> failed = false;
  std::string message;
  parallel_for(pieces, 1, [&](int64_t from, int64_t to) {
    const uint64_t at = uint64_t(from) * kReadPiece, end = std::min(count, uint64_t(to) * kReadPiece);
    try {
      read_at(impl_->fd, impl_->path, static_cast<char*>(out) + at, end - at, *d.offset + begin + at);
    } catch (const Error& e) {
      if (!failed.exchange(true)) message = e.what();
    }
  });
  if (failed) throw Error(message);
}

void FileReader::read_all(const DatasetInfo& d, void* out) const {
  read_bytes(d, 0, d.bytes, out);
  if (!d.xxh64) return;
  const uint64_t hash = xxh64(out, d.bytes);
  require(hash == *d.xxh64, "{}: {}: is damaged (xxh64 is {}, expected {})", path(), d.name, hex(hash),
          hex(*d.xxh64));
}

void FileReader::verify(const std::string& name) const {
  const DatasetInfo d = info(name);
  if (!d.xxh64) return;
  Xxh64 hash;
  const uint64_t row = std::max<uint64_t>(1, d.bytes / std::max<uint64_t>(1, d.shape[0]));
  const uint64_t piece = d.offset ? kReadPiece : std::max(row, kReadPiece / row * row);
  std::vector<char> bytes(std::min(piece, d.bytes));
  for (uint64_t at = 0; at < d.bytes; at += piece) {
    const uint64_t n = std::min(piece, d.bytes - at);
    read_bytes(d, at, n, bytes.data());
    hash.add(bytes.data(), n);
  }
  require(hash.value() == *d.xxh64, "{}: {}: is damaged (xxh64 is {}, expected {})", path(), name,
          hex(hash.value()), hex(*d.xxh64));
}

namespace {

Tensor tensor_for(const std::string& path, const DatasetInfo& d, std::vector<int64_t> shape) {
  const auto type = dtype_of(d.type);
  require(type.has_value(), "{}: {}: holds {}, which tensors do not have", path, d.name, name_of(d.type));
  return Tensor::empty(Shape(shape), *type);
}

}  // namespace

Tensor FileReader::read(const std::string& name) const {
  const DatasetInfo d = info(name);
  Tensor t = tensor_for(path(), d, {d.shape.begin(), d.shape.end()});
  read_all(d, t.raw());
  return t;
}

Tensor FileReader::read(const std::string& name, DType type, const std::vector<int64_t>& shape) const {
  const DatasetInfo d = info(name, {element_type_of(type), shape});
  Tensor t = tensor_for(path(), d, {d.shape.begin(), d.shape.end()});
  read_all(d, t.raw());
  return t;
}

Tensor FileReader::read_rows(const std::string& name, int64_t begin, int64_t end) const {
  const DatasetInfo d = info(name);
  require(0 <= begin && begin <= end && uint64_t(end) <= d.shape[0], "{}: {}: rows [{}, {}) of {}", path(),
          name, begin, end, d.shape_str());
  std::vector<int64_t> shape(d.shape.begin(), d.shape.end());
  shape[0] = end - begin;
  Tensor t = tensor_for(path(), d, shape);
  const uint64_t row = d.shape[0] ? d.bytes / d.shape[0] : 0;
  read_bytes(d, uint64_t(begin) * row, uint64_t(end - begin) * row, t.raw());
  return t;
}

std::string FileReader::read_blob(const std::string& name, uint64_t limit) const {
  const DatasetInfo d = info(name, {ElementType::u8, {-1}});
  require(d.bytes <= limit, "{}: {}: has {} bytes, at most {} are accepted", path(), name, d.bytes, limit);
  std::string bytes(d.bytes, '\0');
  read_all(d, bytes.data());
  return bytes;
}

std::vector<std::string> FileReader::read_strings(const std::string& name) const {
  const std::string all = read_blob(name);
  const std::vector<uint64_t> offsets = read_offsets(name + "_off", all.size());
  std::vector<std::string> strings;
  for (size_t i = 0; i + 1 < offsets.size(); ++i)
    strings.push_back(all.substr(offsets[i], offsets[i + 1] - offsets[i]));
  return strings;
}

std::vector<uint64_t> FileReader::read_offsets(const std::string& name, uint64_t end,
                                               uint64_t piece_limit) const {
  std::vector<uint64_t> offsets = read_vector<uint64_t>(name, {-1});
  check_offsets(path() + ": " + name, offsets, end, piece_limit);
  return offsets;
}

std::vector<std::string> FileReader::attributes(const std::string& object) const {
  h5::prepare();
  const h5::Handle handle = impl_->open_any(object);
  require(bool(handle), "{}: {}: is missing", path(), object);
  std::vector<std::string> names;
  hsize_t at = 0;
  const herr_t status = H5Aiterate2(
      handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, &at,
      [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
        auto& list = *static_cast<std::vector<std::string>*>(out);
        list.push_back(name);
        return list.size() < 10000 ? 0 : -1;
      },
      &names);
  require(status >= 0, "{}: {}: cannot list the attributes ({})", path(), object, h5::reason());
  std::sort(names.begin(), names.end());
  return names;
}

std::optional<Attribute> FileReader::attribute(const std::string& object, const std::string& name) const {
  h5::prepare();
  const h5::Handle handle = impl_->open_any(object);
  return handle ? impl_->attribute(handle.get(), object, name) : std::nullopt;
}

bool FileReader::has_attribute(const std::string& object, const std::string& name) const {
  h5::prepare();
  const h5::Handle handle = impl_->open_any(object);
  return handle && H5Aexists(handle.get(), name.c_str()) > 0;
}

int64_t FileReader::attribute_int(const std::string& object, const std::string& name) const {
  h5::prepare();
  const Attribute a = impl_->need(object, name);
  if (const auto* i = std::get_if<int64_t>(&a.value)) return *i;
  const auto* u = std::get_if<uint64_t>(&a.value);
  require(u && *u <= uint64_t(INT64_MAX), "{}: {}: attribute {} is {}, expected an integer", path(), object,
          name, a.str());
  return int64_t(*u);
}

uint64_t FileReader::attribute_uint(const std::string& object, const std::string& name) const {
  h5::prepare();
  const Attribute a = impl_->need(object, name);
  if (const auto* u = std::get_if<uint64_t>(&a.value)) return *u;
  const auto* i = std::get_if<int64_t>(&a.value);
  require(i && *i >= 0, "{}: {}: attribute {} is {}, expected an integer of 0 or more", path(), object, name,
          a.str());
  return uint64_t(*i);
}

double FileReader::attribute_double(const std::string& object, const std::string& name) const {
  h5::prepare();
  const Attribute a = impl_->need(object, name);
  if (const auto* d = std::get_if<double>(&a.value)) return *d;
  if (const auto* i = std::get_if<int64_t>(&a.value)) return double(*i);
  const auto* u = std::get_if<uint64_t>(&a.value);
  require(u != nullptr, "{}: {}: attribute {} is {}, expected a number", path(), object, name, a.str());
  return double(*u);
}

std::string FileReader::attribute_string(const std::string& object, const std::string& name) const {
  h5::prepare();
  const Attribute a = impl_->need(object, name);
  const auto* s = std::get_if<std::string>(&a.value);
  require(s != nullptr, "{}: {}: attribute {} is {}, expected a string", path(), object, name, a.str());
  return *s;
}

}  // namespace modrwkv
