// Files made with the HDF5 library directly, as a stranger or an attacker would make them: the referee of
// core/hdf5.h.
#pragma once
#ifndef H5_USE_110_API
#define H5_USE_110_API
#endif
#include <hdf5.h>

#include <string>
#include <vector>

namespace modrwkv::testing {

// A new file with the root attributes of ours (format, format_major) unless `foreign`; closed at the end of the
// scope.
class RawFile {
 public:
  explicit RawFile(const std::string& path, bool foreign = false, hid_t creation = H5P_DEFAULT);
  ~RawFile();
  RawFile(const RawFile&) = delete;
  hid_t id() const { return file_; }

  void group(const std::string& name);
  void number(const std::string& object, const std::string& name, hid_t type, const void* value);
  void text(const std::string& object, const std::string& name, const std::string& value,
            bool variable = false);
  // `memory` is the type of `data` (null: nothing is written); `plist` a dataset creation list, closed here.
  void dataset(const std::string& name, hid_t type, const std::vector<hsize_t>& shape, hid_t memory,
               const void* data, hid_t plist = H5P_DEFAULT);

 private:
  hid_t file_;
};

hid_t creation_list();  // of datasets; the caller or RawFile::dataset closes it
void must(bool good);   // throws std::logic_error

// The message of the Error that fn throws; empty, and a failure of the test, where it throws none or more than
// one line.
template <class F>
std::string refusal(F&& fn);

}  // namespace modrwkv::testing

#include <gtest/gtest.h>

#include "core/error.h"

template <class F>
std::string modrwkv::testing::refusal(F&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_FALSE(message.empty());
    return message;
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}
