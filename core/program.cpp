// The frame of every main.
#include "core/program.h"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <new>

#include "core/error.h"

namespace modrwkv {
namespace {

int refuse(const std::string& program, const std::string& message) {
  // One call, so that lines of several ranks do not mix; one line, whatever a library put into its message.
  const std::string line = program + ": " + one_line(message, 4000) + "\n";
  std::fflush(stdout);
  std::fwrite(line.data(), 1, line.size(), stderr);
  return kFailed;
}

}  // namespace

int run_program(int argc, const char* const* argv, int (*program)(Arguments& arguments)) {
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_DFL);  // a parent may have left it ignored
  Arguments arguments = make_arguments(argc, argv);
  try {
    int code = kDone;
    try {
      code = program(arguments);
    } catch (const Answer& answer) {
      std::fwrite(answer.text.data(), 1, answer.text.size(), stdout);
    }
    errno = 0;
    std::cout.flush();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) || !std::cout)
      fail("cannot write standard output{}{}", errno ? ": " : "", errno ? std::strerror(errno) : "");
    return code;
  } catch (const Error& e) {
    return refuse(arguments.program, e.what());
  } catch (const std::bad_alloc&) {
    return refuse(arguments.program, "out of memory on the CPU; a smaller batch or length needs less");
  } catch (const std::exception& e) {
    return refuse(arguments.program, std::string("unexpected failure: ") + e.what());
  }
}

}  // namespace modrwkv
