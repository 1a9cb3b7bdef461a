// Files and folders through the system's calls, so that a failure has its reason.
#include "core/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>

#include "core/error.h"

namespace modrwkv {
namespace {

[[noreturn]] void fail_system(const std::string& path, const char* what, int error) {
  fail("{}: cannot {}: {}", path, what, strerror(error));
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

int open_regular(const std::string& path, struct stat& s) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not block
  if (fd < 0) fail_system(path, "open", errno);
  if (fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) {
    ::close(fd);
    fail("{}: is {}, expected a file", path, S_ISDIR(s.st_mode) ? "a folder" : "not a regular file");
  }
  return fd;
}

}  // namespace

bool path_exists(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0;
}

bool is_directory(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

uint64_t file_bytes(const std::string& path) {
  struct stat s;
  if (stat(path.c_str(), &s) != 0) fail_system(path, "read", errno);
  return uint64_t(s.st_size);
}

std::string parent_directory(const std::string& path) {
  size_t end = path.size();
  while (end > 1 && path[end - 1] == '/') --end;
  const size_t slash = path.rfind('/', end - 1);
  if (end == 0 || slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string join_path(const std::string& folder, const std::string& name) {
  if (folder.empty()) return name;
  return folder.back() == '/' ? folder + name : folder + "/" + name;
}

void require_other_file(const std::string& flag, const std::string& out,
                        const std::vector<std::string>& inputs) {
  const auto place = [](const std::string& path) {  // also of a file that is not there yet
    std::error_code error;
    const std::filesystem::path full = std::filesystem::weakly_canonical(path, error);
    return error ? path : full.string();
  };
  for (const std::string& in : inputs) {
    std::error_code error;
    require(!std::filesystem::equivalent(out, in, error) && place(out) != place(in),
            "{} {}: is the same file as {}", flag, out, in);
  }
}

bool is_hdf5_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char bytes[8] = {};
  return file.read(bytes, sizeof bytes) &&
         std::string_view(bytes, 8) == std::string_view("\x89HDF\r\n\x1a\n", 8);
}

void require_replaceable(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status there = std::filesystem::symlink_status(path, error);
  if (!std::filesystem::exists(there)) return;
  require(!is_directory(path), "{}: is a folder, expected a file to write", path);
  require(std::filesystem::is_regular_file(there), "{}: is not a regular file and is not replaced", path);
}

void require_replaceable_by_text(const std::string& path) {
  require_replaceable(path);
  require(!is_hdf5_file(path), "{}: is an HDF5 file and is not replaced by text", path);
}

void make_directories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("{}: cannot make the folder: {}", path, error.message());
  require(is_directory(path), "{}: is a file, expected a folder", path);
}

std::vector<std::string> list_directory(const std::string& path) {
  DIR* dir = opendir(path.c_str());
  if (!dir) fail_system(path, "list", errno);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  const int error = errno;
  closedir(dir);
  if (error) fail_system(path, "list", error);
  std::sort(names.begin(), names.end());
  return names;
}

void remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) fail("{}: cannot remove: {}", path, error.message());
}

void rename_path(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0) fail("{}: cannot rename to {}: {}", from, to, strerror(errno));
}

