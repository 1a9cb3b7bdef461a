// Small file helpers: all or nothing, errors that name the path, one process to a run folder.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/error.h"
#include "core/files.h"
#include "tests/raw_hdf5.h"
#include "tests/run_program.h"

namespace modrwkv {
namespace {

using testing::refusal;
using testing::TemporaryFolder;

TEST(Files, TextSurvivesAndLeavesNoTemporary) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.txt", text("line\n\0\xff", 7);
  write_file(path, "old");
  write_file(path, text);
  EXPECT_EQ(read_file(path), text);
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"a.txt"});
}

TEST(Files, ErrorsNameThePathAndTheReason) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.txt";
  EXPECT_EQ(refusal([&] { read_file(path); }), path + ": cannot open: No such file or directory");
  EXPECT_EQ(refusal([&] { read_file(folder.path()); }), folder.path() + ": is a folder, expected a file");
  EXPECT_EQ(refusal([&] { read_file("/dev/zero"); }), "/dev/zero: is not a regular file, expected a file");
  EXPECT_EQ(refusal([&] { write_file(folder / "no/a", ""); }),
            folder / "no/a: cannot write: No such file or directory");
  EXPECT_EQ(refusal([&] { list_directory(path); }), path + ": cannot list: No such file or directory");
  EXPECT_EQ(refusal([&] { rename_path(path, path + "2"); }),
            path + ": cannot rename to " + path + "2: No such file or directory");
  write_file(path, "12345");
  EXPECT_EQ(refusal([&] { read_file(path, 4); }), path + ": 5 bytes, at most 4 are accepted");
  EXPECT_EQ(refusal([&] { make_directories(path + "/x"); }).rfind(path + "/x: cannot make the folder", 0), 0u);
  EXPECT_EQ(refusal([&] { make_directories(path); }).rfind(path + ": ", 0), 0u);
  mkfifo((folder / "fifo").c_str(), 0600);
  EXPECT_NE(refusal([&] { read_file(folder / "fifo"); }).find("is not a regular file"),
            std::string::npos);  // and no hang
}

TEST(Files, FileSizeLimitKeepsTheOldFile) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.txt";
  write_file(path, "old");
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  rlimit small = before;
  small.rlim_cur = 1000;
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message = refusal([&] { write_file(path, std::string(2000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(message, path + ": cannot write: File too large");
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(list_directory(folder.path()).size(), 1u);
}

TEST(Files, PathsAndTrees) {
  EXPECT_EQ(parent_directory("a"), ".");
  EXPECT_EQ(parent_directory("a/b"), "a");
  EXPECT_EQ(parent_directory("a/b/"), "a");
  EXPECT_EQ(parent_directory("/a"), "/");
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  const TemporaryFolder folder;
  make_directories(folder / "x/y/z");
  make_directories(folder / "x/y/z");
  write_file(folder / "x/y/file", "1");
  write_file(folder / "keep", "1");
  ASSERT_EQ(symlink((folder / "keep").c_str(), (folder / "x/link").c_str()), 0);
  EXPECT_TRUE(is_directory(folder / "x/y"));
  EXPECT_FALSE(is_directory(folder / "keep"));
  remove_tree(folder / "x");
  remove_tree(folder / "x");
  EXPECT_EQ(list_directory(folder.path()),
            std::vector<std::string>{"keep"});  // a link is removed, not followed
}

TEST(Files, HashIsXxh64WithSeedZero) {
  EXPECT_EQ(hex(xxh64("", 0)), "ef46db3751d8e999");  // the algorithm's published test vectors
  EXPECT_EQ(hex(xxh64("abc", 3)), "44bc2cf5ad770999");
  const TemporaryFolder folder;
  std::string bytes(10000000, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = char(i * i >> 3);
  write_file(folder / "a", bytes);
  Xxh64 pieces;
  for (size_t at = 0; at < bytes.size(); at += 999)
    pieces.add(&bytes[at], std::min(bytes.size() - at, size_t(999)));
  EXPECT_EQ(xxh64_of_file(folder / "a"), xxh64(bytes.data(), bytes.size()));
  EXPECT_EQ(pieces.value(), xxh64(bytes.data(), bytes.size()));
}

TEST(FolderLock, OneProcessAtATime) {
  const TemporaryFolder folder;
  int ready[2], go[2];
  ASSERT_EQ(pipe(ready), 0);
  ASSERT_EQ(pipe(go), 0);
  const pid_t child = fork();
  if (child == 0) {
    const FolderLock lock(folder.path());
    char c = lock.held() ? 'y' : 'n';
    if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) < 0) _exit(1);
    _exit(0);
  }
  char c = 0;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  ASSERT_EQ(c, 'y');
  const std::string message = refusal([&] { FolderLock lock(folder.path()); });
  EXPECT_EQ(
      message.rfind(folder.path() + ": run folder in use by process " + std::to_string(child) + " on ", 0), 0u)
      << message;
  kill(child, SIGKILL);  // the lock ends with its process
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(FolderLock(folder.path()).held());
  EXPECT_TRUE(FolderLock(folder.path()).held());
  for (int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
  EXPECT_EQ(refusal([&] { FolderLock lock(folder / "no"); }),
            folder / "no: cannot lock: No such file or directory");
}

}  // namespace
}  // namespace modrwkv
