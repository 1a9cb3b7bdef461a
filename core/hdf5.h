// HDF5 files: a writer that commits or leaves nothing, and a reader for files that nobody trusts. Layouts and
// rules: docs/data_formats.md.
//
// Datasets are contiguous, unfiltered and little-endian, each with an attribute xxh64 (XXH64, seed 0, of its
// bytes). Bytes are moved by pread and pwrite; the library is asked for metadata only and never converts an
// element. A dataset or group is named by its absolute path, "/ts/blob"; "/" is the root. Errors are one line:
// file, object, what came, what was expected. All calls on one object belong to one thread at a time, except
// FileReader::read_bytes of a prepared dataset.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace modrwkv {

// Element types of files. Tensors hold all but the unsigned ones above 8 bits and i8, i16: those are read with
// read_vector. The numbers are those of /index/dtype in model files.
enum class ElementType : uint8_t { f32, f16, bf16, u8, i32, i64, u16, u32, u64, f64, i8, i16 };

size_t size_of(ElementType type);
const char* name_of(ElementType type);
ElementType element_type_of(DType type);
std::optional<DType> dtype_of(ElementType type);  // nothing where tensors have no such type

template <class T>
struct ElementTypeOf;
template <>
struct ElementTypeOf<float> {
  static constexpr ElementType value = ElementType::f32;
};
template <>
struct ElementTypeOf<double> {
  static constexpr ElementType value = ElementType::f64;
};
template <>
struct ElementTypeOf<bf16> {
  static constexpr ElementType value = ElementType::bf16;
};
template <>
struct ElementTypeOf<int8_t> {
  static constexpr ElementType value = ElementType::i8;
};
template <>
struct ElementTypeOf<int16_t> {
  static constexpr ElementType value = ElementType::i16;
};
template <>
struct ElementTypeOf<int32_t> {
  static constexpr ElementType value = ElementType::i32;
};
template <>
struct ElementTypeOf<int64_t> {
  static constexpr ElementType value = ElementType::i64;
};
template <>
struct ElementTypeOf<uint8_t> {
  static constexpr ElementType value = ElementType::u8;
};
template <>
struct ElementTypeOf<uint16_t> {
  static constexpr ElementType value = ElementType::u16;
};
template <>
struct ElementTypeOf<uint32_t> {
  static constexpr ElementType value = ElementType::u32;
};
template <>
struct ElementTypeOf<uint64_t> {
  static constexpr ElementType value = ElementType::u64;
};

// The value of an attribute: a number, a short string (up to 4095 bytes) or a vector of up to 64 numbers.
class Attribute {
 public:
  using Value = std::variant<int64_t, uint64_t, double, std::string, std::vector<int64_t>,
                             std::vector<uint64_t>, std::vector<double>>;
  Attribute(int32_t x) : value(int64_t(x)) {}
  Attribute(int64_t x) : value(x) {}
  Attribute(uint32_t x) : value(uint64_t(x)), bits32(true) {}
  Attribute(uint64_t x) : value(x) {}
  Attribute(double x) : value(x) {}
  Attribute(const char* x) : value(std::string(x)) {}
  Attribute(std::string x) : value(std::move(x)) {}
  Attribute(std::vector<int64_t> x) : value(std::move(x)) {}
  Attribute(std::vector<uint64_t> x) : value(std::move(x)) {}
  Attribute(std::vector<double> x) : value(std::move(x)) {}
  Attribute(Value x) : value(std::move(x)) {}
  std::string str() const;  // for people: 3, 0.5, "text", [1, 2]

  Value value;
  bool bits32 = false;  // stored as uint32
};

// Root attributes of every file of ours.
struct FileHeader {
  std::string format;  // "modrwkv.dataset", .model, .checkpoint, .shard, .state
  uint32_t major = 1, minor = 0;
  std::string kind;  // data sets: text, vision, speech, series, mixed; models: backbone
  std::string writer;
  int64_t created_unix = 0;
  std::vector<uint64_t> uuid;  // two words
  std::string required_features;
};

struct DatasetInfo {
  std::string name;
  ElementType type{};
  std::vector<uint64_t> shape;
  uint64_t elements = 0, bytes = 0;
  std::optional<uint64_t> offset;  // in the file, where pread may be used; else the library reads it
  std::optional<uint64_t> xxh64;   // as stored
  std::string shape_str() const;   // "[3, 4]"
};

// Writes PATH.tmp.<pid>; commit() makes it PATH, durable and complete. Without commit nothing is left and an
// older PATH is untouched. Two files with the same content are equal byte by byte: created_unix is
// SOURCE_DATE_EPOCH or 0, uuid is a hash of the content.
class FileWriter {
 public:
  FileWriter(const std::string& path, const std::string& format, const std::string& kind);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;

  const std::string& path() const;
  void require_feature(const std::string& name);  // readers that do not know it refuse the file

