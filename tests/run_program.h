// Runs a program of the build as a user would, in the checkout's root.
#pragma once
#include <string>
#include <vector>

namespace modrwkv::testing {

struct Outcome {
  int code = -1;  // exit code, or 128 + signal
  std::string out, err;
  std::string last_line() const;  // of standard output
};

// `command` is a shell command; a leading program name without a slash is taken from the build folder under
// test (build/bin, or MODRWKV_BIN). `prelude` is run before it in the same shell, e.g. "ulimit -f 100".
Outcome run_program(const std::string& command, const std::string& prelude = "");

// Starts it, sends `signal` once `file` has at least `lines` lines (or at once if `lines` is 0), and waits for
// the end.
Outcome run_and_signal(const std::string& command, int signal, const std::string& file, int lines);

// A folder that is removed with everything in it at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string program_folder();

}  // namespace modrwkv::testing
