// FileWriter. Two things make failures clean. Bytes of datasets go by pwrite to the place the library has
// allocated, so that an error is the system's own. And before every call that makes the library's metadata
// grow, disk space for it is reserved: the library cannot survive a failed close (the file stays open and the
// process crashes at its end), so it never meets one.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/hdf5_internal.h"
#include "core/options.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are written as memory holds them");

namespace modrwkv {

struct FileWriter::Impl {
  struct Dataset {
    ElementType type{};
    std::vector<uint64_t> shape;
    uint64_t bytes = 0, written = 0, hash = 0;
    std::optional<uint64_t> offset;
    Xxh64 whole, piece;
    std::vector<uint64_t> pieces;  // hashes of full pieces, for NAME.h
    bool has_table = false;
  };

  std::string path, temporary, format, kind, features;
  int fd = -1;
  h5::Handle file;
  uint64_t reserved = 0;
  bool committed = false;
  std::set<std::string> groups;
  std::map<std::string, Dataset> datasets;

  [[noreturn]] void fail_library(const std::string& object, const char* what) const {
    fail("{}: {}: cannot {} ({})", path, object, what, h5::reason());
  }

  // Room for `bytes` of a dataset and for metadata: some 2 KiB an object is more than headers, names and tables
  // take.
  void reserve(uint64_t bytes) {
    hsize_t used = 0;
    if (H5Fget_filesize(file.get(), &used) < 0) fail_library("/", "ask for the size");
    const uint64_t margin = (uint64_t(256) << 10) + 2048 * (datasets.size() + groups.size());
    const uint64_t need = used + bytes + margin;
    require(need < uint64_t(1) << 62, "{}: {} bytes do not fit into a file", path, bytes);
    if (need <= reserved) return;
    const int error = posix_fallocate(fd, off_t(reserved), off_t(need + margin - reserved));
    if (error != 0) fail("{}: cannot write: {}", path, strerror(error));
    reserved = need + margin;
  }

  static void check_name(const std::string& path, const std::string& name) {
    for (const std::string& part : h5::split(name)) {
      bool fine = part.size() <= 255 && part != "." && part != "..";
      for (char c : part) fine = fine && (isalnum(static_cast<unsigned char>(c)) || strchr("_.-", c));
      require(fine, "{}: {}: names are made of letters, digits, '_', '.' and '-'", path, h5::printable(name));
    }
    require(!name.empty() && name[0] == '/', "{}: {}: expected an absolute name", path, h5::printable(name));
  }

