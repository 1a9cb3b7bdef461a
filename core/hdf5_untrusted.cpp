// What FileReader does with a file before it believes anything in it.
#include "core/hdf5_untrusted.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/files.h"

namespace modrwkv {

namespace {

constexpr hsize_t kMaxLinks = 1000000;

using Link = FileReader::Impl::Link;
using Group = FileReader::Impl::Group;

struct Links {
  std::vector<Link> list;
  std::string refused;  // a sentence about the first link that is not hard
};

herr_t add_link(hid_t, const char* name, const H5L_info_t* info, void* out) {
  Links& links = *static_cast<Links*>(out);
  if (info->type != H5L_TYPE_HARD) {
    const char* what = info->type == H5L_TYPE_SOFT       ? "a soft link"
                       : info->type == H5L_TYPE_EXTERNAL ? "an external link"
                                                         : "a user-defined link";
    links.refused = fmt::format("{}: is {}, only hard links are accepted", h5::printable(name), what);
    return 1;
  }
  links.list.push_back({name, info->u.address});
  return 0;
}

std::string joined(const std::string& group, const std::string& name) {
  return (group == "/" ? "/" : group + "/") + h5::printable(name);
}

herr_t refuse_link(const char*, const char*, const char*, const char*, unsigned*, hid_t, void*) { return -1; }

}  // namespace

const Link* Group::find(const std::string& name) const {
  const auto at = std::lower_bound(links.begin(), links.end(), name,
                                   [](const Link& a, const std::string& b) { return a.name < b; });
  return at != links.end() && at->name == name ? &*at : nullptr;
}

FileReader::Impl::~Impl() {
  groups.clear();
  if (fd >= 0) ::close(fd);
}

void FileReader::Impl::open(const std::string& name) {
  path = name;
  fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) fail("{}: cannot open: {}", path, strerror(errno));
  struct stat s;
  if (fstat(fd, &s) != 0) fail("{}: cannot open: {}", path, strerror(errno));
  require(S_ISREG(s.st_mode), "{}: is {}, expected an HDF5 file", path,
          S_ISDIR(s.st_mode) ? "a folder" : "not a regular file");
  file_size = uint64_t(s.st_size);
  char start[8] = {};
  if (file_size >= sizeof start) read_at(fd, path, start, sizeof start, 0);
  require(file_size >= 96 && memcmp(start, "\x89HDF\r\n\x1a\n", 8) == 0, "{}: is not an HDF5 file", path);

