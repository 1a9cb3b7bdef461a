// Checkpoints: everything survives, at any number of ranks; what is damaged is never loaded; no failure costs
// an older one.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

#include <chrono>
#include <cstring>
#include <ctime>
#include <random>

#include "core/error.h"
#include "core/files.h"
#include "core/json.h"
#include "tests/raw_hdf5.h"
#include "tests/run_program.h"
#include "train/checkpoint.h"

namespace modrwkv {
namespace {

using testing::refusal;
using testing::TemporaryFolder;

Tensor numbers(int64_t n, double start, DType type = DType::f32) {
  Tensor t = Tensor::empty({n}, type);
  for (int64_t i = 0; i < n; ++i) {
    if (type == DType::f32) t.data<float>()[i] = float(start + double(i));
    if (type == DType::f64) t.data<double>()[i] = start + double(i);
  }
  return t;
}

CheckpointData sample(uint64_t step, DType type = DType::f32) {
  CheckpointData d;
  d.config_json = R"({"n_layer":2,"n_embd":64})";
  d.train_json = R"({"lr":0.001,"data":"set.h5"})";
  d.map = flat_map({{"head.weight", 1000}, {"blocks.0.att.w0", 64}, {"blocks.1.ln1.bias", 3}, {"empty", 0}});
  d.state.step = step;
  d.state.adam_step = step;
  d.state.samples_seen = step * 64;
  d.state.cursor = step * 64;
  d.state.seed = UINT64_MAX;
  d.state.lr = 1.0 / 3;
  d.state.best_metric = -0.25;
  d.state.dataset_hash = 0xfedcba9876543210;
  d.state.micro_batch = 7;
  d.state.carry = {1, -2};
  d.state.extra.emplace("patience_left", 3);
  d.state.extra.emplace("best_step", uint64_t(1) << 63);
  d.state.extra.emplace("stage", "phase_1");
  d.state.extra.emplace("scores", std::vector<double>{0.5, 0.25});
  const int64_t n = int64_t(d.map.total);
  d.master = numbers(n, double(step), type);
  d.m = numbers(n, 0.5, type);
  d.v = numbers(n, 0.25, type);
  return d;
}

void expect_same(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(a.defined(), b.defined());
  if (!a.defined()) return;
  ASSERT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.dtype(), b.dtype());
  EXPECT_EQ(memcmp(a.raw(), b.raw(), a.bytes()), 0);
}

TEST(Checkpoint, EverythingSurvives) {
  for (DType type : {DType::f32, DType::f64}) {
    const TemporaryFolder folder;
    CheckpointData d = sample(12, type);
    d.ema = numbers(int64_t(d.map.total), 9, type);
    d.frozen = {{"encoder.embed.weight", Tensor::full({2, 3}, 1.5, DType::bf16), 0, false}};
    const std::string path = save_checkpoint(folder / "checkpoints", d);
    EXPECT_EQ(path, folder / "checkpoints/step_00000012");
    EXPECT_EQ(read_file(folder / "checkpoints/latest"), "step_00000012\n");
    const CheckpointData back = load_checkpoint(path);
    expect_same(back.master, d.master);
    expect_same(back.m, d.m);
    expect_same(back.v, d.v);
    expect_same(back.ema, d.ema);
    ASSERT_EQ(back.frozen.size(), 1u);
    EXPECT_EQ(back.frozen[0].name, "encoder.embed.weight");
    expect_same(back.frozen[0].tensor, d.frozen[0].tensor);
    EXPECT_EQ(Json::parse(back.config_json), Json::parse(d.config_json));
    EXPECT_EQ(Json::parse(back.train_json), Json::parse(d.train_json));
    EXPECT_EQ(back.state.step, 12u);
    EXPECT_EQ(back.state.adam_step, 12u);
    EXPECT_EQ(back.state.samples_seen, 768u);
    EXPECT_EQ(back.state.cursor, 768u);
    EXPECT_EQ(back.state.seed, UINT64_MAX);
    EXPECT_EQ(back.state.lr, 1.0 / 3);
    EXPECT_EQ(back.state.best_metric, -0.25);
    EXPECT_EQ(back.state.dataset_hash, 0xfedcba9876543210u);
    EXPECT_EQ(back.state.micro_batch, 7u);
    EXPECT_EQ(back.state.shuffle, "feistel.v1");
    EXPECT_EQ(back.state.carry, d.state.carry);
    ASSERT_EQ(back.state.extra.size(), 4u);
    for (const auto& [name, value] : d.state.extra) {
      EXPECT_EQ(back.state.extra.at(name).value, value.value) << name;
    }
    EXPECT_EQ(back.map.total, d.map.total);
    ASSERT_EQ(back.map.tensors.size(), 4u);
    EXPECT_EQ(back.map.tensors[3].name, "head.weight");
    EXPECT_EQ(back.map.tensors[3].begin, 128u);
  }
}

TEST(Checkpoint, FlatOrderIsByNameInBlocksOf64) {
  const FlatMap map = flat_map({{"b", 65}, {"a", 1}, {"c", 64}});
  EXPECT_EQ(map.tensors[1].begin, 64u);
  EXPECT_EQ(map.tensors[2].begin, 192u);
  EXPECT_EQ(map.total, 256u);
  EXPECT_EQ(flat_slice(256, 0, 3), (FlatRange{0, 64}));
  EXPECT_EQ(flat_slice(256, 1, 3), (FlatRange{64, 128}));
  EXPECT_EQ(flat_slice(256, 2, 3), (FlatRange{128, 256}));
  EXPECT_NE(refusal([] { flat_map({{"a", 1}, {"a", 2}}); }).find("occurs twice"), std::string::npos);
}

// The part of `all` in `ranges`, back to back.
Tensor pick(const Tensor& all, const std::vector<FlatRange>& ranges) {
  std::vector<float> values;
  for (const FlatRange& r : ranges) {
    for (uint64_t i = r.begin; i < r.end; ++i) values.push_back(all.data<float>()[i]);
  }
  return Tensor::from(values, {int64_t(values.size())});
}

// Saves as `world` ranks would; with `interleave`, rank r holds every world-th block of 64.
std::string save_as(const std::string& folder, const CheckpointData& whole, int world, bool interleave) {
  const std::string temporary = begin_checkpoint(folder, whole.state.step);
  write_common(temporary, whole);
  for (int r = 0; r < world; ++r) {
    CheckpointData d = whole;
    d.ranges.clear();
    if (interleave) {
      for (uint64_t at = uint64_t(r) * 64; at < whole.map.total; at += uint64_t(world) * 64)
        d.ranges.push_back({at, at + 64});
    } else {
      d.ranges = {flat_slice(whole.map.total, r, world)};
    }
    d.master = pick(whole.master, d.ranges);
    d.m = pick(whole.m, d.ranges);
    d.v = pick(whole.v, d.ranges);
    write_shard(temporary, d, r, world);
  }
  return commit_checkpoint(folder, whole, world);
}

TEST(Checkpoint, LoadsAtAnyNumberOfRanks) {
  const CheckpointData whole = sample(5);
  for (bool interleave : {false, true}) {
    for (int saved = 1; saved <= 4; ++saved) {
      const TemporaryFolder folder;
      const std::string path = save_as(folder.path(), whole, saved, interleave);
      for (int world = 1; world <= 4; ++world) {
        for (int r = 0; r < world; ++r) {
          const CheckpointData part = load_checkpoint(path, {std::nullopt, r, world});
          const std::vector<FlatRange> slice{flat_slice(whole.map.total, r, world)};
          EXPECT_EQ(part.ranges, slice);
          expect_same(part.master, pick(whole.master, slice));
          expect_same(part.m, pick(whole.m, slice));
          expect_same(part.v, pick(whole.v, slice));
        }
      }
    }
  }
}

// Changes bytes of a file and the manifest with it, as far as sizes and hashes go.
void forge(const std::string& checkpoint) {
  const std::string path = join_path(checkpoint, "MANIFEST.json");
  const Json old = Json::parse(read_file(path));
  Json files = Json::array();
  for (const Json& f : old.at("files").items()) {
    const std::string at = join_path(checkpoint, f.get_string("name"));
    files.push(Json::object()
                   .set("name", f.get_string("name"))
                   .set("bytes", file_bytes(at))
                   .set("xxh64", hex(xxh64_of_file(at))));
  }
  Json fresh = old;
  write_file(path, fresh.set("files", files).dump());
}

TEST(Checkpoint, DamageIsRefusedWithTheFile) {
  const TemporaryFolder folder;
  std::string path;
  const auto fresh = [&] {
    remove_tree(folder / "c");
    path = save_as(folder / "c", sample(5), 2, false);
  };
  const auto message = [&] { return refusal([&] { load_checkpoint(path); }); };
  const std::string first = "/shard_00000_of_00002.h5", second = "/shard_00001_of_00002.h5";

  fresh();
  const std::string bytes = read_file(path + second);
  write_file(path + second, bytes.substr(0, bytes.size() - 1));
  EXPECT_EQ(message().rfind(path + second + ": has ", 0), 0u);

  fresh();
  remove_tree(path + second);
  EXPECT_EQ(message(), path + second + ": is missing");

  fresh();
  std::string flipped = bytes;
  flipped[flipped.size() / 2] ^= 1;
  write_file(path + second, flipped);
  EXPECT_EQ(message().rfind(path + second + ": is damaged (xxh64", 0), 0u);

  fresh();
  rename_path(path + first, path + "/x");
  rename_path(path + second, path + first);
  rename_path(path + "/x", path + second);
  forge(path);
  EXPECT_EQ(message(), path + first + ": /flat: rank is 1, expected 0");

  fresh();
  Json manifest = Json::parse(read_file(path + "/MANIFEST.json"));
  write_file(path + "/MANIFEST.json", manifest.set("step", 6).dump());
  EXPECT_EQ(message(), path + "/common.h5: is of step 5, the manifest of step 6");
  write_file(path + "/MANIFEST.json", manifest.set("step", 5).set("world", 3).dump());
  EXPECT_EQ(message(), path + "/MANIFEST.json: does not name shard_00000_of_00003.h5");
  write_file(path + "/MANIFEST.json", "{\"format\":");
  EXPECT_EQ(message().rfind(path + "/MANIFEST.json: not valid JSON", 0), 0u);
  write_file(path + "/MANIFEST.json", "{}");
  EXPECT_EQ(message(), path + "/MANIFEST.json: key \"format\" is missing");
  Json files = Json::array();
  for (const Json& f : manifest.at("files").items()) files.push(f);
  files.push(Json::object().set("name", "../../x").set("bytes", 1).set("xxh64", "0"));
  write_file(path + "/MANIFEST.json", manifest.set("world", 2).set("files", files).dump());
  EXPECT_NE(message().find("outside the checkpoint"), std::string::npos);
  remove_tree(path + "/MANIFEST.json");
  EXPECT_EQ(message(), path + "/MANIFEST.json: is missing: the checkpoint was not completed");

  // Shards that overlap, and that leave a hole.
  for (const auto& [range, text] : {std::pair<FlatRange, std::string>{{512, 1152}, "[512, 576) twice"},
                                    std::pair<FlatRange, std::string>{{640, 1152}, "[576, 640) nowhere"}}) {
    fresh();
    CheckpointData d = sample(5);
    ASSERT_EQ(d.map.total, 1152u);
    d.ranges = {range};
    d.master = pick(d.master, d.ranges);
    d.m = pick(d.m, d.ranges);
    d.v = pick(d.v, d.ranges);
    write_shard(path, d, 1, 2);
    forge(path);
    EXPECT_EQ(message(), path + ": the shards hold elements " + text);
  }
}

TEST(Checkpoint, WrongBuffersAreRefusedWhenSaving) {
  const TemporaryFolder folder;
  CheckpointData d = sample(5);
  d.m = numbers(10, 0);
  EXPECT_NE(refusal([&] {
              save_checkpoint(folder.path(), d);
            }).find("/flat/m: buffer is f32 [10] on cpu, the ranges hold 1152"),
            std::string::npos);
  d = sample(5);
  d.v = numbers(1152, 0, DType::f64);
  EXPECT_NE(refusal([&] { save_checkpoint(folder.path(), d); }).find("/flat/v: element type is f64"),
            std::string::npos);
  EXPECT_TRUE(list_directory(folder.path()).empty());
}

TEST(Checkpoint, NewestValidOneIsLoadedAndOthersReported) {
  const TemporaryFolder folder;
  EXPECT_FALSE(load_newest_checkpoint(folder.path()).has_value());
  EXPECT_FALSE(load_newest_checkpoint(folder / "none").has_value());
  for (uint64_t step : {9, 10, 100}) save_checkpoint(folder.path(), sample(step));
  make_directories(folder / "step_00000200.tmp");
  make_directories(folder / "step_00000300");  // no manifest
  rename_path(folder / "step_00000009", folder / "step_00000400.trash");
  write_file(folder / "step_00000100/shard_00000_of_00001.h5", "x");
  std::vector<std::string> reports;
  const auto loaded =
      load_newest_checkpoint(folder.path(), {}, [&](const std::string& line) { reports.push_back(line); });
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->state.step, 10u);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].rfind(folder / "step_00000100/shard_00000_of_00001.h5: has 1 bytes", 0), 0u);

  rename_path(folder / "step_00000010", folder / "step_00000011");  // not the step it says
  EXPECT_NE(refusal([&] { load_newest_checkpoint(folder.path()); }).find("step_00000100/shard"),
            std::string::npos);
}

