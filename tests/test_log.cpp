// Progress lines on a terminal and elsewhere, with a clock of our own; figures in readable form.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <string>

#include "core/log.h"

namespace modrwkv {
namespace {

double now = 0;
double test_clock() { return now; }

// A stream in memory that ProgressOutput can write to.
class Screen {
 public:
  Screen() : file_(open_memstream(&text_, &size_)) { now = 1000; }
  ~Screen() {
    std::fclose(file_);
    std::free(text_);
  }
  ProgressOutput output(int columns) { return {file_, columns, test_clock}; }
  std::string text() {
    std::fflush(file_);
    return std::string(text_, size_);
  }
  // What a terminal shows: \r moves to the start of the line, \x1b[K clears to its end.
  std::string shown() {
    std::string lines, line;
    size_t column = 0;
    const std::string all = text();
    for (size_t i = 0; i < all.size(); ++i) {
      if (all[i] == '\r') {
        column = 0;
      } else if (all.compare(i, 3, "\x1b[K") == 0) {
        line.resize(column);
        i += 2;
      } else if (all[i] == '\n') {
        lines += line + "\n";
        line.clear();
        column = 0;
      } else {
        if (column >= line.size()) line.resize(column + 1);
        line[column++] = all[i];
      }
    }
    return lines + line;
  }

 private:
  char* text_ = nullptr;
  size_t size_ = 0;
  std::FILE* file_;
};

TEST(Log, Seconds) {
  EXPECT_EQ(format_seconds(0), "0s");
  EXPECT_EQ(format_seconds(0.0123), "0.012s");
  EXPECT_EQ(format_seconds(9.34), "9.3s");
  EXPECT_EQ(format_seconds(9.96), "10s");
  EXPECT_EQ(format_seconds(59.4), "59s");
  EXPECT_EQ(format_seconds(59.6), "1m00s");
  EXPECT_EQ(format_seconds(65), "1m05s");
  EXPECT_EQ(format_seconds(3599.6), "1h00m");
  EXPECT_EQ(format_seconds(3 * 3600 + 7 * 60), "3h07m");
  EXPECT_EQ(format_seconds(24 * 3600 - 1), "1d00h");
  EXPECT_EQ(format_seconds(2 * 86400 + 4 * 3600), "2d04h");
  EXPECT_EQ(format_seconds(-1), "?");
  EXPECT_EQ(format_seconds(NAN), "?");
  EXPECT_EQ(format_seconds(1e300), "?");
}

TEST(Log, CountsAndBytes) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(7), "7");
  EXPECT_EQ(format_count(0.25), "0.25");
  EXPECT_EQ(format_count(38.06), "38.1");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.6), "1.00 k");
  EXPECT_EQ(format_count(12345), "12.3 k");
  EXPECT_EQ(format_count(4.561e6), "4.56 M");
  EXPECT_EQ(format_count(999999), "1.00 M");
  EXPECT_EQ(format_count(-12345), "-12.3 k");
  EXPECT_EQ(format_count(9.999e3), "10.0 k");
  EXPECT_EQ(format_count(1e21), "1000000 P");
  EXPECT_EQ(format_count(INFINITY), "inf");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(12345), "12.3 kB");
  EXPECT_EQ(format_bytes(4.56e9), "4.56 GB");
}

TEST(Log, WithoutATerminalOneLineEveryTenSecondsAndOneAtTheEnd) {
  Screen screen;
  {
    Progress progress("train", 400, "steps", 0, screen.output(0));
    for (int step = 1; step <= 400; ++step) {
      now += 0.1;
      progress.update(step, "loss 0.5");
    }
    EXPECT_NEAR(progress.elapsed(), 40, 1e-6);
  }
  const std::string text = screen.text();
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'),
            4);  // 10, 20, 30 s by the clock's rounding, and the end
  EXPECT_EQ(text.substr(0, text.find('\n')).find("train  10"), 0u) << text;
  const std::string last = text.substr(text.rfind('\n', text.size() - 2) + 1);
  EXPECT_EQ(last, "train  400/400 steps  100 %  10.0 steps/s  elapsed 40s  loss 0.5\n");
}

TEST(Log, RateAndTimeLeftFollowTheLastTwentySecondsAndLeaveOutTheWorkBeforeAResume) {
  Screen screen;
  Progress progress("train", 2000, "steps", 1000, screen.output(0));
  for (int i = 1; i <= 100; ++i) {  // 100 s at one step a second
    now += 1;
    progress.update(1000 + i);
  }
  EXPECT_NEAR(progress.rate(), 1, 1e-9);
  EXPECT_NE(screen.text().find("train  1100/2000 steps  55 %  1 steps/s  elapsed 1m40s  left 15m00s\n"),
            std::string::npos)
      << screen.text();
  for (int i = 1; i <= 50; ++i) {  // 50 s at four
    now += 1;
    progress.update(1100 + 4 * i);
  }
  EXPECT_NEAR(progress.rate(), 4, 1e-9);
}

TEST(Log, TheLastLineTellsTheMeanRateOfThisRunAlone) {
  Screen screen;
  {
    Progress progress("train", 2000, "steps", 1000, screen.output(0));
    now += 9;
    progress.update(1100);
    now += 91;
    progress.update(2000);
  }
  const std::string text = screen.text();
  EXPECT_EQ(text, "train  2000/2000 steps  100 %  10 steps/s  elapsed 1m40s\n");  // once, though finished twice
}

TEST(Log, OnATerminalOneLineIsRedrawnAndNeverWraps) {
  Screen screen;
  {
    Progress progress("import", 1000, "files", 0, screen.output(40));
    for (int i = 1; i <= 1000; ++i) {
      now += 0.001;
      progress.update(i, i < 900 ? "\xc3\xa4\xc3\xa4 a long text that would not fit on the line" : "end");
    }
    const std::string text = screen.text();
    EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 11);  // ten a second
    EXPECT_GE(std::count(text.begin(), text.end(), '\r'), 9);
    EXPECT_EQ(screen.shown().find('\n'), std::string::npos);
  }
  const std::string shown = screen.shown();
  EXPECT_EQ(shown, "import  1000/1000 files  100 %  1.00 k \n");  // 39 columns
}

TEST(Log, WithoutATotalThereIsNoPercentage) {
  Screen screen;
  {
    Progress progress("read", 0, "rows", 0, screen.output(0));
    now += 2;
    progress.update(100);
  }
  EXPECT_EQ(screen.text(), "read  100 rows  50 rows/s  elapsed 2.0s\n");
}

TEST(Log, NotesAndWarningsGoToStandardErrorAndEraseTheProgressLine) {
  Screen screen;
  Progress progress("train", 10, "steps", 0, screen.output(80));
  now += 1;
  progress.update(5);
  const std::string before = screen.text();
  testing::internal::CaptureStderr();
  warn("{}: {} bad rows", "a.csv", 3);
  note("plain {}", 1);
  set_quiet(true);
  note("dropped");
  warn("kept");
  set_quiet(false);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: a.csv: 3 bad rows\nplain 1\nwarning: kept\n");
  EXPECT_EQ(screen.text().substr(before.size()).find("\r\x1b[K\rtrain  5/10"), 0u);  // erased, then drawn again
}

}  // namespace
}  // namespace modrwkv