  h5::Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  dataset_access = h5::Handle(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  const bool set = access && H5Pset_fapl_sec2(access.get()) >= 0 &&
                   H5Pset_file_locking(access.get(), false, true) >= 0 &&
                   H5Pset_elink_file_cache_size(access.get(), 0) >= 0 && dataset_access &&
                   H5Pset_elink_cb(dataset_access.get(), refuse_link, nullptr) >= 0;
  require(set, "{}: cannot set HDF5 up ({})", path, h5::reason());
  file = h5::Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  require(bool(file), "{}: is a damaged HDF5 file ({})", path, h5::reason());
  h5::Handle plist(H5Fget_create_plist(file.get()), H5Pclose);
  hsize_t block = 1;
  require(plist && H5Pget_userblock(plist.get(), &block) >= 0 && block == 0,
          "{}: has a user block, which is not accepted", path);

  Group root;
  hobj_ref_t reference = 0;
  root.handle = h5::Handle(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
  require(root.handle && H5Rcreate(&reference, file.get(), "/", H5R_OBJECT, -1) >= 0,
          "{}: is a damaged HDF5 file ({})", path, h5::reason());
  root.address = reference;
  read_links(root, "/");
  groups.emplace("/", std::move(root));
}

void FileReader::Impl::read_links(Group& group, const std::string& name) const {
  H5G_info_t info;
  require(H5Gget_info(group.handle.get(), &info) >= 0, "{}: {}: is damaged ({})", path, name, h5::reason());
  require(info.nlinks <= kMaxLinks, "{}: {}: has {} entries, at most {} are accepted", path, name, info.nlinks,
          kMaxLinks);
  Links links;
  const herr_t status =
      H5Literate(group.handle.get(), H5_INDEX_NAME, H5_ITER_NATIVE, nullptr, add_link, &links);
  if (!links.refused.empty()) fail("{}: {}", path, joined(name, links.refused));
  require(status >= 0, "{}: {}: is damaged ({})", path, name, h5::reason());
  std::sort(links.list.begin(), links.list.end(), [](const Link& a, const Link& b) { return a.name < b.name; });
  for (size_t i = 1; i < links.list.size(); ++i) {
    require(links.list[i - 1].name != links.list[i].name, "{}: {}: occurs twice", path,
            joined(name, links.list[i].name));
  }
  for (const Link& link : links.list) {
    bool cycle = link.address == group.address;
    for (const auto& [other, opened] : groups) cycle = cycle || link.address == opened.address;
    require(!cycle, "{}: {}: is a link back to a group", path, joined(name, link.name));
  }
  group.links = std::move(links.list);
}

const Group* FileReader::Impl::find_group(const std::string& name) {
  const Group* group = &groups.at("/");
  std::string at;
  for (const std::string& part : h5::split(name)) {
    const std::string parent = at.empty() ? "/" : at;
    at += "/" + part;
    if (const auto known = groups.find(at); known != groups.end()) {
      group = &known->second;
      continue;
    }
    const Link* link = group->find(part);
    if (!link) return nullptr;
    h5::Handle object = open_object(*group, part, at);
    if (H5Iget_type(object.get()) != H5I_GROUP) return nullptr;
    Group next;
    next.handle = std::move(object);
    next.address = link->address;
    read_links(next, at);
    group = &groups.emplace(at, std::move(next)).first->second;
  }
  return group;
}

h5::Handle FileReader::Impl::open_object(const Group& group, const std::string& leaf,
                                         const std::string& name) const {
  h5::Handle object(H5Oopen(group.handle.get(), leaf.c_str(), H5P_DEFAULT), H5Oclose);
  require(bool(object), "{}: {}: is damaged ({})", path, h5::printable(name), h5::reason());
  return object;
}

std::pair<const Group*, std::string> FileReader::Impl::locate(const std::string& name) {
  std::vector<std::string> parts = h5::split(name);
  if (parts.empty()) return {nullptr, ""};
  const std::string leaf = parts.back();
  parts.pop_back();
  std::string parent;
  for (const std::string& part : parts) parent += "/" + part;
  const Group* group = find_group(parent);
  if (!group || !group->find(leaf)) return {nullptr, leaf};
  return {group, leaf};
}

h5::Handle FileReader::Impl::open_dataset(const std::string& name) {
  const auto [group, leaf] = locate(name);
  require(group != nullptr, "{}: {}: is missing", path, h5::printable(name));
  h5::Handle object = open_object(*group, leaf, name);
  require(H5Iget_type(object.get()) == H5I_DATASET, "{}: {}: is {}, expected a dataset", path,
          h5::printable(name), H5Iget_type(object.get()) == H5I_GROUP ? "a group" : "a type");
  object = h5::Handle();
  h5::Handle dataset(H5Dopen2(group->handle.get(), leaf.c_str(), dataset_access.get()), H5Dclose);
  require(bool(dataset), "{}: {}: is damaged ({})", path, h5::printable(name), h5::reason());
  return dataset;
}

DatasetInfo FileReader::Impl::describe(const std::string& name) {
  const h5::Handle dataset = open_dataset(name);
  const std::string where = path + ": " + h5::printable(name);
  DatasetInfo d;
  d.name = name;

  // Storage first: nothing else may be asked of a virtual dataset.
  h5::Handle plist(H5Dget_create_plist(dataset.get()), H5Pclose);
  require(bool(plist), "{}: is damaged ({})", where, h5::reason());
  const H5D_layout_t layout = H5Pget_layout(plist.get());
  require(layout != H5D_VIRTUAL, "{}: is a virtual dataset, which is not accepted", where);
  require(layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT,
          "{}: has an unknown layout", where);
  require(H5Pget_external_count(plist.get()) == 0, "{}: is stored in another file, which is not accepted",
          where);
  const int filters = H5Pget_nfilters(plist.get());
  require(filters >= 0, "{}: is damaged ({})", where, h5::reason());
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0, filter_info = 0;
    size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(plist.get(), unsigned(i), &flags, &values, nullptr, 0, nullptr, &filter_info);
    require(filter == H5Z_FILTER_FLETCHER32, "{}: is stored with filter {}, only fletcher32 is accepted", where,
            int(filter));
  }

  h5::Handle type(H5Dget_type(dataset.get()), H5Tclose), space(H5Dget_space(dataset.get()), H5Sclose);
  require(type && space, "{}: is damaged ({})", where, h5::reason());
  bool swapped = false;
  const auto element = h5::recognise(type.get(), &swapped);
  require(element.has_value(), "{}: holds {}, expected numbers", where, h5::describe(type.get()));
  d.type = *element;
  require(H5Sget_simple_extent_type(space.get()) == H5S_SIMPLE, "{}: is a scalar or empty, expected an array",
          where);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  require(rank >= 1 && rank <= h5::kMaxFileRank, "{}: has {} axes, expected 1 to {}", where, rank,
          h5::kMaxFileRank);
  hsize_t sizes[h5::kMaxFileRank] = {};
  require(H5Sget_simple_extent_dims(space.get(), sizes, nullptr) == rank, "{}: is damaged ({})", where,
          h5::reason());
  d.shape.assign(sizes, sizes + rank);

  d.elements = 1;
  bool fits = true;
  for (uint64_t n : d.shape) fits = fits && !__builtin_mul_overflow(d.elements, n, &d.elements);
  fits = fits && !__builtin_mul_overflow(d.elements, size_of(d.type), &d.bytes) && d.bytes <= file_size;
  require(fits, "{}: {} {} is more than the file holds ({} bytes)", where, name_of(d.type), d.shape_str(),
          file_size);
  if (layout == H5D_CHUNKED) {  // every chunk must be there, in full
    hsize_t chunk[h5::kMaxFileRank] = {};
    require(H5Pget_chunk(plist.get(), rank, chunk) == rank, "{}: is damaged ({})", where, h5::reason());
    uint64_t needed = size_of(d.type);
    for (int i = 0; i < rank; ++i) {
      const uint64_t padded = chunk[i] ? (d.shape[i] + chunk[i] - 1) / chunk[i] * chunk[i] : UINT64_MAX;
      fits = fits && d.shape[i] + chunk[i] >= d.shape[i] && !__builtin_mul_overflow(needed, padded, &needed);
    }
    const uint64_t stored = H5Dget_storage_size(dataset.get());
    require(fits && stored >= needed && stored <= file_size,
            "{}: {} {} in chunks is not fully stored ({} bytes are)", where, name_of(d.type), d.shape_str(),
            stored);
  }
  if (layout == H5D_CONTIGUOUS && filters == 0 && !swapped && d.bytes > 0) {
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset != HADDR_UNDEF) {
      require(offset <= file_size && d.bytes <= file_size - offset,
              "{}: ends beyond the file ({} bytes at {} of {})", where, d.bytes, uint64_t(offset), file_size);
      d.offset = offset;
    }
  }
  // From Python: bf16 as uint16 words.
  if (const auto mark = attribute(dataset.get(), name, "dtype"); mark && d.type == ElementType::u16) {
    const auto* text = std::get_if<std::string>(&mark->value);
    if (text && *text == "bf16") d.type = ElementType::bf16;
  }
  if (const auto hash = attribute(dataset.get(), name, "xxh64")) {
    const auto* u = std::get_if<uint64_t>(&hash->value);
    const auto* i = std::get_if<int64_t>(&hash->value);
    require(u || i, "{}: attribute xxh64 is not an integer", where);
    d.xxh64 = u ? *u : uint64_t(*i);
  }
  return d;
}

