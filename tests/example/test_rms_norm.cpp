// The example op of docs/adding_an_op.md: its five tests, and that documents show files as they are.
#include <sstream>

#include "core/files.h"
#include "tests/example/rms_norm.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

std::vector<Variable> norm(const std::vector<Variable>& v) { return {rms_norm(v[0])}; }

}  // namespace

TEST(RmsNorm, EqualsPyTorch) {
  for (const char* name : {"3x33", "1x64"}) expect_golden("rms_norm", name, norm);
}

TEST(RmsNorm, GradientsEqualFiniteDifferences) { expect_gradients(norm, {random_tensor({2, 3, 7}, 1)}); }

TEST(RmsNorm, CudaEqualsCpu) {
  for (const int64_t n : {1, 31, 32, 33, 129})
    expect_cuda_equals_cpu(norm, {random_tensor({5, n}, uint64_t(n))});
}

TEST(RmsNorm, AcceptsNoRows) { expect_cuda_equals_cpu(norm, {random_tensor({0, 8}, 1)}); }

TEST(RmsNorm, RefusesWrongInputsByName) {
  expect_error([] { rms_norm(Variable(Tensor::zeros({}))); },
               "rms_norm: input is f32 [] on cpu, expected [.., C]");
  expect_error([] { rms_norm(Variable(Tensor::zeros({2}, DType::i32))); }, "rms_norm");
}

// A block of a document that begins with ```cpp FILE is found in FILE, letter by letter.
TEST(Documents, ShowTheFilesAsTheyAre) {
  int blocks = 0;
  for (const char* document : {"docs/adding_an_op.md", "docs/adding_an_encoder.md"}) {
    std::istringstream text(read_file(document));
    std::string line, file, block;
    while (std::getline(text, line)) {
      if (file.empty()) {
        if (line.starts_with("```cpp ")) file = line.substr(7);
      } else if (line == "```") {
        EXPECT_NE(read_file(file).find(block), std::string::npos) << document << ", not in " << file << ":\n"
                                                                  << block;
        ++blocks;
        file = block = "";
      } else {
        block += line + "\n";
      }
    }
  }
  EXPECT_EQ(blocks, 8);
}
