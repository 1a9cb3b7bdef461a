// TensorBoard events: published CRCs, records as TensorBoard's own writer makes them, and what a resumed run
// keeps.
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "core/error.h"
#include "core/files.h"
#include "train/events.h"

namespace modrwkv {
namespace {

std::string bytes_of(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) bytes += char(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

Json train_row(int64_t step) {
  return Json::object().set("step", step).set("loss", 0.5).set("lr", 0.001).set("note", "no number");
}

class Events : public testing::Test {
 protected:
  void SetUp() override { make_directories(folder); }
  void TearDown() override { remove_tree(folder); }
  std::string file() const {
    const std::vector<std::string> names = list_directory(folder);
    EXPECT_EQ(names.size(), 1u);
    EXPECT_EQ(names.at(0).find("events.out.tfevents."), 0u);
    return join_path(folder, names.at(0));
  }
  std::string folder = testing::TempDir() + "events_" + std::to_string(std::random_device{}());
};

TEST_F(Events, Crc32cOfRfc3720) {
  std::string up, down;
  for (int i = 0; i < 32; ++i) up += char(i), down += char(31 - i);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(up), 0x46dd794eu);
  EXPECT_EQ(crc32c(down), 0x113fdb5cu);
}

// The bytes come from tensorboard 2.21: RecordWriter over Event(...).SerializeToString().
TEST_F(Events, RecordsEqualTensorBoards) {
  EXPECT_EQ(event_record(train_row(7), 1700000000.25),
            bytes_of("31000000000000009d8383e90900001040fc54d94110072a240a110a0a747261696e2f6c6f7373150000003f"
                     "0a0f0a08747261696e2f6c72156f12833a64dfab6d"));
  EXPECT_EQ(
      event_record(Json::object().set("step", 300).set("eval", "validation").set("mse", 0.25), 1700000000.25),
      bytes_of("2500000000000000eabc36f30900001040fc54d94110ac022a170a150a0e76616c69646174696f6e2f6d7365"
               "150000803ebe09a178"));
}

TEST_F(Events, AResumedRunGoesOnBehindItsCheckpoint) {
  std::string at_200;
  {
    EventsWriter events(folder, 0);
    for (int64_t step = 1; step <= 300; ++step) {
      events.write(train_row(step));
      if (step == 200) at_200 = read_file(file());
    }
  }
  { const EventsWriter events(folder, 200); }
  EXPECT_EQ(read_file(file()), at_200);
}

TEST_F(Events, ALinkIsNotFollowed) {
  write_file(folder + "/notes.txt", "mine");
  std::filesystem::create_symlink("notes.txt", folder + "/events.out.tfevents.1.x");
  EXPECT_THROW(EventsWriter(folder, 9), Error);
  EXPECT_EQ(read_file(folder + "/notes.txt"), "mine");
}

TEST_F(Events, TornAndDamagedEndsAreCutOff) {
  { EventsWriter(folder, 0).write(train_row(1)); }
  const std::string whole = read_file(file());
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(file(), whole.substr(0, size));
    { EventsWriter(folder, 9).write(train_row(2)); }
    const std::string after = read_file(file());
    ASSERT_EQ(after.size(), whole.size()) << "cut at " << size;  // the first record and one step
  }
  std::string damaged = whole;
  damaged.back() ^= 1;
  write_file(file(), damaged);
  { const EventsWriter events(folder, 9); }
  EXPECT_EQ(read_file(file()), whole.substr(0, whole.size() - event_record(train_row(1), 0).size()));
}

}  // namespace
}  // namespace modrwkv