void FileReader::Impl::read_rows_slowly(const DatasetInfo& d, uint64_t begin, uint64_t end, void* out) {
  const h5::Handle dataset = open_dataset(d.name);
  const std::string where = path + ": " + h5::printable(d.name);
  h5::Handle stored(H5Dget_type(dataset.get()), H5Tclose), space(H5Dget_space(dataset.get()), H5Sclose);
  require(stored && space, "{}: is damaged ({})", where, h5::reason());
  const bool raw = d.type == ElementType::bf16 || d.type == ElementType::f16;  // never converted
  const h5::Handle type = raw ? std::move(stored) : h5::file_type(d.type);
  std::vector<hsize_t> start(d.shape.size(), 0), count(d.shape.begin(), d.shape.end());
  start[0] = begin;
  count[0] = end - begin;
  h5::Handle memory(H5Screate_simple(int(count.size()), count.data(), nullptr), H5Sclose);
  const bool good =
      memory &&
      H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr) >= 0 &&
      H5Dread(dataset.get(), type.get(), memory.get(), space.get(), H5P_DEFAULT, out) >= 0;
  require(good, "{}: cannot read ({})", where, h5::reason());
}

// ---------------------------------------------------------------- attributes

h5::Handle FileReader::Impl::open_any(const std::string& name) {
  if (h5::split(name).empty()) {
    h5::Handle root(H5Gopen2(file.get(), "/", H5P_DEFAULT), H5Gclose);
    require(bool(root), "{}: is a damaged HDF5 file ({})", path, h5::reason());
    return root;
  }
  const auto [group, leaf] = locate(name);
  return group ? open_object(*group, leaf, name) : h5::Handle();
}

