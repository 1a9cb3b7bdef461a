// metrics.jsonl: exact values, one line a row, cut back to a step, torn ends, failures of the disk.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

#include "core/error.h"
#include "core/files.h"
#include "core/metrics.h"

namespace modrwkv {
namespace {

class Metrics : public testing::Test {
 protected:
  void SetUp() override {
    folder = testing::TempDir() + "metrics_" + std::to_string(std::random_device{}());
    make_directories(folder);
    file = folder + "/metrics.jsonl";
  }
  void TearDown() override { remove_tree(folder); }
  static Json row(int64_t step, double loss) { return Json::object().set("step", step).set("loss", loss); }
  std::string refusal(const std::string& text) {
    write_file(file, text);
    try {
      read_metrics(file);
    } catch (const Error& e) {
      return std::string(e.what()).substr(folder.size() + 1);
    }
    return "(accepted)";
  }
  std::string folder, file;
};

TEST_F(Metrics, LinesAreVisibleAtOnceAndKeepTheirFieldOrder) {
  auto writer = MetricsWriter::create(file);
  writer.write(
      row(1, 0.5).set("lr", 0.25).set("grad_norm", NAN).set("seconds", INFINITY).set("eval", "validation"));
  EXPECT_EQ(read_file(file),
            "{\"step\": 1, \"loss\": 0.5, \"lr\": 0.25, \"grad_norm\": null, \"seconds\": null, \"eval\": "
            "\"validation\"}\n");
  writer.write(row(2, 1));
  writer.sync();
  const auto rows = read_metrics(file);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_TRUE(std::isnan(rows[0].get_double("grad_norm")));
  EXPECT_EQ(rows[1].get_int("step"), 2);
  EXPECT_THROW(MetricsWriter::create(file), Error);
}

// strtod is the independent reader.
TEST_F(Metrics, DoublesReadBackEqual) {
  std::mt19937_64 random(3);
  std::vector<double> values = {0.1, 1e23, 5e-324, std::numeric_limits<double>::max(), -0.0, 3};
  while (values.size() < 500) {
    const double x = std::ldexp(double(random()), int(random() % 1000) - 540);
    values.push_back(random() % 2 ? x : -x);
  }
  {
    auto writer = MetricsWriter::create(file);
    for (const double x : values) writer.write(row(0, x));
  }
  const std::string text = read_file(file);
  const auto rows = read_metrics(file);
  ASSERT_EQ(rows.size(), values.size());
  size_t at = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(rows[i].get_double("loss"), values[i]);
    at = text.find("loss\": ", at) + 7;
    EXPECT_EQ(std::strtod(text.c_str() + at, nullptr), values[i]);
  }
  EXPECT_TRUE(std::signbit(rows[4].get_double("loss")));
}

TEST_F(Metrics, ResumeCutsBackToTheStepOfTheCheckpoint) {
  std::string whole;
  {
    auto writer = MetricsWriter::create(file);
    for (int step = 1; step <= 10; ++step) {
      writer.write(row(step, 1.0 / step));
      if (step % 5 == 0)
        writer.write(Json::object().set("step", step).set("eval", "validation").set("mse", 0.1 * step));
    }
    whole = read_file(file);
  }
  write_file(file, whole + "{\"step\": 11, \"lo");  // killed while writing
  {
    auto writer = MetricsWriter::resume(file, 5);
    const auto rows = read_metrics(file);
    ASSERT_EQ(rows.size(), 6u);
    EXPECT_EQ(rows[5].get_string("eval"), "validation");
    for (int step = 6; step <= 10; ++step) {
      writer.write(row(step, 1.0 / step));
      if (step % 5 == 0)
        writer.write(Json::object().set("step", step).set("eval", "validation").set("mse", 0.1 * step));
    }
  }
  EXPECT_EQ(read_file(file), whole);  // as if never interrupted
  { auto writer = MetricsWriter::resume(file, 100); }
  EXPECT_EQ(read_file(file), whole);
  { auto writer = MetricsWriter::resume(file, -1); }
  EXPECT_EQ(read_file(file), "");
  EXPECT_EQ(list_directory(folder).size(), 1u);  // no temporary file is left
}

TEST_F(Metrics, ResumeCreatesAMissingFile) {
  auto writer = MetricsWriter::resume(file, 3);
  writer.write(row(4, 1));
  EXPECT_EQ(read_metrics(file).size(), 1u);
}

TEST_F(Metrics, ForeignLinesAreRefusedByLine) {
  EXPECT_EQ(refusal("{\"step\": 1}\n[1]\n"),
            "metrics.jsonl:2: expected a JSON object with a whole number \"step\"");
  EXPECT_EQ(refusal("{\"loss\": 1}\n"), "metrics.jsonl:1: expected a JSON object with a whole number \"step\"");
  EXPECT_EQ(refusal("{\"step\": 1.5}\n"),
            "metrics.jsonl:1: expected a JSON object with a whole number \"step\"");
  EXPECT_EQ(refusal("{\"step\": 1}\nhello\n").find("metrics.jsonl:2: "), 0u);
  EXPECT_EQ(refusal("\n").find("metrics.jsonl:1: "), 0u);
  EXPECT_EQ(refusal(std::string("{\"step\": 1}\n\0\0\0", 15)),
            "(accepted)");  // zeros after a power cut: a torn line
  auto writer = MetricsWriter::resume(folder + "/other", 0);
  EXPECT_THROW(writer.write(Json::object().set("loss", 1.0)), Error);
  EXPECT_THROW(writer.write(Json(3)), Error);
  EXPECT_THROW(MetricsWriter::create(folder + "/none/metrics.jsonl"), Error);
}

TEST_F(Metrics, AFullDiskIsAnErrorWithTheFile) {
  EXPECT_EXIT(
      {
        auto writer = MetricsWriter::create(file);
        rlimit limit;
        limit.rlim_cur = limit.rlim_max = 400;  // of the message on standard error too
        setrlimit(RLIMIT_FSIZE, &limit);
        try {
          for (int i = 0; i < 100; ++i) writer.write(row(i, 0.125));
        } catch (const Error& e) {
          std::fputs(e.what(), stderr);
          std::_Exit(3);  // without a leak check of what the writer holds
        }
      },
      testing::ExitedWithCode(3), "metrics.jsonl: cannot write: File too large");
}

}  // namespace
}  // namespace modrwkv