  void make_groups(const std::vector<std::string>& parts, size_t count) {
    std::string name;
    for (size_t i = 0; i < count; ++i) {
      name += "/" + parts[i];
      if (groups.count(name)) continue;
      require(!datasets.count(name), "{}: {}: is a dataset, cannot hold others", path, name);
      reserve(0);
      h5::Handle plist(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
      if (!plist || H5Pset_obj_track_times(plist.get(), false) < 0) fail_library(name, "make the group");
      h5::Handle group(H5Gcreate2(file.get(), name.c_str(), H5P_DEFAULT, plist.get(), H5P_DEFAULT), H5Gclose);
      if (!group) fail_library(name, "make the group");
      groups.insert(name);
    }
  }

  const Dataset& find(const std::string& name) const {
    const auto it = datasets.find(name);
    require(it != datasets.end(), "{}: {}: no such dataset was written", path, name);
    return it->second;
  }

  void put_attribute(hid_t object, const std::string& where, const std::string& name,
                     const Attribute& attribute) {
    reserve(16 << 10);
    const auto put = [&](hid_t type, size_t count, bool scalar, const void* data) {
      const hsize_t n = count;
      h5::Handle space(scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &n, nullptr), H5Sclose);
      if (!space || (H5Aexists(object, name.c_str()) > 0 && H5Adelete(object, name.c_str()) < 0)) {
        fail_library(where, ("write attribute " + name).c_str());
      }
      h5::Handle a(H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
      if (!a || H5Awrite(a.get(), type, data) < 0) fail_library(where, ("write attribute " + name).c_str());
    };
    const auto number = [&](ElementType type, size_t count, bool scalar, const void* data) {
      require(count <= h5::kMaxVector, "{}: {}: attribute {} has {} values, at most {} are accepted", path,
              where, name, count, h5::kMaxVector);
      put(h5::file_type(type).get(), count, scalar, data);
    };
    const auto& value = attribute.value;
    if (const auto* s = std::get_if<std::string>(&value)) {
      require(s->size() <= h5::kMaxString, "{}: {}: attribute {} has {} bytes, at most {} are accepted", path,
              where, name, s->size(), h5::kMaxString);
      h5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
      const std::string stored = s->empty() ? std::string(1, '\0') : *s;  // a size of 0 is not allowed
      if (!type || H5Tset_size(type.get(), stored.size()) < 0 || H5Tset_cset(type.get(), H5T_CSET_UTF8) < 0 ||
          H5Tset_strpad(type.get(), H5T_STR_NULLPAD) < 0) {
        fail_library(where, ("write attribute " + name).c_str());
      }
      put(type.get(), 1, true, stored.data());
    } else if (const auto* i = std::get_if<int64_t>(&value)) {
      number(ElementType::i64, 1, true, i);
    } else if (const auto* u = std::get_if<uint64_t>(&value)) {
      const uint32_t narrow = uint32_t(*u);
      if (attribute.bits32) {
        number(ElementType::u32, 1, true, &narrow);
      } else {
        number(ElementType::u64, 1, true, u);
      }
    } else if (const auto* d = std::get_if<double>(&value)) {
      number(ElementType::f64, 1, true, d);
    } else if (const auto* vi = std::get_if<std::vector<int64_t>>(&value)) {
      number(ElementType::i64, vi->size(), false, vi->data());
    } else if (const auto* vu = std::get_if<std::vector<uint64_t>>(&value)) {
      number(ElementType::u64, vu->size(), false, vu->data());
    } else if (const auto* vd = std::get_if<std::vector<double>>(&value)) {
      number(ElementType::f64, vd->size(), false, vd->data());
    }
  }

  void put_root() {
    h5::Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
    if (!root) fail_library("/", "open");
    put_attribute(root.get(), "/", "format", format);
    put_attribute(root.get(), "/", "format_major", uint32_t(1));
    put_attribute(root.get(), "/", "format_minor", uint32_t(0));
    put_attribute(root.get(), "/", "kind", kind);
    put_attribute(root.get(), "/", "writer", std::string("modrwkv ") + version());
    const char* epoch = getenv("SOURCE_DATE_EPOCH");
    put_attribute(root.get(), "/", "created_unix", int64_t(epoch ? strtoll(epoch, nullptr, 10) : 0));
    put_attribute(root.get(), "/", "required_features", features);
    put_uuid(root.get());
  }

  void put_uuid(hid_t root) {
    std::string text = format + "\n" + kind + "\n";
    for (const auto& [name, d] : datasets) {
      text += fmt::format("{} {} {} {:016x}\n", name, name_of(d.type), h5::shape_str(d.shape), d.hash);
    }
    XXH128_canonical_t uuid;
    XXH128_canonicalFromHash(&uuid, XXH3_128bits(text.data(), text.size()));
    const hsize_t n = 16;
    h5::Handle space(H5Screate_simple(1, &n, nullptr), H5Sclose), type = h5::file_type(ElementType::u8);
    h5::Handle a(H5Acreate2(root, "uuid", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    if (!a || H5Awrite(a.get(), type.get(), uuid.digest) < 0) fail_library("/", "write attribute uuid");
  }

  void finish(FileWriter& writer, const std::string& name, Dataset& d) {
    d.hash = d.whole.value();
    h5::Handle set(H5Dopen2(file.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
    if (!set) fail_library(name, "open");
    put_attribute(set.get(), name, "xxh64", d.hash);
    if (!d.has_table) return;
    if (d.bytes % h5::kHashPiece) d.pieces.push_back(d.piece.value());
    const std::vector<uint64_t> table = std::move(d.pieces);
    writer.write_vector(name + ".h", table);
  }

  void add(Dataset& d, const void* data, size_t bytes) {
    write_at(fd, path, data, bytes, d.offset.value_or(0) + d.written);
    d.whole.add(data, bytes);
    const char* p = static_cast<const char*>(data);
    uint64_t at = d.written;
    d.written += bytes;
    while (d.has_table && bytes > 0) {
      const size_t n = size_t(std::min<uint64_t>(bytes, h5::kHashPiece - at % h5::kHashPiece));
      d.piece.add(p, n);
      p += n, at += n, bytes -= n;
      if (at % h5::kHashPiece == 0) {
        d.pieces.push_back(d.piece.value());
        d.piece.reset();
      }
    }
  }

  // The library leaves what was reserved beyond its own end; a superblock of version 0 says where that is.
  void trim() {
    struct {
      unsigned char signature[8], version, others[4], offset_size, rest[26];
      unsigned char end[8];
    } superblock;
    static_assert(sizeof superblock == 48);
    read_at(fd, path, &superblock, sizeof superblock, 0);
    uint64_t end = 0;
    memcpy(&end, superblock.end, sizeof end);
    struct stat s;
    require(superblock.version == 0 && superblock.offset_size == 8 && fstat(fd, &s) == 0 &&
                end <= uint64_t(s.st_size),
            "{}: the file written is not as expected", path);
    if (ftruncate(fd, off_t(end)) != 0) fail("{}: cannot write: {}", path, strerror(errno));
  }

  void discard() {
    if (fd < 0) return;
    if (file) file.close();
    ::close(fd);
    fd = -1;
    if (!committed) unlink(temporary.c_str());
  }
};

void require_replaceable_by_hdf5(const std::string& path, const std::string& format, const std::string& kind) {
  require_replaceable(path);
  if (!path_exists(path)) return;
  require(is_hdf5_file(path), "{}: is no HDF5 file and is not replaced by one", path);
  FileHeader there;
  try {
    there = FileReader(path).header();
  } catch (const Error&) {
    return;  // it does not open any more
  }
  require(there.format == format && there.kind == kind,
          "{}: is a {} file ({}) and is not replaced by a {} file ({})", path, there.format, there.kind, format,
          kind);
}

FileWriter::FileWriter(const std::string& path, const std::string& format, const std::string& kind)
    : impl_(std::make_unique<Impl>()) {
  h5::prepare();
  ignore_file_size_signal();
  Impl& w = *impl_;
  w.path = path;
  w.format = format;
  w.kind = kind;
  w.temporary = fmt::format("{}.tmp.{}", path, getpid());
  require(!is_directory(path), "{}: is a folder, expected a file to write", path);
  w.fd = ::open(w.temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (w.fd < 0) fail("{}: cannot write: {}", path, strerror(errno));
  try {
    const int error = posix_fallocate(w.fd, 0, 256 << 10);
    if (error != 0) fail("{}: cannot write: {}", path, strerror(error));
    h5::Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    const bool set = access && H5Pset_fapl_sec2(access.get()) >= 0 &&
                     H5Pset_file_locking(access.get(), false, true) >= 0 &&
                     H5Pset_alignment(access.get(), 65536, 4096) >= 0 &&
                     H5Pset_libver_bounds(access.get(), H5F_LIBVER_EARLIEST, H5F_LIBVER_V110) >= 0;
    // Create truncates: what was reserved above only showed that there is room. The superblock is written by
    // close.
    if (set)
      w.file = h5::Handle(H5Fcreate(w.temporary.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
    if (!w.file) fail("{}: cannot write ({})", path, h5::reason());
    w.reserve(0);
  } catch (...) {
    w.discard();
    throw;
  }
}

FileWriter::~FileWriter() { impl_->discard(); }

const std::string& FileWriter::path() const { return impl_->path; }

void FileWriter::require_feature(const std::string& name) {
  impl_->features += (impl_->features.empty() ? "" : ",") + name;
}

void FileWriter::create(const std::string& name, ElementType type, const std::vector<uint64_t>& shape) {
  Impl& w = *impl_;
  require(bool(w.file), "{}: {}: the file is closed", w.path, name);
  Impl::check_name(w.path, name);
  require(!w.datasets.count(name) && !w.groups.count(name), "{}: {}: exists already", w.path, name);
  require(!shape.empty() && shape.size() <= size_t(h5::kMaxFileRank),
          "{}: {}: shape {} has {} axes, expected 1 to {}", w.path, name, h5::shape_str(shape), shape.size(),
          h5::kMaxFileRank);
  uint64_t bytes = size_of(type);
  for (uint64_t n : shape) {
    require(!__builtin_mul_overflow(bytes, n, &bytes) && bytes < uint64_t(1) << 62,
            "{}: {}: shape {} is too large", w.path, name, h5::shape_str(shape));
  }
  const std::vector<std::string> parts = h5::split(name);
  require(!parts.empty(), "{}: {}: not a dataset's name", w.path, name);
  w.make_groups(parts, parts.size() - 1);
  w.reserve(bytes + 65536);

  const std::vector<hsize_t> dims(shape.begin(), shape.end());
  h5::Handle space(H5Screate_simple(int(dims.size()), dims.data(), nullptr), H5Sclose);
  h5::Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const bool set = space && plist && H5Pset_layout(plist.get(), H5D_CONTIGUOUS) >= 0 &&
                   H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_EARLY) >= 0 &&
                   H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER) >= 0 &&
                   H5Pset_obj_track_times(plist.get(), false) >= 0;
  h5::Handle dataset;
  if (set) {
    dataset = h5::Handle(H5Dcreate2(w.file.get(), name.c_str(), h5::file_type(type).get(), space.get(),
                                    H5P_DEFAULT, plist.get(), H5P_DEFAULT),
                         H5Dclose);
  }
  if (!dataset) w.fail_library(name, "make the dataset");
  Impl::Dataset& d = w.datasets[name];
  d.type = type;
  d.shape = shape;
  d.bytes = bytes;
  d.has_table = parts.back() == "blob" && bytes > h5::kHashTableFrom;
  if (bytes > 0) {
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset == HADDR_UNDEF) w.fail_library(name, "place the dataset");
    d.offset = offset;
  } else {
    w.finish(*this, name, d);
  }
}

void FileWriter::append(const std::string& name, const void* data, size_t bytes) {
  Impl& w = *impl_;
  w.find(name);
  Impl::Dataset& d = w.datasets[name];
  require(bytes <= d.bytes - d.written, "{}: {}: {} bytes follow {} of {}", w.path, name, bytes, d.written,
          d.bytes);
  if (bytes == 0) return;
  w.add(d, data, bytes);
  if (d.written == d.bytes) w.finish(*this, name, d);
}

void FileWriter::write(const std::string& name, ElementType type, const std::vector<uint64_t>& shape,
                       const void* data) {
  create(name, type, shape);
  append(name, data, impl_->datasets[name].bytes);
}

void FileWriter::write(const std::string& name, const Tensor& tensor) {
  require(tensor.defined(), "{}: {}: the tensor is undefined", impl_->path, name);
  const Tensor here = tensor.to(kCpu);
  std::vector<uint64_t> shape;
  for (int i = 0; i < here.rank(); ++i) shape.push_back(uint64_t(here.size(i)));
  write(name, element_type_of(here.dtype()), shape, here.raw());
}

void FileWriter::write_blob(const std::string& name, std::string_view bytes) {
  write(name, ElementType::u8, {bytes.size()}, bytes.data());
}

void FileWriter::write_strings(const std::string& name, const std::vector<std::string>& strings) {
  std::string all;
  std::vector<uint64_t> offsets{0};
  for (const std::string& s : strings) {
    all += s;
    offsets.push_back(all.size());
  }
  write_blob(name, all);
  write_vector(name + "_off", offsets);
}

void FileWriter::set_attribute(const std::string& object, const std::string& name, const Attribute& value) {
  Impl& w = *impl_;
  require(bool(w.file), "{}: {}: the file is closed", w.path, object);
  Impl::check_name(w.path, object);
  require(!name.empty() && name.size() <= 255, "{}: {}: attribute names have 1 to 255 bytes", w.path, object);
  if (!w.datasets.count(object)) {
    const std::vector<std::string> parts = h5::split(object);
    w.make_groups(parts, parts.size());
  }
  h5::Handle handle(H5Oopen(w.file.get(), object.c_str(), H5P_DEFAULT), H5Oclose);
  if (!handle) w.fail_library(object, "open");
  w.put_attribute(handle.get(), object, name, value);
}

std::optional<uint64_t> FileWriter::offset_of(const std::string& name) const {
  return impl_->find(name).offset;
}

uint64_t FileWriter::hash_of(const std::string& name) const {
  const Impl::Dataset& d = impl_->find(name);
  require(d.written == d.bytes, "{}: {}: {} of {} bytes were written", impl_->path, name, d.written, d.bytes);
  return d.hash;
}

void FileWriter::commit() {
  Impl& w = *impl_;
  require(bool(w.file), "{}: was committed before", w.path);
  for (const auto& [name, d] : w.datasets) {
    require(d.written == d.bytes, "{}: {}: {} of {} bytes were written", w.path, name, d.written, d.bytes);
  }
  w.put_root();
  const ssize_t open = H5Fget_obj_count(w.file.get(), H5F_OBJ_ALL);
  require(open == 1, "{}: {} HDF5 objects are still open", w.path, open - 1);
  w.reserve(0);
  if (w.file.close() < 0) fail("{}: cannot write ({})", w.path, h5::reason());
  w.trim();
  if (fsync(w.fd) != 0) fail("{}: cannot write: {}", w.path, strerror(errno));
  if (rename(w.temporary.c_str(), w.path.c_str()) != 0) fail("{}: cannot write: {}", w.path, strerror(errno));
  w.committed = true;
  sync_directory(parent_directory(w.path));
  w.discard();
}

}  // namespace modrwkv