TEST(Checkpoint, AnotherModelIsRefusedByItsFirstDifference) {
  const CheckpointData d = sample(5);
  const std::string same = R"({"n_embd":64,"n_layer":2})";
  const auto message = [&](const std::string& config, const FlatMap& map) {
    return refusal([&] { require_same_model("c", d, config, map); });
  };
  EXPECT_NO_THROW(require_same_model("c", d, same, d.map));
  EXPECT_EQ(message(R"({"n_embd":64,"n_layer":3})", d.map), "c: has n_layer = 2, this model has 3");
  EXPECT_EQ(message(R"({"n_embd":64,"n_layer":2,"x":1})", d.map), "c: has no configuration key x");
  EXPECT_EQ(message(R"({"n_layer":2})", d.map), "c: has configuration key n_embd, which this model has not");
  EXPECT_EQ(
      message(
          same,
          flat_map({{"head.weight", 1000}, {"blocks.0.att.w0", 64}, {"blocks.1.ln1.bias", 4}, {"empty", 0}})),
      "c: tensor blocks.1.ln1.bias has 3 elements, this model's has 4");
  EXPECT_EQ(message(same, flat_map({{"head.weight", 1000}, {"blocks.0.att.w0", 64}, {"empty", 0}})),
            "c: has tensor blocks.1.ln1.bias, which this model has not");
  EXPECT_EQ(message(same, flat_map({{"head.weight", 1000},
                                    {"blocks.0.att.w0", 64},
                                    {"blocks.1.ln1.bias", 3},
                                    {"empty", 0},
                                    {"z", 1}})),
            "c: has no tensor z");
  CheckpointData nested = d;
  nested.config_json = R"({"a":{"b":[1,2]}})";
  EXPECT_EQ(refusal([&] { require_same_model("c", nested, R"({"a":{"b":[1,3]}})", d.map); }),
            "c: has a.b = [1, 2], this model has [1, 3]");
}

