// The programs as a user runs them: end to end on real data, refusals, interruption and resume.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "core/cuda/runtime.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/json.h"
#include "core/metrics.h"
#include "models/weights.h"
#include "tests/run_program.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

const std::string kSample = "data/samples/nyc_hourly_2013.csv";
// A forecaster small enough to train in a second.
const std::string kSmall =
    " --lookback 48 --horizon 12 --patch 4 --residual 4 --skip 8 --encoder-width 8 --width 16 --head-size 8 "
    "--eval-stride 97"
    " --global-batch 8 --threads 1";

void expect_refusal(const std::string& command, const std::string& text, const std::string& prelude = "") {
  const Outcome o = run_program(command, prelude);
  EXPECT_EQ(o.code, 1) << command << "\n" << o.err;
  EXPECT_NE(o.err.find(text), std::string::npos) << command << "\nsaid: " << o.err << "expected: " << text;
  EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << command << "\n" << o.err;
}

class Programs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder = new TemporaryFolder;
    data = *folder / "nyc.h5";
    const Outcome o = run_program("import timeseries --csv " + kSample + " --split 0.8,0.1,0.1 --out " + data);
    ASSERT_EQ(o.code, 0) << o.err;
  }
  static void TearDownTestSuite() { delete folder; }
  static std::string train(const std::string& run, const std::string& more) {
    return "train_timeseries --data " + data + " --out " + run + kSmall + " " + more;
  }

  static TemporaryFolder* folder;
  static std::string data;
};
TemporaryFolder* Programs::folder = nullptr;
std::string Programs::data;

// step, loss, lr, grad_norm and scores of a run: what must not depend on interruptions.
std::string course(const std::string& run) {
  std::ostringstream text;
  for (const Json& row : read_metrics(run + "/metrics.jsonl")) {
    for (const auto& [key, value] : row.members()) {
      if (key != "seconds" && key != "tokens_per_s") text << key << ' ' << value.dump() << ' ';
    }
    text << '\n';
  }
  return text.str();
}

// Hash of the exported weights.
uint64_t weights(const std::string& run) {
  Xxh64 hash;
  for (const NamedTensor& t : read_model_file(run + "/model.h5").tensors)
    hash.add(t.tensor.raw(), t.tensor.bytes());
  return hash.value();
}

}  // namespace

