// What a person sees while a program works: progress, notes and warnings, always on standard error, and figures
// in readable form.
#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <string_view>

namespace modrwkv {

std::string format_seconds(double seconds);  // 0.25s 9.3s 59s 1m05s 3h07m 2d04h
std::string format_count(double count);      // 0 999 12.3 k 4.56 M 7.89 G
std::string format_bytes(double bytes);      // 512 B 12.3 kB 4.56 GB, powers of 1000

// One line on standard error, above the progress line where one is drawn.
void write_note(std::string_view text);
void write_warning(std::string_view text);
// Ranks other than the first: notes and progress are dropped, warnings stay.
void set_quiet(bool quiet);

template <class... Args>
void note(fmt::format_string<Args...> format, Args&&... args) {
  write_note(fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write_warning(fmt::format(format, std::forward<Args>(args)...));
}

// Where progress goes. The defaults are standard error and the monotonic clock; tests set their own.
struct ProgressOutput {
  std::FILE* file = nullptr;    // null: standard error
  int columns = -1;             // of the terminal; 0: no terminal, one line every 10 s; -1: ask the system
  double (*clock)() = nullptr;  // seconds
};

// A line such as "train  1200/5000 steps  24 %  38.1 steps/s  elapsed 31s  left 1m40s  loss 0.412". The rate is
// that of the last 20 s and counts from `start`, so that a resumed run does not claim the work of its
// predecessor. Calls cost a clock reading; the line is drawn at most ten times a second. One progress line at a
// time.
class Progress {
 public:
  // total 0: unknown, no percentage and no time left. `unit` is a plural.
  Progress(std::string what, int64_t total, std::string unit, int64_t start = 0, ProgressOutput output = {});
  ~Progress();  // finishes
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, std::string_view extra = {});
  void finish();           // draws the last state and ends the line
  double rate() const;     // units per second over the last 20 s; 0 where unknown
  double elapsed() const;  // seconds

 private:
  friend void write_line(std::string_view line);
  std::string line(double now) const;
  void draw(double now);
  void erase();

  std::string what_, unit_, extra_;
  int64_t total_, start_, done_;
  ProgressOutput output_;
  double begin_, drawn_;
  bool finished_ = false, visible_ = false,
       current_ = false;  // current: the last line drawn tells the last state
  struct Sample {
    double time;
    int64_t done;
  };
  std::deque<Sample> samples_;
};

}  // namespace modrwkv
