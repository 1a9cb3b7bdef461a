// Files and folders: what several rooms need beyond <filesystem>. Every failure is an Error that begins with
// the path as the user typed it and ends with the system's reason: "runs/x/a.txt: cannot write: No space left
// on device".
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct XXH64_state_s;

namespace modrwkv {

bool path_exists(const std::string& path);
bool is_directory(const std::string& path);
uint64_t file_bytes(const std::string& path);
std::string parent_directory(const std::string& path);  // "." for a bare name
std::string join_path(const std::string& folder, const std::string& name);
// Throws when the file to write is one of the others: "--out x.csv: is the same file as x.csv".
void require_other_file(const std::string& flag, const std::string& out,
                        const std::vector<std::string>& others);
// What programs ask before they replace a file named by the user: throws when there is a folder, a device or a
// link, and the second form for an HDF5 file.
void require_replaceable(const std::string& path);
void require_replaceable_by_text(const std::string& path);
bool is_hdf5_file(const std::string& path);                        // by its first bytes
void make_directories(const std::string& path);                    // with parents; fine if it is there
std::vector<std::string> list_directory(const std::string& path);  // names, sorted bytewise, without . and ..
void remove_tree(const std::string& path);  // links are removed, not followed; fine if it is not there
void rename_path(const std::string& from, const std::string& to);
void sync_directory(const std::string& path);  // makes renames in it durable

// Whole content; refuses files above the limit and what is not a regular file.
std::string read_file(const std::string& path, uint64_t limit = uint64_t(1) << 30);
// All or nothing: PATH.tmp.<pid>, fsync, rename, fsync of the folder.
void write_file(const std::string& path, std::string_view bytes);

// pwrite, write and pread of all bytes; `path` is for the message.
void write_at(int fd, const std::string& path, const void* data, size_t bytes, uint64_t offset);
void append_all(int fd, const std::string& path, std::string_view bytes);  // write of all bytes
void read_at(int fd, const std::string& path, void* data, size_t bytes, uint64_t offset);
// A write beyond RLIMIT_FSIZE must be an error, not the end of the process. Called before every write of ours.
void ignore_file_size_signal();

// XXH64 with seed 0.
uint64_t xxh64(const void* data, size_t bytes);
uint64_t xxh64_of_file(const std::string& path);
std::string hex(uint64_t hash);  // 16 digits

class Xxh64 {  // the same, in pieces
 public:
  Xxh64();
  ~Xxh64();
  Xxh64(Xxh64&&) noexcept = default;
  Xxh64& operator=(Xxh64&&) noexcept = default;
  void add(const void* data, size_t bytes);
  uint64_t value() const;
  void reset();

 private:
  struct Free {
    void operator()(XXH64_state_s* state) const;
  };
  std::unique_ptr<XXH64_state_s, Free> state_;
};

// The one process that works in a folder: an flock on FOLDER/.lock, released by the end of the process however
// it comes.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder);  // throws "runs/x: run folder in use by process 4711 on host"
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  bool held() const { return held_; }  // false where the file system has no locks

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace modrwkv