void sync_directory(const std::string& path) {
  Descriptor d{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (d.fd < 0) fail_system(path, "open", errno);
  // Some network file systems have no fsync of folders (EINVAL); their renames are durable on the server.
  if (fsync(d.fd) != 0 && errno != EINVAL) fail_system(path, "sync", errno);
}

std::string read_file(const std::string& path, uint64_t limit) {
  struct stat s;
  Descriptor d{open_regular(path, s)};
  require(uint64_t(s.st_size) <= limit, "{}: {} bytes, at most {} are accepted", path, uint64_t(s.st_size),
          limit);
  std::string bytes(size_t(s.st_size), '\0');
  read_at(d.fd, path, bytes.data(), bytes.size(), 0);
  return bytes;
}

void write_file(const std::string& path, std::string_view bytes) {
  ignore_file_size_signal();
  const std::string temporary = fmt::format("{}.tmp.{}", path, getpid());
  Descriptor d{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)};
  if (d.fd < 0) fail_system(path, "write", errno);
  try {
    write_at(d.fd, path, bytes.data(), bytes.size(), 0);
    if (fsync(d.fd) != 0) fail_system(path, "write", errno);
    if (rename(temporary.c_str(), path.c_str()) != 0) fail_system(path, "write", errno);
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  sync_directory(parent_directory(path));
}

void write_at(int fd, const std::string& path, const void* data, size_t bytes, uint64_t offset) {
  const char* p = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = pwrite(fd, p, std::min(bytes, size_t(1) << 30), off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_system(path, "write", n < 0 ? errno : ENOSPC);
    p += n, offset += uint64_t(n), bytes -= size_t(n);
  }
}

void append_all(int fd, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_system(path, "write", n < 0 ? errno : ENOSPC);
    bytes.remove_prefix(size_t(n));
  }
}

void read_at(int fd, const std::string& path, void* data, size_t bytes, uint64_t offset) {
  char* p = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t n = pread(fd, p, std::min(bytes, size_t(1) << 30), off_t(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_system(path, "read", errno);
    require(n > 0, "{}: ends at byte {}, {} more were expected", path, offset, bytes);
    p += n, offset += uint64_t(n), bytes -= size_t(n);
  }
}

void ignore_file_size_signal() {
  struct sigaction now;
  if (sigaction(SIGXFSZ, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGXFSZ, SIG_IGN);
}

// ---------------------------------------------------------------- hashes

uint64_t xxh64(const void* data, size_t bytes) { return XXH64(data, bytes, 0); }

uint64_t xxh64_of_file(const std::string& path) {
  struct stat s;
  Descriptor d{open_regular(path, s)};
  std::vector<char> piece(size_t(4) << 20);
  Xxh64 hash;
  for (uint64_t at = 0, end = uint64_t(s.st_size); at < end;) {
    const size_t n = size_t(std::min<uint64_t>(piece.size(), end - at));
    read_at(d.fd, path, piece.data(), n, at);
    hash.add(piece.data(), n);
    at += n;
  }
  return hash.value();
}

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

void Xxh64::Free::operator()(XXH64_state_s* state) const { XXH64_freeState(state); }

Xxh64::Xxh64() : state_(XXH64_createState()) {
  if (!state_) throw std::bad_alloc();
  reset();
}

Xxh64::~Xxh64() = default;

void Xxh64::add(const void* data, size_t bytes) {
  if (bytes > 0) XXH64_update(state_.get(), data, bytes);
}

uint64_t Xxh64::value() const { return XXH64_digest(state_.get()); }

void Xxh64::reset() { XXH64_reset(state_.get(), 0); }

// ---------------------------------------------------------------- the lock of a folder

FolderLock::FolderLock(const std::string& folder) {
  const std::string path = join_path(folder, ".lock");
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_system(folder, "lock", errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) {
    held_ = true;
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    const std::string holder = fmt::format("{} {}\n", getpid(), host);
    try {
      if (ftruncate(fd_, 0) != 0) fail_system(path, "write", errno);
      write_at(fd_, path, holder.data(), holder.size(), 0);
    } catch (...) {
      ::close(fd_);
      throw;
    }
    return;
  }
  const int error = errno;
  if (error == ENOSYS || error == ENOTSUP || error == ENOLCK || error == EINVAL) return;  // no locks here
  int pid = 0;
  char host[256] = "", text[300] = "";
  if (pread(fd_, text, sizeof text - 1, 0) > 0) sscanf(text, "%d %255s", &pid, host);
  ::close(fd_);
  if (error != EWOULDBLOCK) fail_system(folder, "lock", error);
  if (pid > 0) fail("{}: run folder in use by process {} on {}", folder, pid, host);
  fail("{}: run folder in use by another process", folder);
}

FolderLock::~FolderLock() {
  if (fd_ < 0) return;
  if (held_ && ftruncate(fd_, 0) != 0) {  // only the name of the holder is lost
  }
  ::close(fd_);
}

}  // namespace modrwkv