TEST_F(Programs, TrainEvaluateForecastAndInspect) {
  const std::string run = *folder / "whole";
  Outcome o = run_program(train(run, "--steps 20"));
  ASSERT_EQ(o.code, 0) << o.err;
  for (const char* name :
       {"options.toml", "metrics.jsonl", "model.h5", "checkpoints/step_00000020/MANIFEST.json"}) {
    EXPECT_TRUE(path_exists(run + "/" + name)) << name;
  }
  o = run_program("eval_timeseries --model " + run + " --data " + data + " --dump " + run +
                  "/windows.h5 --threads 1");
  ASSERT_EQ(o.code, 0) << o.err;
  const Json result = Json::parse(o.last_line());
  EXPECT_EQ(result.get_int("channels"), 9);
  EXPECT_EQ(result.get_int("windows"), 873 - 12 + 1);
  // The dump holds what the scores are made of.
  const FileReader dump(run + "/windows.h5");
  const Tensor forecast = dump.read("/forecast"), target = dump.read("/target");
  ASSERT_EQ(forecast.shape(), (Shape{862, 9, 12}));
  ASSERT_EQ(target.shape(), forecast.shape());
  double square = 0, absolute = 0;
  for (int64_t i = 0; i < forecast.numel(); ++i) {
    const double e = double(forecast.data<float>()[i]) - double(target.data<float>()[i]);
    square += e * e;
    absolute += std::fabs(e);
  }
  EXPECT_NEAR(square / double(forecast.numel()), result.get_double("mse"), 1e-6);
  EXPECT_NEAR(absolute / double(forecast.numel()), result.get_double("mae"), 1e-6);
  o = run_program("forecast --model " + run + " --csv " + kSample + " --horizon 12 --out " + run +
                  "/f.csv --plot " + run + "/f.svg");
  ASSERT_EQ(o.code, 0) << o.err;
  const std::string csv = read_file(run + "/f.csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 13);
  EXPECT_EQ(csv.rfind("date,EWR_departures", 0), 0u) << csv.substr(0, 60);
  EXPECT_NE(csv.find("2013-12-31 00:00"), std::string::npos)
      << csv.substr(0, 300);  // the hour after the last row
  EXPECT_NE(read_file(run + "/f.svg").find("<svg"), std::string::npos);
  for (const std::string& file : {data, run + "/model.h5", run + "/checkpoints/step_00000020"}) {
    EXPECT_EQ(run_program("inspect " + file).code, 0) << file;
  }
}

TEST_F(Programs, HelpExplainsEveryProgram) {
  for (const char* name : {"import", "train_timeseries", "eval_timeseries", "forecast", "inspect", "bench"}) {
    const Outcome o = run_program(std::string(name) + " --help");
    EXPECT_EQ(o.code, 0) << name;
    EXPECT_NE(o.out.find("usage"), std::string::npos) << name << o.out;
    EXPECT_TRUE(o.err.empty()) << name;
  }
}

TEST_F(Programs, InterruptedRunsEndEqual) {
  const std::string options = "--steps 40 --checkpoint-every 7 --eval-every 10";
  const std::string straight = *folder / "straight";
  ASSERT_EQ(run_program(train(straight, options)).code, 0);
  const std::string expected = course(straight);
  const uint64_t expected_weights = weights(straight);
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (const int signal : {SIGTERM, SIGKILL}) {
    const std::string run = *folder / ("interrupted" + std::to_string(signal));
    int interrupted = 0;
    for (int i = 0; i < 10; ++i) {
      const int lines = std::uniform_int_distribution<int>(1, 9)(random);
      const int now =
          path_exists(run + "/metrics.jsonl") ? int(read_metrics(run + "/metrics.jsonl").size()) : 0;
      const Outcome o = run_and_signal(train(run, options + (i ? " --resume" : "")), signal,
                                       run + "/metrics.jsonl", std::max(1, now - 7 + lines));
      EXPECT_TRUE(o.code == 0 || o.code == 128 + signal || (o.code == 75 && signal == SIGTERM))
          << o.code << o.err;
      interrupted += o.code != 0;
    }
    EXPECT_GE(interrupted, 5) << "signal " << signal;
    const Outcome last = run_program(train(run, options + " --resume"));
    ASSERT_EQ(last.code, 0) << last.err;
    EXPECT_EQ(course(run), expected) << "signal " << signal;
    EXPECT_EQ(weights(run), expected_weights) << "signal " << signal;
  }
}

TEST_F(Programs, AFinishedRunSaysSo) {
  const std::string run = *folder / "finished";
  ASSERT_EQ(run_program(train(run, "--steps 3")).code, 0);
  const Outcome o = run_program(train(run, "--steps 3 --resume"));
  EXPECT_EQ(o.code, 0);
  EXPECT_NE(o.err.find("the run is finished"), std::string::npos) << o.err;
}

TEST_F(Programs, NoOutputReplacesWhatItMustNot) {
  const std::string run = *folder / "kept", model = run + "/model.h5", csv = *folder / "f.csv";
  ASSERT_EQ(run_program(train(run, "--steps 2")).code, 0);
  const std::string before = read_file(model);
  const std::string forecast = "forecast --model " + run + " --csv " + kSample;
  expect_refusal(forecast + " --out " + model, "is the same file");
  expect_refusal(forecast + " --out " + csv + " --plot " + model, "is the same file");
  expect_refusal(forecast + " --out " + csv + " --plot " + csv, "is the same file");
  expect_refusal(forecast + " --out " + csv + " --plot /nonexistent/p.svg", "no folder");
  expect_refusal(forecast + " --out " + data, "is an HDF5 file and is not replaced by text");
  expect_refusal("eval_timeseries --model " + run + " --data " + data + " --dump " + model, "is the same file");
  expect_refusal("import timeseries --csv " + kSample + " --overwrite --out " + model,
                 "is a modrwkv.model file");
  EXPECT_FALSE(path_exists(csv));
  EXPECT_EQ(read_file(model), before);
  // Values at the end of what f32 holds: no forecast rather than NaN.
  const std::string huge = *folder / "huge.csv";
  std::ofstream out(huge);
  out << "a\n";
  for (int i = 0; i < 100; ++i) out << (i % 2 ? "3e38\n" : "-3e38\n");
  out.close();
  expect_refusal("forecast --model " + run + " --csv " + huge + " --out " + csv, "not finite");
  EXPECT_FALSE(path_exists(csv));
}

TEST_F(Programs, ARefusedResumeChangesNothing) {
  const std::string run = *folder / "steady", other = *folder / "other.h5";
  ASSERT_EQ(run_program(train(run, "--steps 2")).code, 0);
  ASSERT_EQ(run_program("import timeseries --csv " + kSample + " --split 0.7,0.2,0.1 --out " + other).code, 0);
  const std::string before = read_file(run + "/options.toml");
  expect_refusal("train_timeseries --data " + other + " --out " + run + kSmall + " --steps 4 --resume",
                 "another data set");
  EXPECT_EQ(read_file(run + "/options.toml"), before);
}

// A learning rate of 0 leaves every score as it is, so the second evaluation without a better one ends the run.
TEST_F(Programs, ARunWithoutProgressStopsEarly) {
  const std::string run = *folder / "early", options = "--steps 20 --eval-every 2 --patience 2 --lr 0";
  Outcome o = run_program(train(run, options));
  EXPECT_EQ(o.code, 0);
  EXPECT_NE(o.err.find("stopped early"), std::string::npos) << o.err;
  EXPECT_TRUE(path_exists(run + "/checkpoints/step_00000006/MANIFEST.json"));
  o = run_program(train(run, options + " --resume"));
  EXPECT_NE(o.err.find("the run is finished, 6 of 20 steps"), std::string::npos) << o.err;
}

TEST_F(Programs, WrongInputIsRefusedByName) {
  const std::string text = *folder / "text.csv", out = *folder / "refused.h5";
  std::ofstream(text) << "date,a\n2013-01-01 00:00,1\n2013-01-01 01:00,abc\n";
  expect_refusal("import timeseries --csv " + text + " --split 0.8,0.1,0.1 --out " + out, "'abc'");
  EXPECT_FALSE(path_exists(out));
  expect_refusal("train_timeseries --dta x", "unknown flag --dta; did you mean --data?");
  expect_refusal("train_timeseries --data missing.h5 --out " + (*folder / "r1"), "missing.h5");
  EXPECT_FALSE(path_exists(*folder / "r1"));
  // Truncated, foreign, and a series that is too short.
  std::filesystem::copy_file(data, *folder / "short.h5");
  std::filesystem::resize_file(*folder / "short.h5", 5000);
  expect_refusal("train_timeseries --data " + (*folder / "short.h5") + " --out " + (*folder / "r2"),
                 "short.h5");
  expect_refusal("train_timeseries --data " + text + " --out " + (*folder / "r2"), "text.csv");
  expect_refusal("train_timeseries --data " + data + " --lookback 7000 --out " + (*folder / "r2"), "7000");
  EXPECT_FALSE(path_exists(*folder / "r2"));
  // The input is never overwritten.
  std::filesystem::copy_file(kSample, *folder / "own.csv");
  expect_refusal(
      "import timeseries --csv " + (*folder / "own.csv") + " --overwrite --out " + (*folder / "own.csv"),
      "is the same file");
  EXPECT_EQ(read_file(*folder / "own.csv"), read_file(kSample));
  expect_refusal("import timeseries --csv " + kSample + " --split 18446744073709551615,1,1 --out " + out,
                 "more than any series has");
  expect_refusal(train(*folder / "r4", "--eps 0"), "--eps 0");
  EXPECT_FALSE(path_exists(*folder / "r4"));
  // A folder of somebody else's stays as it is.
  const std::string foreign = *folder / "foreign";
  make_directories(foreign);
  std::ofstream(foreign + "/notes.txt") << "mine";
  expect_refusal(train(foreign, "--steps 2"), "run folder is not empty");
  EXPECT_EQ(list_directory(foreign), std::vector<std::string>{"notes.txt"});
  // A folder that is not empty; another architecture; a changed option.
  const std::string run = *folder / "used";
  ASSERT_EQ(run_program(train(run, "--steps 2")).code, 0);
  expect_refusal(train(run, "--steps 2"), "run folder is not empty");
  expect_refusal(train(run, "--steps 4 --resume --lr 1"), "--lr is 1");
  expect_refusal("eval_timeseries --model " + data + " --data " + data, "nyc.h5");
  expect_refusal("eval_timeseries --model " + run + " --data " + run + "/model.h5", "model.h5");
  expect_refusal("inspect " + text, "text.csv");
  // The checkpoint of another architecture under the options of this one.
  const std::string other = *folder / "other";
  ASSERT_EQ(run_program(train(other, "--steps 2 --layers 2")).code, 0);
  std::filesystem::remove_all(run + "/checkpoints");
  std::filesystem::copy(other + "/checkpoints", run + "/checkpoints", std::filesystem::copy_options::recursive);
  expect_refusal(train(run, "--steps 4 --resume"), "step_00000002");
  expect_refusal(train(*folder / "r3", "--precision bf16"), "bf16");
  EXPECT_FALSE(path_exists(*folder / "r3"));
}

TEST_F(Programs, ARunFolderInUseIsRefused) {
  const std::string run = *folder / "busy";
  make_directories(run);
  const FolderLock lock(run);
  expect_refusal(train(run, "--steps 2"), "in use");
}

TEST_F(Programs, CudaWithoutAGpuIsRefused) {
  if (cuda::available() && !cuda::properties(0).emulated) GTEST_SKIP() << "there is a GPU";
  if (program_folder() != "build/bin") GTEST_SKIP() << "the programs under test have an emulated GPU";
  expect_refusal(train(*folder / "gpu", "--device cuda"), "--device cuda: ");
  EXPECT_FALSE(path_exists(*folder / "gpu"));
}

TEST_F(Programs, AFullDiskKeepsThePreviousCheckpoint) {
  const std::string run = *folder / "full";
  ASSERT_EQ(run_program(train(run, "--steps 5")).code, 0);
  const uint64_t before = weights(run);
  // A limit on the size of a file that the shard does not fit under (bash counts blocks of 1024 bytes).
  const Outcome o = run_program(train(run, "--steps 9 --checkpoint-every 2 --resume"), "ulimit -f 20");
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_NE(o.err.find("File too large"), std::string::npos) << o.err;
  EXPECT_EQ(weights(run), before);
  const Outcome again = run_program(train(run, "--steps 9 --resume"));
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_NE(again.err.find("going on after step 5"), std::string::npos) << again.err;
}

TEST_F(Programs, AFullFileSystemKeepsThePreviousCheckpoint) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small file system needs root";
  const std::string mount = *folder / "small", run = mount + "/run";
  make_directories(mount);
  if (system(("mount -t tmpfs -o size=4m tmpfs " + mount).c_str()) != 0)
    GTEST_SKIP() << "mount is not allowed here";
  const Outcome first = run_program(train(run, "--steps 3 --keep 1"));
  EXPECT_EQ(first.code, 0) << first.err;
  const Outcome o = run_program(train(run, "--steps 2000 --checkpoint-every 1 --keep 1000 --resume"));
  EXPECT_EQ(o.code, 1);
  EXPECT_NE(o.err.find("No space left on device"), std::string::npos) << o.err;
  ASSERT_EQ(system(("rm -rf " + run + "/model.h5 " + run + "/checkpoints/step_00000003; true").c_str()), 0);
  const std::vector<std::string> left = list_directory(run + "/checkpoints");
  ASSERT_FALSE(left.empty());
  const Outcome again = run_program("inspect " + run + "/checkpoints/" + left.back());
  EXPECT_EQ(again.code, 0) << left.back() << again.err;
  EXPECT_EQ(system(("umount " + mount).c_str()), 0);
}
