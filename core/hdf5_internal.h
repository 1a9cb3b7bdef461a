// Shared by hdf5.cpp, hdf5_read.cpp and hdf5_write.cpp: handles that close themselves, and our types as the
// library's.
#pragma once
#ifndef H5_USE_110_API
#define H5_USE_110_API  // the calls of 1.10, also with a newer library
#endif
#include <hdf5.h>

#include <string>
#include <utility>
#include <vector>

#include "core/hdf5.h"

namespace modrwkv::h5 {

// Before the first call of any thread: no plugins, no error stack on stderr, no clean-up at exit (it crashes on
// a file whose close has failed).
void prepare();
std::string reason();  // innermost entry of the library's error stack, one printable line
std::string printable(const std::string& text, size_t limit = 200);  // control bytes become '?'

class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  herr_t close() { return close_(std::exchange(id_, -1)); }

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

// Little-endian, as stored; the type in memory too (we build for little-endian machines only), so that the
// library copies and never converts: its conversion to bf16 does not round to nearest even.
Handle file_type(ElementType type);
// What a file's type is; big-endian numbers are told by `swapped`. Nothing where we have no such type.
std::optional<ElementType> recognise(hid_t type, bool* swapped);
std::string describe(hid_t type);  // for messages: "compound", "i64", "string"

std::vector<std::string> split(const std::string& path);  // "/a/b" to a, b
std::string shape_str(const std::vector<uint64_t>& shape);

constexpr int kMaxFileRank = 4;
constexpr size_t kMaxString = 4095, kMaxVector = 64;
constexpr size_t kHashPiece = size_t(1) << 20;           // NAME.h: a hash a piece,
constexpr uint64_t kHashTableFrom = uint64_t(64) << 20;  // for datasets called blob above this size

}  // namespace modrwkv::h5
