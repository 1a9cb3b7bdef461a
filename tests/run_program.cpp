#include "tests/run_program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace modrwkv::testing {
namespace {

std::string content(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

int count_lines(const std::string& file) {
  const std::string text = content(file);
  return int(std::count(text.begin(), text.end(), '\n'));
}

// `exec` makes the shell become the program, so that signals reach it.
pid_t start(const std::string& command, const std::string& prelude, const std::string& out,
            const std::string& err) {
  const std::string shell =
      (prelude.empty() ? "" : prelude + " && ") + "exec " + program_folder() + "/" + command;
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error("fork failed");
  if (pid > 0) return pid;
  dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
  dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
  execl("/bin/bash", "bash", "-c", shell.c_str(), nullptr);
  _exit(127);
}

Outcome finish(pid_t pid, const std::string& out, const std::string& err) {
  int status = 0;
  waitpid(pid, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), content(out), content(err)};
}

}  // namespace

std::string program_folder() {
  const char* folder = std::getenv("MODRWKV_BIN");
  return folder ? folder : "build/bin";
}

std::string Outcome::last_line() const {
  std::string text = out;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.substr(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);
}

Outcome run_program(const std::string& command, const std::string& prelude) {
  const TemporaryFolder folder;
  return finish(start(command, prelude, folder / "out", folder / "err"), folder / "out", folder / "err");
}

Outcome run_and_signal(const std::string& command, int signal, const std::string& file, int lines) {
  const TemporaryFolder folder;
  const pid_t pid = start(command, "", folder / "out", folder / "err");
  while (count_lines(file) < lines) {
    siginfo_t info{};
    if (waitid(P_PID, id_t(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid)
      break;  // it has ended
    usleep(500);
  }
  kill(pid, signal);
  return finish(pid, folder / "out", folder / "err");
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "modrwkv.XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() { std::filesystem::remove_all(path_); }

}  // namespace modrwkv::testing
