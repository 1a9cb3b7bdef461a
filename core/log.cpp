// Progress, notes and warnings on standard error.
#include "core/log.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <mutex>

namespace modrwkv {
namespace {

constexpr double kRedraw = 0.1;     // seconds between two drawings on a terminal
constexpr double kLine = 10;        // seconds between two lines elsewhere
constexpr double kRateWindow = 20;  // seconds

std::recursive_mutex mutex;  // of the lines on standard error; write_line may be called inside of an update
Progress* active = nullptr;
bool is_quiet = false;

double monotonic() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int terminal_columns(std::FILE* file) {
  const int fd = fileno(file);
  if (fd < 0 || !isatty(fd)) return 0;
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Three significant digits.
std::string three_digits(double x) {
  const double a = std::abs(x);
  return a >= 99.95 || x == 0 ? fmt::format("{:.0f}", x)
         : a >= 9.995         ? fmt::format("{:.1f}", x)
                              : fmt::format("{:.2f}", x);
}

std::string with_prefix(double x, const char* const (&prefixes)[6]) {
  if (!std::isfinite(x)) return fmt::format("{}", x);
  int p = 0;
  while (std::abs(x) >= 999.5 && p < 5) {
    x /= 1000;
    ++p;
  }
  const bool whole = p == 0 && x == std::floor(x);
  const std::string digits = whole ? fmt::format("{:.0f}", x) : three_digits(x);
  return *prefixes[p] == '\0' ? digits : digits + " " + prefixes[p];
}

// The longest beginning of at most `columns` characters (UTF-8 code points).
std::string_view cut(std::string_view text, int columns) {
  for (size_t i = 0; i < text.size(); ++i)
    if ((text[i] & 0xc0) != 0x80 && columns-- <= 0) return text.substr(0, i);
  return text;
}

}  // namespace

std::string format_seconds(double s) {
  if (!std::isfinite(s) || s < 0) return "?";
  if (s < 0.9995) return fmt::format("{:.2g}s", s);
  if (s < 9.95) return fmt::format("{:.1f}s", s);
  if (s > 1e15) return "?";
  const int64_t n = std::llround(s);
  if (n < 60) return fmt::format("{}s", n);
  if (n < 3600) return fmt::format("{}m{:02}s", n / 60, n % 60);
  const int64_t minutes = std::llround(s / 60);
  if (minutes < 24 * 60) return fmt::format("{}h{:02}m", minutes / 60, minutes % 60);
  const int64_t hours = std::llround(s / 3600);
  return fmt::format("{}d{:02}h", hours / 24, hours % 24);
}

std::string format_count(double count) { return with_prefix(count, {"", "k", "M", "G", "T", "P"}); }
std::string format_bytes(double bytes) { return with_prefix(bytes, {"B", "kB", "MB", "GB", "TB", "PB"}); }

void set_quiet(bool quiet) { is_quiet = quiet; }

void write_line(std::string_view line) {
  const std::lock_guard lock(mutex);
  if (active != nullptr) active->erase();
  const std::string text = std::string(line) + "\n";
  std::fwrite(text.data(), 1, text.size(), stderr);
  if (active != nullptr && active->output_.columns > 0) active->draw(active->output_.clock());
}

void write_note(std::string_view text) {
  if (!is_quiet) write_line(text);
}
void write_warning(std::string_view text) { write_line("warning: " + std::string(text)); }

Progress::Progress(std::string what, int64_t total, std::string unit, int64_t start, ProgressOutput output)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      start_(start),
      done_(start),
      output_(output) {
  if (output_.file == nullptr) output_.file = stderr;
  if (output_.columns < 0) output_.columns = terminal_columns(output_.file);
  if (output_.clock == nullptr) output_.clock = monotonic;
  begin_ = output_.clock();
  drawn_ = output_.columns > 0 ? begin_ - kRedraw : begin_;
  samples_.push_back({begin_, start});
  const std::lock_guard lock(mutex);
  if (active == nullptr) active = this;
}

Progress::~Progress() {
  finish();
  const std::lock_guard lock(mutex);
  if (active == this) active = nullptr;
}

void Progress::update(int64_t done, std::string_view extra) {
  const std::lock_guard lock(mutex);
  if (finished_) return;
  done_ = done;
  extra_ = extra;
  current_ = false;
  const double now = output_.clock();
  if (now - samples_.back().time >= kRateWindow / 40) samples_.push_back({now, done});
  while (samples_.size() > 2 && now - samples_[1].time >= kRateWindow) samples_.pop_front();
  if (now - drawn_ >= (output_.columns > 0 ? kRedraw : kLine)) draw(now);
}

void Progress::finish() {
  const std::lock_guard lock(mutex);
  if (finished_) return;
  if (!current_) draw(output_.clock());
  if (visible_ && !is_quiet) {
    std::fputc('\n', output_.file);
    std::fflush(output_.file);
  }
  visible_ = false;
  finished_ = true;
  if (active == this) active = nullptr;
}

double Progress::elapsed() const { return output_.clock() - begin_; }

double Progress::rate() const {
  const Sample& oldest = samples_.front();
  const double seconds = output_.clock() - oldest.time;
  return seconds > 0 ? double(done_ - oldest.done) / seconds : 0;
}

std::string Progress::line(double now) const {
  std::string text = what_ + "  " + std::to_string(done_);
  if (total_ > 0) text += "/" + std::to_string(total_);
  text += " " + unit_;
  if (total_ > 0)
    text += fmt::format("  {} %", std::clamp<int64_t>(int64_t(100.0 * double(done_) / double(total_)), 0, 100));
  const bool complete = total_ > 0 && done_ >= total_;
  const double elapsed = now - begin_;
  // The last line tells the mean rate of the whole run.
  const double per_second = complete && elapsed > 0 ? double(done_ - start_) / elapsed : rate();
  if (per_second > 0) text += fmt::format("  {} {}/s", format_count(per_second), unit_);
  text += "  elapsed " + format_seconds(elapsed);
  if (total_ > 0 && !complete && per_second > 0)
    text += "  left " + format_seconds(double(total_ - done_) / per_second);
  if (!extra_.empty()) text += "  " + extra_;
  return text;
}

void Progress::draw(double now) {
  drawn_ = now;
  current_ = true;
  if (is_quiet) return;
  std::string text = line(now);
  if (output_.columns > 0) {
    text = "\r" + std::string(cut(text, output_.columns - 1)) + "\x1b[K";
    visible_ = true;
  } else {
    text += "\n";
  }
  std::fwrite(text.data(), 1, text.size(), output_.file);
  std::fflush(output_.file);
}

void Progress::erase() {
  if (!visible_) return;
  std::fputs("\r\x1b[K", output_.file);
  std::fflush(output_.file);
  visible_ = false;
  current_ = false;
}

}  // namespace modrwkv