TEST(Checkpoint, KeepsTheLastAndTheNamedOnes) {
  const TemporaryFolder folder;
  for (uint64_t step = 1; step <= 10; ++step) save_checkpoint(folder.path(), sample(step));
  remove_old_checkpoints(folder.path(), {3, 4, {1, 2}});
  EXPECT_EQ(list_checkpoints(folder.path()), (std::vector<uint64_t>{1, 2, 4, 8, 9, 10}));
  remove_old_checkpoints(folder.path(), {20, 0, {}});
  EXPECT_EQ(list_checkpoints(folder.path()).size(), 6u);
  EXPECT_NE(refusal([&] {
              remove_old_checkpoints(folder.path(), {0, 0, {}});
            }).find("at least one"),
            std::string::npos);
}

TEST(Checkpoint, CleaningRemovesOnlyWhatCrashesLeave) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), sample(5));
  for (const char* name :
       {"step_00000001.trash", "step_00000002.tmp", "step_00000003.tmp", "mine.tmp", "mine.trash"}) {
    make_directories(folder / name);
    write_file((folder / name) + "/common.h5", "x");
  }
  const utimbuf two_days_ago{time(nullptr) - 48 * 3600, time(nullptr) - 48 * 3600};
  ASSERT_EQ(utime((folder / "step_00000003.tmp").c_str(), &two_days_ago), 0);
  save_checkpoint(folder.path(), sample(6));
  rename_path(folder / "step_00000006", folder / "step_00000005.tmp");  // as when exchanged and then killed
  clean_checkpoints(folder.path());
  EXPECT_EQ(list_directory(folder.path()), (std::vector<std::string>{"latest", "mine.tmp", "mine.trash",
                                                                     "step_00000002.tmp", "step_00000005"}));
  clean_checkpoints(folder / "none");
}

