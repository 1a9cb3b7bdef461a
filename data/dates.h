// Time stamps and time steps of series: unix seconds without a time zone (a stamp that names one is turned to
// UTC).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace modrwkv {

constexpr int64_t kUnknownTime = INT64_MIN;

// 2013-01-31T06:00[:00[.5]][Z|+01:00], 2013-01-31 06:00:00, 2013-01-31, 2013-01, 2013/1/31, 20130131, 1/31/2013
// 6:00 [PM] (month first, or day first where `day_first`), 31.1.2013 6:00, 31-1-2013. Nothing where the text is
// none of these.
std::optional<int64_t> parse_time(std::string_view text, bool day_first = false);

// "2013-01-31 06:00:00"; without the clock where it is midnight and `date_only`.
std::string format_time(int64_t seconds, bool date_only = false);

// The distance of two rows: "10min", "h", "D", "B" (trading days), "W", "M", "3M", "Y", "s"; unit 0 is unknown,
// "".
struct TimeStep {
  int64_t count = 0;
  char unit = 0;  // s seconds, D days, B trading days, M months; minutes and hours are seconds, weeks days,
                  // years months
  bool known() const { return unit != 0; }
  bool operator==(const TimeStep&) const = default;
  std::string str() const;
};

// Accepts what str() writes and the common spellings: 15min 15T h H 1h 60min D d B W M MS ME Q QS Y A, hourly,
// daily, weekly, monthly, quarterly, yearly; "" is the unknown step. Throws "unknown frequency 'x'; expected
// such as 10min h D W M".
TimeStep parse_step(std::string_view text);

// `n` (may be negative) steps after a time. Months keep the day where the month has it, else take its last day;
// the last day of a month stays the last day. B skips Saturday and Sunday.
int64_t add_steps(int64_t seconds, const TimeStep& step, int64_t n);

struct StepGuess {
  TimeStep step;          // unknown where no step fits at least nine rows of ten
  int64_t irregular = 0;  // rows whose distance to the row before is another
};
StepGuess infer_step(const std::vector<int64_t>& times);

}  // namespace modrwkv
