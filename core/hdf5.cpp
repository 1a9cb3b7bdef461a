// Types and helpers that reading and writing share.
#include "core/hdf5.h"

#include <mutex>

#include "core/error.h"
#include "core/hdf5_internal.h"

namespace modrwkv {

size_t size_of(ElementType type) {
  constexpr size_t sizes[] = {4, 2, 2, 1, 4, 8, 2, 4, 8, 8, 1, 2};
  return sizes[int(type)];
}

const char* name_of(ElementType type) {
  constexpr const char* names[] = {"f32", "f16", "bf16", "u8",  "i32", "i64",
                                   "u16", "u32", "u64",  "f64", "i8",  "i16"};
  return names[int(type)];
}

ElementType element_type_of(DType type) {
  switch (type) {
    case DType::f32:
      return ElementType::f32;
    case DType::bf16:
      return ElementType::bf16;
    case DType::f16:
      return ElementType::f16;
    case DType::f64:
      return ElementType::f64;
    case DType::i32:
      return ElementType::i32;
    case DType::i64:
      return ElementType::i64;
    case DType::u8:
      return ElementType::u8;
  }
  fail("file: unknown element type {}", int(type));
}

std::optional<DType> dtype_of(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return DType::f32;
    case ElementType::bf16:
      return DType::bf16;
    case ElementType::f16:
      return DType::f16;
    case ElementType::f64:
      return DType::f64;
    case ElementType::i32:
      return DType::i32;
    case ElementType::i64:
      return DType::i64;
    case ElementType::u8:
      return DType::u8;
    default:
      return std::nullopt;
  }
}

namespace {

struct PrintAttribute {
  std::string operator()(const std::string& s) const { return "\"" + h5::printable(s) + "\""; }
  std::string operator()(int64_t x) const { return fmt::format("{}", x); }
  std::string operator()(uint64_t x) const { return fmt::format("{}", x); }
  std::string operator()(double x) const { return fmt::format("{}", x); }
  template <class T>
  std::string operator()(const std::vector<T>& v) const {
    std::string s = "[";
    for (size_t i = 0; i < v.size(); ++i) s += (i ? ", " : "") + (*this)(v[i]);
    return s + "]";
  }
};

}  // namespace

std::string Attribute::str() const { return std::visit(PrintAttribute{}, value); }

std::string DatasetInfo::shape_str() const { return h5::shape_str(shape); }

void check_offsets(const std::string& where, const std::vector<uint64_t>& offsets, uint64_t end,
                   uint64_t piece_limit) {
  require(!offsets.empty(), "{}: no offsets, expected at least one", where);
  require(offsets[0] == 0, "{}: the first offset is {}, expected 0", where, offsets[0]);
  for (size_t i = 1; i < offsets.size(); ++i) {
    require(offsets[i - 1] <= offsets[i], "{}: offsets fall at {}: {} then {}", where, i, offsets[i - 1],
            offsets[i]);
    require(offsets[i] - offsets[i - 1] <= piece_limit, "{}: item {} has {} elements, at most {} are accepted",
            where, i - 1, offsets[i] - offsets[i - 1], piece_limit);
  }
  require(offsets.back() == end, "{}: the last offset is {}, expected {}", where, offsets.back(), end);
}

namespace h5 {

void prepare() {
  static std::once_flag once;
  std::call_once(once, [] {
    H5dont_atexit();
    H5open();
    H5PLset_loading_state(0);
  });
  thread_local bool quiet = false;  // the error stack belongs to the thread
  if (!quiet) quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
}

std::string printable(const std::string& text, size_t limit) {
  std::string out = text.substr(0, limit);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return text.size() > limit ? out + "..." : out;
}

std::string reason() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* entry, void* out) -> herr_t {
        if (n == 0 && entry->desc) *static_cast<std::string*>(out) = entry->desc;
        return 0;
      },
      &text);
  return text.empty() ? "HDF5 gives no reason" : printable(text);
}