std::optional<Attribute> FileReader::Impl::attribute(hid_t object, const std::string& owner,
                                                     const std::string& name) const {
  const std::string where =
      fmt::format("{}: {}: attribute {}", path, h5::printable(owner), h5::printable(name));
  const htri_t exists = H5Aexists(object, name.c_str());
  require(exists >= 0, "{}: is damaged ({})", where, h5::reason());
  if (exists == 0) return std::nullopt;
  h5::Handle a(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  h5::Handle type, space;
  if (a) type = h5::Handle(H5Aget_type(a.get()), H5Tclose);
  if (a) space = h5::Handle(H5Aget_space(a.get()), H5Sclose);
  require(a && type && space, "{}: is damaged ({})", where, h5::reason());
  require(H5Aget_storage_size(a.get()) <= 4096, "{}: has {} bytes, at most 4096 are accepted", where,
          uint64_t(H5Aget_storage_size(a.get())));
  const H5S_class_t extent = H5Sget_simple_extent_type(space.get());
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  const bool scalar = extent == H5S_SCALAR;
  require((scalar && count == 1) || (extent == H5S_SIMPLE && H5Sget_simple_extent_ndims(space.get()) == 1 &&
                                     count >= 0 && count <= hssize_t(h5::kMaxVector)),
          "{}: expected one value or a list of up to {}", where, h5::kMaxVector);

  if (H5Tget_class(type.get()) == H5T_STRING) {
    require(count == 1, "{}: expected one string, found {}", where, count);
    if (H5Tis_variable_str(type.get()) > 0) {
      char* text = nullptr;
      require(H5Aread(a.get(), type.get(), &text) >= 0, "{}: cannot read ({})", where, h5::reason());
      const std::string s = text ? std::string(text, strnlen(text, h5::kMaxString + 1)) : std::string();
      H5Dvlen_reclaim(type.get(), space.get(), H5P_DEFAULT, &text);
      require(s.size() <= h5::kMaxString, "{}: has more than {} bytes", where, h5::kMaxString);
      return Attribute(s);
    }
    std::string s(H5Tget_size(type.get()), '\0');
    require(s.size() <= 4096, "{}: has {} bytes, at most 4096 are accepted", where, s.size());
    require(H5Aread(a.get(), type.get(), s.data()) >= 0, "{}: cannot read ({})", where, h5::reason());
    s.resize(strnlen(s.data(), s.size()));
    if (H5Tget_strpad(type.get()) == H5T_STR_SPACEPAD) s.resize(s.find_last_not_of(' ') + 1);
    return Attribute(s);
  }

  bool swapped = false;
  const auto element = h5::recognise(type.get(), &swapped);
  require(element.has_value(), "{}: holds {}, expected a number or a string", where, h5::describe(type.get()));
  const size_t n = size_t(count);
  const auto numbers = [&](ElementType as, auto zero) {
    using T = decltype(zero);
    std::vector<T> values(n);
    require(n == 0 || H5Aread(a.get(), h5::file_type(as).get(), values.data()) >= 0, "{}: cannot read ({})",
            where, h5::reason());
    return scalar ? Attribute(values[0]) : Attribute(std::move(values));
  };
  switch (*element) {
    case ElementType::f32:
    case ElementType::f64:
    case ElementType::f16:
    case ElementType::bf16:
      return numbers(ElementType::f64, double());
    case ElementType::i8:
    case ElementType::i16:
    case ElementType::i32:
    case ElementType::i64:
      return numbers(ElementType::i64, int64_t());
    default:
      return numbers(ElementType::u64, uint64_t());
  }
}

void FileReader::Impl::read_header() {
  const h5::Handle root = open_any("/");
  const auto text = [&](const char* name, bool needed) -> std::string {
    const auto a = attribute(root.get(), "/", name);
    require(a || !needed, "{}: is not a file of ours: root attribute {} is missing", path, name);
    const auto* s = a ? std::get_if<std::string>(&a->value) : nullptr;
    require(!a || s, "{}: /: attribute {} is not a string", path, name);
    return s ? *s : "";
  };
  const auto number = [&](const char* name, bool needed) -> int64_t {
    const auto a = attribute(root.get(), "/", name);
    require(a || !needed, "{}: is not a file of ours: root attribute {} is missing", path, name);
    if (!a) return 0;
    const auto* u = std::get_if<uint64_t>(&a->value);
    const auto* i = std::get_if<int64_t>(&a->value);
    require(u || i, "{}: /: attribute {} is not an integer", path, name);
    return u ? int64_t(*u) : *i;
  };
  header.format = text("format", true);
  require(header.format.rfind("modrwkv.", 0) == 0, "{}: is not a file of ours: format is \"{}\"", path,
          h5::printable(header.format));
  const int64_t major = number("format_major", true), minor = number("format_minor", false);
  require(major == 1, "{}: has format version {}.{}, this program reads 1.x", path, major, minor);
  header.minor = uint32_t(minor);
  header.kind = text("kind", false);
  header.writer = text("writer", false);
  header.created_unix = number("created_unix", false);
  header.required_features = text("required_features", false);
  require(header.required_features.empty(), "{}: needs \"{}\", which this program does not know", path,
          h5::printable(header.required_features));
  if (const auto a = attribute(root.get(), "/", "uuid")) {
    const auto* bytes = std::get_if<std::vector<uint64_t>>(&a->value);
    if (bytes && bytes->size() == 16) {
      header.uuid.assign(2, 0);
      for (size_t i = 0; i < 16; ++i) header.uuid[i / 8] = header.uuid[i / 8] << 8 | ((*bytes)[i] & 0xff);
    }
  }
}

Attribute FileReader::Impl::need(const std::string& object, const std::string& name) {
  const h5::Handle handle = open_any(object);
  require(bool(handle), "{}: {}: is missing", path, object);
  const auto a = attribute(handle.get(), object, name);
  require(a.has_value(), "{}: {}: attribute {} is missing", path, object, name);
  return *a;
}

}  // namespace modrwkv
