// inspect: shows what files of ours hold, refuses the rest in one line.
#include <gtest/gtest.h>

#include "core/files.h"
#include "core/hdf5.h"
#include "models/weights.h"
#include "tests/run_program.h"
#include "train/checkpoint.h"

namespace modrwkv {
namespace {

using testing::Outcome;
using testing::run_program;
using testing::TemporaryFolder;

void expect_shown(const Outcome& run, const std::vector<std::string>& parts) {
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.err, "");
  for (const std::string& part : parts)
    EXPECT_NE(run.out.find(part), std::string::npos) << part << "\n" << run.out;
}

void expect_refused(const std::string& command, const std::string& message) {
  const Outcome run = run_program(command);
  EXPECT_EQ(run.code, 1);
  EXPECT_EQ(run.err, "inspect: " + message + "\n");
}

CheckpointData small_checkpoint() {
  CheckpointData d;
  d.config_json = R"({"n_layer":2})";
  d.train_json = R"({"lr":0.001})";
  d.map = flat_map({{"w", 64}});
  d.state.step = 7;
  d.master = d.m = d.v = Tensor::full({64}, 0.5);
  return d;
}

TEST(Inspect, ShowsDataSets) {
  const TemporaryFolder folder;
  {
    FileWriter file(folder / "set.h5", "modrwkv.dataset", "series");
    file.write("/ts/blob", Tensor::from<float>({1, -2, 4, 0.0f / 0.0f}, {4}));
    file.write("/ts/half", Tensor::full({2, 2}, 1.5, DType::bf16));
    file.write_strings("/ts/names", {"HUFL", "OT"});
    file.set_attribute("/ts", "freq", "h");
    file.commit();
  }
  expect_shown(run_program("inspect " + folder / "set.h5"),
               {"modrwkv.dataset 1.0, series", "/ts/blob", "f32   [4]", "min -2  mean 1  max 4  1 NaN",
                "bf16  [2, 2]", "HUFL, OT", "freq=\"h\""});
}

TEST(Inspect, ShowsModelsCheckpointsAndRuns) {
  const TemporaryFolder folder;
  const std::string run = folder / "run", at = save_checkpoint(run + "/checkpoints", small_checkpoint());
  expect_shown(run_program("inspect " + at),
               {"checkpoint of step 7, 1 rank(s), complete", "/flat/master", "mean 0.5", "\"lr\": 0.001"});
  write_model_file(run + "/model.h5", "rwkv7", R"({"n_layer":2})", {{"w", Tensor::full({3}, 2)}});
  expect_shown(run_program("inspect " + run),
               {"step_00000007: checkpoint, complete", "modrwkv.model 1.0, rwkv7", "/tensors/w", "n_layer=2"});
  write_file(at + "/common.h5", "x");
  const Outcome damaged = run_program("inspect " + at);
  EXPECT_EQ(damaged.code, 1);
  EXPECT_EQ(damaged.err.rfind("inspect: " + at + "/common.h5: has 1 bytes, expected ", 0), 0u) << damaged.err;
}

TEST(Inspect, RefusesTheRestInOneLine) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.csv";
  expect_refused("inspect " + path, path + ": cannot open: No such file or directory");
  write_file(path, "date,OT\n");
  expect_refused("inspect " + path, path + ": is not an HDF5 file");
  expect_refused(
      "inspect " + folder.path(),
      folder.path() +
          ": is neither a run folder nor a checkpoint: no model.h5, no checkpoints, no MANIFEST.json");
  EXPECT_EQ(run_program("inspect").code, 1);
  const Outcome help = run_program("inspect --help");
  EXPECT_EQ(help.code, 0);
  EXPECT_NE(help.out.find("PATH"), std::string::npos);
}

}  // namespace
}  // namespace modrwkv