namespace {

Handle small_float(size_t sign, size_t exponent_at, size_t exponent, size_t mantissa, size_t bias) {
  Handle t(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  // The fields first: they must fit into the smaller precision.
  const bool made = t && H5Tset_fields(t.get(), sign, exponent_at, exponent, 0, mantissa) >= 0 &&
                    H5Tset_precision(t.get(), 16) >= 0 && H5Tset_size(t.get(), 2) >= 0 &&
                    H5Tset_ebias(t.get(), bias) >= 0;
  require(made, "HDF5: cannot make a 16-bit float type ({})", reason());
  return t;
}

Handle copy_of(hid_t type) {
  Handle t(H5Tcopy(type), H5Tclose);
  require(bool(t), "HDF5: cannot copy a type ({})", reason());
  return t;
}

bool is_small_float(hid_t t, size_t sign, size_t exponent_at, size_t exponent, size_t mantissa, size_t bias) {
  size_t s = 0, ep = 0, es = 0, mp = 0, ms = 0;
  return H5Tget_size(t) == 2 && H5Tget_order(t) == H5T_ORDER_LE &&
         H5Tget_fields(t, &s, &ep, &es, &mp, &ms) >= 0 && s == sign && ep == exponent_at && es == exponent &&
         mp == 0 && ms == mantissa && H5Tget_ebias(t) == bias;
}

}  // namespace

Handle file_type(ElementType type) {
  switch (type) {
    case ElementType::f32:
      return copy_of(H5T_IEEE_F32LE);
    case ElementType::f64:
      return copy_of(H5T_IEEE_F64LE);
    case ElementType::bf16:
      return small_float(15, 7, 8, 7, 127);
    case ElementType::f16:
      return small_float(15, 10, 5, 10, 15);
    case ElementType::u8:
      return copy_of(H5T_STD_U8LE);
    case ElementType::u16:
      return copy_of(H5T_STD_U16LE);
    case ElementType::u32:
      return copy_of(H5T_STD_U32LE);
    case ElementType::u64:
      return copy_of(H5T_STD_U64LE);
    case ElementType::i8:
      return copy_of(H5T_STD_I8LE);
    case ElementType::i16:
      return copy_of(H5T_STD_I16LE);
    case ElementType::i32:
      return copy_of(H5T_STD_I32LE);
    case ElementType::i64:
      return copy_of(H5T_STD_I64LE);
  }
  fail("HDF5: unknown element type {}", int(type));
}

std::optional<ElementType> recognise(hid_t type, bool* swapped) {
  *swapped = false;
  const H5T_class_t kind = H5Tget_class(type);
  const size_t size = H5Tget_size(type);
  if (kind == H5T_FLOAT) {
    if (H5Tequal(type, H5T_IEEE_F32LE) > 0) return ElementType::f32;
    if (H5Tequal(type, H5T_IEEE_F64LE) > 0) return ElementType::f64;
    if (is_small_float(type, 15, 7, 8, 7, 127)) return ElementType::bf16;
    if (is_small_float(type, 15, 10, 5, 10, 15)) return ElementType::f16;
    *swapped = true;
    if (H5Tequal(type, H5T_IEEE_F32BE) > 0) return ElementType::f32;
    if (H5Tequal(type, H5T_IEEE_F64BE) > 0) return ElementType::f64;
    return std::nullopt;
  }
  if (kind != H5T_INTEGER || H5Tget_precision(type) != 8 * size || H5Tget_offset(type) != 0)
    return std::nullopt;
  const H5T_order_t order = H5Tget_order(type);
  if (order != H5T_ORDER_LE && order != H5T_ORDER_BE) return std::nullopt;
  *swapped = order == H5T_ORDER_BE && size > 1;
  const H5T_sign_t sign = H5Tget_sign(type);
  if (sign == H5T_SGN_ERROR) return std::nullopt;
  const bool is_signed = sign == H5T_SGN_2;
  switch (size) {
    case 1:
      return is_signed ? ElementType::i8 : ElementType::u8;
    case 2:
      return is_signed ? ElementType::i16 : ElementType::u16;
    case 4:
      return is_signed ? ElementType::i32 : ElementType::u32;
    case 8:
      return is_signed ? ElementType::i64 : ElementType::u64;
    default:
      return std::nullopt;
  }
}

std::string describe(hid_t type) {
  bool swapped = false;
  if (const auto known = recognise(type, &swapped))
    return std::string(name_of(*known)) + (swapped ? " big-endian" : "");
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      return "an unusual integer type";
    case H5T_FLOAT:
      return "an unusual float type";
    case H5T_TIME:
      return "time";
    case H5T_STRING:
      return H5Tis_variable_str(type) > 0 ? "variable-length strings" : "strings";
    case H5T_BITFIELD:
      return "a bit field";
    case H5T_OPAQUE:
      return "opaque";
    case H5T_COMPOUND:
      return "a compound";
    case H5T_REFERENCE:
      return "a reference";
    case H5T_ENUM:
      return "an enumeration";
    case H5T_VLEN:
      return "variable-length data";
    case H5T_ARRAY:
      return "an array type";
    default:
      return "an unknown type";
  }
}

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  size_t at = 0;
  while (at < path.size()) {
    const size_t slash = std::min(path.find('/', at), path.size());
    if (slash > at) parts.push_back(path.substr(at, slash - at));
    at = slash + 1;
  }
  return parts;
}

std::string shape_str(const std::vector<uint64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + "]";
}

}  // namespace h5
}  // namespace modrwkv
