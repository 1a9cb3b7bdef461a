// A process appends the kernels it executed, and their thread orders, to the file named by SIMT_COVERAGE.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "simt_test.h"

namespace simt_test {
namespace {

template <class T>
__global__ void covered(T* x) {
  x[threadIdx.x] = T(0);
}

// The lines about instantiations of `covered`.
std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (has(line, "7coveredI")) lines.push_back(line);
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

void run_child(const std::string& path) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("SIMT_COVERAGE", path.c_str(), 1);
    const Array<float> x(32);
    for (const auto order : {simt::Schedule::ascending, simt::Schedule::greedy, simt::Schedule::ascending}) {
      simt::set_schedule(order);
      simt::launch<covered<float>>({1, 32, 0, stream()}, x);
      modrwkv::cuda::sync(stream());
    }
    if (x == nullptr) simt::launch<covered<int>>({1, 32, 0, stream()}, nullptr);  // reachable, not executed
    std::exit(0);
  }
  int status = 1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(Simt, TheCoverageFileNamesKernelsAndOrders) {
  const std::string path = testing::TempDir() + "simt_coverage_" + std::to_string(getpid());
  run_child(path);
  auto lines = lines_of(path);
  ASSERT_EQ(lines.size(), 2u) << "one line a kernel and order";
  for (const auto& line : lines) {
    EXPECT_TRUE(has(line, "7coveredIf")) << line;
    EXPECT_TRUE(has(line, "test_coverage.cu\t")) << line;
  }
  EXPECT_TRUE(has(lines[0], "\tascending"));
  EXPECT_TRUE(has(lines[1], "\tgreedy"));
  run_child(path);
  EXPECT_EQ(lines_of(path).size(), 4u) << "the second process appends";
  std::remove(path.c_str());
}

}  // namespace
}  // namespace simt_test