TEST(Checkpoint, TheSameStepCanBeSavedAgain) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), sample(5));
  CheckpointData d = sample(5);
  d.state.lr = 0.5;
  save_checkpoint(folder.path(), d);
  EXPECT_EQ(load_newest_checkpoint(folder.path())->state.lr, 0.5);
  EXPECT_EQ(list_directory(folder.path()), (std::vector<std::string>{"latest", "step_00000005"}));
}

TEST(Checkpoint, AFullDiskKeepsTheOlderOne) {
  const TemporaryFolder folder;
  save_checkpoint(folder.path(), sample(5));
  CheckpointData d = sample(6);
  d.map = flat_map({{"w", 1000000}});
  d.master = d.m = d.v = numbers(int64_t(d.map.total), 0);
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  for (rlim_t limit : {0, 100, 300000, 1100000, 5000000, 11000000}) {
    rlimit small = before;
    small.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = refusal([&] { save_checkpoint(folder.path(), d); });
    setrlimit(RLIMIT_FSIZE, &before);
    EXPECT_NE(message.find("cannot write: File too large"), std::string::npos) << message;
    EXPECT_EQ(load_newest_checkpoint(folder.path())->state.step, 5u);
    EXPECT_EQ(list_directory(folder.path()), (std::vector<std::string>{"latest", "step_00000005"}));
  }
  save_checkpoint(folder.path(), d);
  EXPECT_EQ(load_newest_checkpoint(folder.path())->state.step, 6u);
}

