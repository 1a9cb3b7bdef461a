// The one exception type, and the way to throw it: a message names the op or file, what came and what was
// expected.
#pragma once
#include <stdexcept>
#include <string>

#ifndef __CUDACC__  // kernels' files throw only through core; fmt's headers stay out of nvcc
#include <fmt/core.h>
#endif

namespace modrwkv {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

#ifndef __CUDACC__
// fail("conv1d: input has {} channels, weight expects {}", c, expected)
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void require(bool condition, fmt::format_string<Args...> format, Args&&... args) {
  if (!condition) throw Error(fmt::format(format, std::forward<Args>(args)...));
}
#endif

}  // namespace modrwkv
