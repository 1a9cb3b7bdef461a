// FileReader's inside: the rules for files that nobody trusts. Groups are
// opened one by one by their own names, their links checked first; a dataset's storage, type and size are
// checked before it is read.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/hdf5.h"
#include "core/hdf5_internal.h"

namespace modrwkv {

struct FileReader::Impl {
  struct Link {
    std::string name;
    haddr_t address = HADDR_UNDEF;
  };
  struct Group {
    h5::Handle handle;
    haddr_t address = HADDR_UNDEF;
    std::vector<Link> links;  // sorted by name
    const Link* find(const std::string& name) const;
  };

  std::string path;
  int fd = -1;
  uint64_t file_size = 0;
  h5::Handle file, dataset_access;
  FileHeader header;
  std::map<std::string, Group> groups;  // opened ones, by absolute name

  ~Impl();
  void open(const std::string& name);
  void read_header();

  const Group* find_group(const std::string& name);  // null where there is none
  // Parent group and last part of a name; the group is null where something is missing.
  std::pair<const Group*, std::string> locate(const std::string& name);
  h5::Handle open_dataset(const std::string& name);
  h5::Handle open_any(const std::string& name);  // none where it is missing
  DatasetInfo describe(const std::string& name);
  // The library reads rows [begin, end) of axis 0, converting nothing but the byte order.
  void read_rows_slowly(const DatasetInfo& d, uint64_t begin, uint64_t end, void* out);

  std::optional<Attribute> attribute(hid_t object, const std::string& owner, const std::string& name) const;
  Attribute need(const std::string& object, const std::string& name);  // throws where it is missing

 private:
  void read_links(Group& group, const std::string& name) const;
  h5::Handle open_object(const Group& group, const std::string& leaf, const std::string& name) const;
};

}  // namespace modrwkv