  // Groups are made on demand. Rank 1 to 4; the tensor may be on any device.
  void write(const std::string& name, const Tensor& tensor);
  void write(const std::string& name, ElementType type, const std::vector<uint64_t>& shape, const void* data);
  template <class T>
  void write_vector(const std::string& name, const std::vector<T>& values) {
    write(name, ElementTypeOf<T>::value, {values.size()}, values.data());
  }
  void write_blob(const std::string& name, std::string_view bytes);  // u8 [n]
  // NAME u8: the strings back to back; NAME_off u64 [n+1].
  void write_strings(const std::string& name, const std::vector<std::string>& strings);

  // A dataset too large to hold: create, then append its bytes in row-major order until it is full. Several may
  // be open.
  void create(const std::string& name, ElementType type, const std::vector<uint64_t>& shape);
  void append(const std::string& name, const void* data, size_t bytes);

  // Of a dataset written before, or of a group (made if need be).
  void set_attribute(const std::string& object, const std::string& name, const Attribute& value);

  std::optional<uint64_t> offset_of(
      const std::string& name) const;               // file offset of a dataset; nothing if it is empty
  uint64_t hash_of(const std::string& name) const;  // xxh64 of a complete dataset

  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What programs ask before they replace a file named by the user: throws unless it is absent, or an HDF5 file
// of this format and kind, or one that does not open any more.
void require_replaceable_by_hdf5(const std::string& path, const std::string& format, const std::string& kind);

// Opens a file under rules for files that nobody trusts: no plugin, no link but hard ones, no external or
// virtual storage, no filter but fletcher32, no allocation beyond the size of the file. Unknown datasets,
// groups and attributes are ignored.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;

  const std::string& path() const;
  uint64_t file_bytes() const;
  const FileHeader& header() const;
  void require_format(
      const std::string& format) const;  // "x.h5: is a modrwkv.model file, expected modrwkv.dataset"

  std::vector<std::string> list(
      const std::string& group) const;      // link names, sorted; empty if there is no such group
  bool has(const std::string& name) const;  // a dataset or group
  bool is_group(const std::string& name) const;
  DatasetInfo info(const std::string& name) const;  // checked: type, rank, size against the file

  // What a caller expects: shape entries of -1 fit anything, an empty shape any rank.
  struct Expect {
    std::optional<ElementType> type;
    std::vector<int64_t> shape;
  };
  DatasetInfo info(const std::string& name, const Expect& expect) const;

  // The whole dataset, its xxh64 verified where there is one.
  Tensor read(const std::string& name) const;
  Tensor read(const std::string& name, DType type, const std::vector<int64_t>& shape = {}) const;
  template <class T>
  std::vector<T> read_vector(const std::string& name, const std::vector<int64_t>& shape = {}) const {
    const DatasetInfo d = info(name, {ElementTypeOf<T>::value, shape});
    std::vector<T> values(d.elements);
    read_all(d, values.data());
    return values;
  }
  std::string read_blob(const std::string& name, uint64_t limit = uint64_t(1) << 30) const;  // u8 [n]
  std::vector<std::string> read_strings(const std::string& name) const;  // NAME with NAME_off
  // u64 [n+1]: starts with 0, never falls, ends with `end`, no piece above `piece_limit`.
  std::vector<uint64_t> read_offsets(const std::string& name, uint64_t end,
                                     uint64_t piece_limit = UINT64_MAX) const;

  // Rows [begin, end) of axis 0, not verified.
  Tensor read_rows(const std::string& name, int64_t begin, int64_t end) const;
  // Bytes [begin, begin + count) of the dataset's row-major content, not verified. With d.offset any thread may
  // call it.
  void read_bytes(const DatasetInfo& d, uint64_t begin, uint64_t count, void* out) const;
  void read_all(const DatasetInfo& d, void* out) const;  // d.bytes bytes, verified
  void verify(const std::string& name) const;            // throws when the content does not match its xxh64

  // Attributes of "/", a group or a dataset. The typed forms throw when it is missing or does not fit.
  std::vector<std::string> attributes(const std::string& object) const;
  std::optional<Attribute> attribute(const std::string& object, const std::string& name) const;
  bool has_attribute(const std::string& object, const std::string& name) const;
  int64_t attribute_int(const std::string& object, const std::string& name) const;
  uint64_t attribute_uint(const std::string& object, const std::string& name) const;
  double attribute_double(const std::string& object, const std::string& name) const;  // integers are accepted
  std::string attribute_string(const std::string& object, const std::string& name) const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

// Throws "FILE: DATASET: ..." unless the offsets start with 0, never fall and end with `end`.
void check_offsets(const std::string& where, const std::vector<uint64_t>& offsets, uint64_t end,
                   uint64_t piece_limit);

}  // namespace modrwkv
