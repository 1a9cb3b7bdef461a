#include "tests/raw_hdf5.h"

#include <stdexcept>

namespace modrwkv::testing {

void must(bool good) {
  if (!good) throw std::logic_error("the test's own HDF5 call failed");
}

hid_t creation_list() { return H5Pcreate(H5P_DATASET_CREATE); }

RawFile::RawFile(const std::string& path, bool foreign, hid_t creation)
    : file_(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, H5P_DEFAULT)) {
  must(file_ >= 0);
  if (foreign) return;
  const int one = 1;
  text("/", "format", "modrwkv.dataset");
  number("/", "format_major", H5T_NATIVE_INT, &one);
}

RawFile::~RawFile() { H5Fclose(file_); }

void RawFile::group(const std::string& name) {
  const hid_t g = H5Gcreate2(file_, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  must(g >= 0 && H5Gclose(g) >= 0);
}

void RawFile::number(const std::string& object, const std::string& name, hid_t type, const void* value) {
  const hid_t o = H5Oopen(file_, object.c_str(), H5P_DEFAULT), s = H5Screate(H5S_SCALAR);
  const hid_t a = H5Acreate2(o, name.c_str(), type, s, H5P_DEFAULT, H5P_DEFAULT);
  must(a >= 0 && H5Awrite(a, type, value) >= 0);
  H5Aclose(a), H5Sclose(s), H5Oclose(o);
}

void RawFile::text(const std::string& object, const std::string& name, const std::string& value,
                   bool variable) {
  const hid_t t = H5Tcopy(H5T_C_S1);
  must(H5Tset_size(t, variable ? H5T_VARIABLE : value.size()) >= 0);
  const char* pointer = value.c_str();
  number(object, name, t, variable ? static_cast<const void*>(&pointer) : pointer);
  H5Tclose(t);
}

void RawFile::dataset(const std::string& name, hid_t type, const std::vector<hsize_t>& shape, hid_t memory,
                      const void* data, hid_t plist) {
  const hid_t s = H5Screate_simple(int(shape.size()), shape.data(), nullptr);
  const hid_t d = H5Dcreate2(file_, name.c_str(), type, s, H5P_DEFAULT, plist, H5P_DEFAULT);
  must(d >= 0 && (!data || H5Dwrite(d, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0));
  H5Dclose(d), H5Sclose(s);
  if (plist != H5P_DEFAULT) H5Pclose(plist);
}

}  // namespace modrwkv::testing