// A process saves without end and is killed at random times: what it had reported as saved is there and whole.
TEST(Checkpoint, KilledAtAnyTimeTheNewestIsWhole) {
  const TemporaryFolder folder;
  const std::string path = folder / "checkpoints";
  CheckpointData d = sample(0);
  std::mt19937 random(3);
  uint64_t start = 0;
  int with_leftovers = 0;
  const auto before = std::chrono::steady_clock::now();
  save_checkpoint(folder / "measure", d);
  const double one_save =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - before).count();
  for (int round = 0; round < 50; ++round) {
    int told[2];
    ASSERT_EQ(pipe(told), 0);
    const pid_t child = fork();
    if (child == 0) {
      for (uint64_t step = start + 1;; ++step) {
        d.state.step = step;
        for (int64_t i = 0; i < d.master.numel(); ++i) d.master.data<float>()[i] = float(step);
        try {
          save_checkpoint(path, d);
          remove_old_checkpoints(path, {2, 0, {}});
        } catch (const Error&) {
          _exit(1);
        }
        if (write(told[1], &step, sizeof step) != ssize_t(sizeof step)) _exit(2);
      }
    }
    close(told[1]);
    usleep(unsigned(one_save * 4 * double(random()) / double(random.max())));
    ASSERT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the saving process failed by itself";
    uint64_t last = start, step = 0;
    while (read(told[0], &step, sizeof step) == ssize_t(sizeof step)) last = step;
    close(told[0]);

    if (path_exists(path)) {
      for (const std::string& name : list_directory(path))
        with_leftovers += name.find(".t") != std::string::npos;
    }
    const auto loaded =
        load_newest_checkpoint(path, {}, [](const std::string& line) { ADD_FAILURE() << line; });
    if (!loaded) {
      ASSERT_EQ(last, 0u);
      continue;
    }
    EXPECT_GE(loaded->state.step, last);
    for (int64_t i = 0; i < loaded->master.numel(); ++i) {
      ASSERT_EQ(loaded->master.data<float>()[i], float(loaded->state.step));
    }
    start = loaded->state.step;
    clean_checkpoints(path);
  }
  EXPECT_GT(start, 0u);
  EXPECT_GT(with_leftovers, 5);  // the kills did come while saving
}

}  // namespace
}  // namespace modrwkv
