#include "data/dates.h"

#include <algorithm>
#include <cctype>
#include <chrono>
#include <map>

#include "core/error.h"
#include "data/text_file.h"

namespace modrwkv {
namespace {

constexpr int64_t kDay = 86400;

struct Civil {
  int64_t year;
  int month, day;
};

int64_t days_from(const Civil& c) {
  using namespace std::chrono;
  return sys_days(year(int(c.year)) / c.month / c.day).time_since_epoch().count();
}

Civil civil_from(int64_t days) {
  using namespace std::chrono;
  const year_month_day d{sys_days(std::chrono::days(days))};
  return {int(d.year()), int(unsigned(d.month())), int(unsigned(d.day()))};
}

int days_of_month(int64_t year, int month) {
  using namespace std::chrono;
  return int(unsigned((std::chrono::year(int(year)) / month / last).day()));
}

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
int weekday(int64_t days) { return int(((days + 3) % 7 + 7) % 7); }  // Monday 0; 1970-01-01 was a Thursday

// Reads a stamp from left to right.
struct Scanner {
  std::string_view text;
  size_t at = 0;
  int digits = 0;  // of the number read last

  bool done() const { return at == text.size(); }
  char peek() const { return done() ? '\0' : text[at]; }
  bool eat(char c) { return peek() == c ? (++at, true) : false; }
  void blanks() {
    while (peek() == ' ') ++at;
  }
  bool number(int64_t& value, int most) {
    value = 0;
    for (digits = 0; digits < most && peek() >= '0' && peek() <= '9'; ++digits)
      value = 10 * value + (text[at++] - '0');
    return digits > 0;
  }
};

bool scan_date(Scanner& s, bool day_first, Civil& date) {
  int64_t a = 0, b = 1, c = 1;
  if (!s.number(a, 8)) return false;
  if (s.digits == 8) {
    date = {a / 10000, int(a / 100 % 100), int(a % 100)};
  } else {
    const bool year_first = s.digits == 4;
    const char separator = s.peek();
    if (s.digits > 4 || s.digits == 3 || (separator != '-' && separator != '/' && separator != '.'))
      return false;
    ++s.at;
    if (!s.number(b, 2)) return false;
    if (year_first) {
      if (s.eat(separator)) {
        if (!s.number(c, 2)) return false;
      } else if (separator == '.') {
        return false;  // 2013.12 is a number
      }
      date = {a, int(b), int(c)};
    } else {
      if (!s.eat(separator) || !s.number(c, 4) || s.digits != 4) return false;
      const bool day_before_month = day_first || separator != '/';
      date = {c, int(day_before_month ? b : a), int(day_before_month ? a : b)};
    }
  }
  return date.year >= 1 && date.month >= 1 && date.month <= 12 && date.day >= 1 &&
         date.day <= days_of_month(date.year, date.month);
}

// [T ]h:mm[:ss[.fff]][ AM|PM][Z|+hh[:mm]]
bool scan_clock(Scanner& s, int64_t& seconds) {
  int64_t hour = 0, minute = 0, second = 0, fraction = 0;
  if (!s.number(hour, 2) || !s.eat(':') || !s.number(minute, 2)) return false;
  if (s.eat(':')) {
    if (!s.number(second, 2)) return false;
    if (s.eat('.') && !s.number(fraction, 9)) return false;
  }
  s.blanks();
  const char half = char(std::toupper(static_cast<unsigned char>(s.peek())));
  if (half == 'A' || half == 'P') {
    ++s.at;
    if (std::toupper(static_cast<unsigned char>(s.peek())) != 'M' || hour < 1 || hour > 12) return false;
    ++s.at;
    hour = hour % 12 + (half == 'P' ? 12 : 0);
  }
  if (hour > 24 || minute > 59 || second > 60 || (hour == 24 && minute + second > 0)) return false;
  seconds = hour * 3600 + minute * 60 + second;
  if (s.eat('Z')) return true;
  const char sign = s.peek();
  if (sign == '+' || sign == '-') {
    int64_t hours = 0, minutes = 0;
    ++s.at;
    if (!s.number(hours, 2)) return false;
    s.eat(':');
    if (!s.done() && !s.number(minutes, 2)) return false;
    if (hours > 18 || minutes > 59) return false;
    seconds -= (sign == '+' ? 1 : -1) * (hours * 3600 + minutes * 60);
  }
  return true;
}

TimeStep from_seconds(int64_t seconds) {
  return seconds % kDay == 0 ? TimeStep{seconds / kDay, 'D'} : TimeStep{seconds, 's'};
}

int64_t month_number(int64_t time) {
  const Civil c = civil_from(floor_div(time, kDay));
  return c.year * 12 + c.month - 1;
}

}  // namespace

std::optional<int64_t> parse_time(std::string_view text, bool day_first) {
  Scanner s{text};
  Civil date{};
  if (!scan_date(s, day_first, date)) return std::nullopt;
  int64_t seconds = 0;
  if (s.eat('T') || s.peek() == ' ') {
    s.blanks();
    if (!scan_clock(s, seconds)) return std::nullopt;
  }
  if (!s.done()) return std::nullopt;
  return days_from(date) * kDay + seconds;
}

std::string format_time(int64_t seconds, bool date_only) {
  if (seconds == kUnknownTime) return "";
  const int64_t days = floor_div(seconds, kDay), rest = seconds - days * kDay;
  const Civil c = civil_from(days);
  const std::string date = fmt::format("{:04}-{:02}-{:02}", c.year, c.month, c.day);
  if (date_only && rest == 0) return date;
  return fmt::format("{} {:02}:{:02}:{:02}", date, rest / 3600, rest / 60 % 60, rest % 60);
}

std::string TimeStep::str() const {
  const auto with = [](int64_t n, const char* name) { return n == 1 ? name : fmt::format("{}{}", n, name); };
  if (unit == 'D') return count % 7 == 0 ? with(count / 7, "W") : with(count, "D");
  if (unit == 'B') return with(count, "B");
  if (unit == 'M') return count % 12 == 0 ? with(count / 12, "Y") : with(count, "M");
  if (unit != 's') return "";
  if (count % 3600 == 0) return with(count / 3600, "h");
  return count % 60 == 0 ? fmt::format("{}min", count / 60) : with(count, "s");
}

TimeStep parse_step(std::string_view text) {
  if (text.empty()) return {};
  struct Unit {
    int64_t count;
    char unit;
  };
  static const std::map<std::string_view, Unit> units = {{"s", {1, 's'}},
                                                         {"S", {1, 's'}},
                                                         {"min", {60, 's'}},
                                                         {"T", {60, 's'}},
                                                         {"h", {3600, 's'}},
                                                         {"H", {3600, 's'}},
                                                         {"D", {kDay, 's'}},
                                                         {"d", {kDay, 's'}},
                                                         {"B", {1, 'B'}},
                                                         {"W", {7 * kDay, 's'}},
                                                         {"M", {1, 'M'}},
                                                         {"MS", {1, 'M'}},
                                                         {"ME", {1, 'M'}},
                                                         {"Q", {3, 'M'}},
                                                         {"QS", {3, 'M'}},
                                                         {"QE", {3, 'M'}},
                                                         {"Y", {12, 'M'}},
                                                         {"A", {12, 'M'}},
                                                         {"YS", {12, 'M'}},
                                                         {"YE", {12, 'M'}},
                                                         {"hourly", {3600, 's'}},
                                                         {"daily", {kDay, 's'}},
                                                         {"weekly", {7 * kDay, 's'}},
                                                         {"monthly", {1, 'M'}},
                                                         {"quarterly", {3, 'M'}},
                                                         {"yearly", {12, 'M'}}};
  Scanner s{text};
  int64_t count = 1;
  const bool counted = s.number(count, 6);
  if (!counted) count = 1;
  std::string_view name = text.substr(s.at);
  if (name.size() == 5 && name[0] == 'W' && name[1] == '-') name = "W";  // W-SUN
  const auto found = units.find(name);
  if (count <= 0 || found == units.end())
    fail("unknown frequency {}; expected such as 10min h D W M", quoted_text(text));
  const Unit unit = found->second;
  if (unit.unit == 's') return from_seconds(count * unit.count);
  return {count * unit.count, unit.unit};
}

int64_t add_steps(int64_t time, const TimeStep& step, int64_t n) {
  require(time != kUnknownTime && step.known(), "add_steps: the time or the step is unknown");
  const int64_t steps = step.count * n;
  if (step.unit == 's') return time + steps;
  if (step.unit == 'D') return time + steps * kDay;
  const int64_t days = floor_div(time, kDay), clock = time - days * kDay;
  if (step.unit == 'M') {
    const int64_t months = month_number(time) + steps;
    const int64_t year = floor_div(months, 12);
    const int month = int(months - year * 12) + 1, day = civil_from(days).day;
    const bool at_end = day == days_of_month(civil_from(days).year, civil_from(days).month);
    const int last = days_of_month(year, month);
    return days_from({year, month, at_end ? last : std::min(day, last)}) * kDay + clock;
  }
  // Trading days: count from the Monday of the week; a weekend counts as the Friday before.
  const int64_t monday = days - weekday(days), position = std::min(weekday(days), 4) + steps;
  const int64_t weeks = floor_div(position, 5);
  return (monday + weeks * 7 + (position - weeks * 5)) * kDay + clock;
}

StepGuess infer_step(const std::vector<int64_t>& times) {
  const int64_t n = int64_t(times.size());
  if (n < 2) return {};
  std::map<int64_t, int64_t> counts;
  for (int64_t i = 1; i < n; ++i) ++counts[times[size_t(i)] - times[size_t(i) - 1]];
  const auto most = std::max_element(counts.begin(), counts.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  // The fewest irregular rows win.
  StepGuess best;
  best.irregular = n;
  const auto offer = [&](const TimeStep& step) {
    if (step.count <= 0) return;
    int64_t irregular = 0;
    for (size_t i = 1; i < size_t(n); ++i) irregular += add_steps(times[i - 1], step, 1) != times[i];
    if (irregular < best.irregular) best = {step, irregular};
  };
  // On a tie the first wins: yearly stamps without a leap year between them are years, not 365 days.
  const TimeStep months{month_number(times[1]) - month_number(times[0]), 'M'};
  if (most->first >= 28 * kDay) offer(months);
  offer(from_seconds(most->first));
  if (best.irregular > 0) {
    offer({1, 'B'});
    offer(months);
  }
  if (best.irregular * 10 > n - 1) best = {{}, best.irregular};
  return best;
}

}  // namespace modrwkv
