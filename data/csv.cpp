// Splits text into records, records into cells, cells into numbers and dates.
#include "data/csv.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "core/error.h"
#include "data/text_file.h"

namespace modrwkv {
namespace {

constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = char(c >= 'A' && c <= 'Z' ? c + 32 : c);
  return out;
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

enum class CellKind : uint8_t { number, missing, text, too_large };

const char* complaint(CellKind kind) {
  return kind == CellKind::too_large ? "beyond the range of 32-bit numbers" : "not a number";
}

// The cell as a finite number, or NaN.
CellKind parse_cell(std::string_view cell, float& value) {
  value = kMissing;
  if (cell.empty()) return CellKind::missing;
  const char* begin = cell.data();
  const char* const end = begin + cell.size();
  if (*begin == '+' && cell.size() > 1 && begin[1] != '-') ++begin;
  const auto [stop, error] = std::from_chars(begin, end, value);
  if (stop == end && error == std::errc() && std::isfinite(value)) return CellKind::number;
  if (stop == end && error == std::errc::result_out_of_range) {
    const double wide = std::strtod(std::string(begin, end).c_str(), nullptr);
    value = float(wide);
    if (std::abs(wide) < 1) return CellKind::number;  // too small to tell from 0
    value = kMissing;
    return CellKind::too_large;
  }
  value = kMissing;
  if (cell.size() > 4) return CellKind::text;
  const std::string word = lower(cell);
  for (const char* missing : {"na", "nan", "n/a", "null", "none"})
    if (word == missing) return CellKind::missing;
  return CellKind::text;
}

// Splits a text into records of fields. Field views live until the next record: quoted ones are unescaped into
// scratch.
class Records {
 public:
  Records(const std::string& text, const std::string& name, char separator)
      : at_(text.data()), end_(text.data() + text.size()), name_(name), separator_(separator) {}

  // The next record that is not blank; false at the end.
  bool next(std::vector<std::string_view>& fields) {
    for (;;) {
      if (at_ == end_) return false;
      line_ = next_line_;
      const auto* newline = static_cast<const char*>(memchr(at_, '\n', size_t(end_ - at_)));
      const std::string_view line(at_, size_t((newline ? newline : end_) - at_));
      fields.clear();
      if (memchr(line.data(), '"', line.size())) {
        split_quoted(fields);
        return true;
      }
      at_ = newline ? newline + 1 : end_;
      ++next_line_;
      if (trimmed(line).empty()) continue;
      split_plain(line, fields);
      return true;
    }
  }
  int64_t line() const { return line_; }  // of the record read last, from 1

 private:
  void split_plain(std::string_view line, std::vector<std::string_view>& fields) const {
    const char* begin = line.data();
    const char* const end = begin + line.size();
    for (;;) {
      const char* stop = begin;
      while (stop != end && *stop != separator_) ++stop;
      fields.push_back(trimmed({begin, size_t(stop - begin)}));
      if (stop == end) return;
      begin = stop + 1;
    }
  }

  void split_quoted(std::vector<std::string_view>& fields) {
    scratch_.clear();
    std::vector<std::pair<size_t, size_t>> places;
    for (bool more = true; more;) {
      size_t begin = scratch_.size();
      bool quoted = false;
      while (at_ != end_ && is_blank(*at_) && *at_ != separator_) ++at_;
      if (at_ != end_ && *at_ == '"') {
        quoted = true;
        ++at_;
        for (;; ++at_) {
          if (at_ == end_) fail("{}:{}: a quote is not closed", name_, line_);
          if (*at_ == '"' && (++at_ == end_ || *at_ != '"')) break;
          next_line_ += *at_ == '\n';
          scratch_ += *at_;
        }
      }
      const size_t quoted_end = scratch_.size();
      while (at_ != end_ && *at_ != separator_ && *at_ != '\n') scratch_ += *at_++;
      size_t end = scratch_.size();
      if (quoted) {
        const std::string_view rest = trimmed(std::string_view(scratch_).substr(quoted_end));
        require(rest.empty(), "{}:{}: {} after a closing quote", name_, line_, quoted_text(rest));
        end = quoted_end;
      }
      places.emplace_back(begin, end);
      more = at_ != end_ && *at_ == separator_;
      if (at_ != end_) next_line_ += *at_++ == '\n';
    }
    if (at_ == end_) ++next_line_;
    for (const auto& [begin, end] : places)
      fields.push_back(trimmed(std::string_view(scratch_).substr(begin, end - begin)));
  }

  const char* at_;
  const char* end_;
  const std::string& name_;
  char separator_;
  std::string scratch_;
  int64_t line_ = 0, next_line_ = 1;
};

// The separator that cuts the first two lines into the most fields.
char find_separator(std::string_view text) {
  std::array<int64_t, 3> fewest{-1, -1, -1};
  constexpr std::string_view kSeparators = "\t;,";
  for (int line = 0; line < 2 && !text.empty();) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (trimmed(row).empty()) continue;
    std::array<int64_t, 3> counts{};
    bool quoted = false;
    for (const char c : row) {
      quoted ^= c == '"';
      const size_t which = quoted ? std::string_view::npos : kSeparators.find(c);
      if (which != std::string_view::npos) ++counts[which];
    }
    for (size_t i = 0; i < 3; ++i) fewest[i] = line == 0 ? counts[i] : std::min(fewest[i], counts[i]);
    ++line;
  }
  const auto best = std::max_element(fewest.begin(), fewest.end());
  return *best > 0 ? kSeparators[size_t(best - fewest.begin())] : ',';
}

bool is_value(std::string_view cell) {
  float value;
  return parse_cell(cell, value) != CellKind::text;
}

std::optional<int64_t> parse_any_time(std::string_view cell) {
  const auto month_first = parse_time(cell, false);
  return month_first ? month_first : parse_time(cell, true);
}

bool is_row_of_positions(const std::vector<std::string_view>& fields, size_t from) {
  if (fields.size() - from < 2) return false;
  for (size_t i = from; i < fields.size(); ++i)
    if (fields[i] != std::to_string(i - from)) return false;
  return true;
}

// Is this first record names, or already data?
bool is_header(const std::vector<std::string_view>& fields) {
  const std::string_view first = fields[0];
  const bool first_is_time = parse_any_time(first).has_value();
  if (!first.empty() && !is_value(first) && !first_is_time) return true;
  if (first_is_time && !is_value(first)) return false;  // text further on is an error of that row
  if (is_row_of_positions(fields, 0) || (first.empty() && is_row_of_positions(fields, 1))) return true;
  return fields.size() > 1 && std::none_of(fields.begin() + 1, fields.end(), is_value);
}

std::vector<std::string> header_names(const std::vector<std::string_view>& fields) {
  std::vector<std::string> names;
  for (const std::string_view f : fields) {
    names.push_back(is_utf8(f) ? std::string(f) : latin1_to_utf8(f));
    for (char& c : names.back())
      c = c == 0x7F || (c >= 0 && c < 0x20) ? ' ' : c;  // a quoted name may hold a line end
  }
  return names;
}

// What the first column is.
enum class Lead : uint8_t { channel, time_text, time_number, row_number };

bool is_time_name(const std::string& name) {
  static const std::set<std::string> names = {"date", "datetime", "date_time", "timestamp", "time",
                                              "ds",   "unix",     "year",      "utc",       "utc_timestamp"};
  return names.contains(lower(name));
}

// Numbers that stand for times: unix milliseconds, unix seconds, YYYYMMDD, years.
std::optional<int64_t> time_from_number(std::string_view cell) {
  const size_t point = cell.find('.');  // 1483228800.0
  if (point != std::string_view::npos && cell.find_first_not_of('0', point + 1) == std::string_view::npos)
    cell = cell.substr(0, point);
  int64_t n = 0;
  const auto [stop, error] = std::from_chars(cell.data(), cell.data() + cell.size(), n);
  if (error != std::errc() || stop != cell.data() + cell.size() || n < 0) return std::nullopt;
  if (cell.size() == 13) return n / 1000;
  if (cell.size() == 9 || cell.size() == 10) return n;
  if (cell.size() == 8) return parse_time(cell);
  if (cell.size() == 4 && n >= 1000) return parse_time(std::string(cell) + "-01");
  return std::nullopt;
}

// The records of one table, read into channels.
class Reader {
 public:
  Reader(const std::string& text, const std::string& path, const std::vector<std::string>& wanted)
      : path_(path), wanted_(wanted), records_(text, path, find_separator(text)) {}

  RawSeries read() {
    std::vector<std::string_view> fields;
    require(records_.next(fields), "{}: is empty", path_);
    std::vector<std::string> header;
    width_ = fields.size();
    bool more = true;
    if (is_header(fields)) {
      header = header_names(fields);
      more = records_.next(fields);
      require(more, "{}: holds a header and no rows", path_);
      check_width(fields);
    }
    lead_ = find_lead(header, fields);
    choose_columns(header);
    for (; more; more = records_.next(fields)) add(fields);
    if (!times_.empty()) {
      series_.start = times_[0];
      const StepGuess guess = infer_step(times_);
      series_.step = guess.step;
      series_.irregular = guess.irregular;
    }
    return std::move(series_);
  }

 private:
  bool has_times() const { return lead_ == Lead::time_text || lead_ == Lead::time_number; }

  void check_width(const std::vector<std::string_view>& fields) const {
    require(fields.size() == width_, "{}:{}: {} fields, expected {}", path_, records_.line(), fields.size(),
            width_);
  }

  Lead find_lead(const std::vector<std::string>& header, const std::vector<std::string_view>& fields) const {
    const std::string_view cell = fields[0];
    const bool named = !header.empty() && is_time_name(header[0]);
    if (!is_value(cell)) return width_ > 1 || named || parse_any_time(cell) ? Lead::time_text : Lead::channel;
    if (named && time_from_number(cell)) return Lead::time_number;
    if (!header.empty() && width_ > 1 && (named || header[0].empty()) && (cell == "0" || cell == "1"))
      return Lead::row_number;
    return Lead::channel;
  }

  void choose_columns(const std::vector<std::string>& header) {
    const size_t skip = lead_ == Lead::channel ? 0 : 1;
    std::vector<std::string> names;
    std::set<std::string> used;
    for (size_t i = skip; i < width_; ++i) {
      names.push_back(header.empty() || header[i].empty() ? std::to_string(i - skip) : header[i]);
      require(used.insert(names.back()).second, "{}: two columns are called {}", path_,
              quoted_text(names.back()));
    }
    require(!names.empty(), "{}: dates and no column of values", path_);
    if (has_times()) date_name_ = header.empty() || header[0].empty() ? "1" : header[0];
    std::vector<size_t> chosen;
    for (const std::string& want : wanted_) {
      auto found = std::find(names.begin(), names.end(), want);
      size_t position = names.size();
      const auto [stop, error] = std::from_chars(want.data(), want.data() + want.size(), position);
      const bool is_position =
          error == std::errc() && stop == want.data() + want.size() && position < names.size();
      if (found == names.end() && is_position) found = names.begin() + int64_t(position);
      require(found != names.end(), "{}: no column {}; it has {}", path_, quoted_text(want), some_of(names));
      const size_t at = size_t(found - names.begin());
      require(std::find(chosen.begin(), chosen.end(), at) == chosen.end(), "{}: column {} is asked for twice",
              path_, quoted_text(*found));
      chosen.push_back(at);
    }
    for (size_t i = 0; wanted_.empty() && i < names.size(); ++i) chosen.push_back(i);
    for (const size_t at : chosen) {
      places_.push_back(at + skip);
      series_.channels.push_back(names[at]);
    }
    series_.values.resize(places_.size());
  }

  static std::string some_of(const std::vector<std::string>& names) {
    constexpr size_t kMost = 12;
    std::string text;
    for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i ? ", " : "") + names[i];
    return names.size() > kMost ? text + ", .." : text;
  }

  void add(const std::vector<std::string_view>& fields) {
    check_width(fields);
    if (has_times()) add_time(fields[0]);
    if (lead_ == Lead::row_number) {
      if (rows_ == 0) first_row_ = fields[0] == "1" ? 1 : 0;
      require(fields[0] == std::to_string(rows_ + first_row_),
              "{}:{}: the first column counts the rows, but {} is not {}", path_, records_.line(),
              quoted_text(fields[0]), rows_ + first_row_);
    }
    for (size_t i = 0; i < places_.size(); ++i) {
      const std::string_view cell = fields[places_[i]];
      float value;
      const CellKind kind = parse_cell(cell, value);
      if (kind == CellKind::text || kind == CellKind::too_large)
        fail("{}:{}: column {}: {} is {}", path_, records_.line(), series_.channels[i], quoted_text(cell),
             complaint(kind));
      series_.values[i].push_back(value);
    }
    ++rows_;
  }

  void add_time(std::string_view cell) {
    auto time = lead_ == Lead::time_number ? time_from_number(cell) : parse_time(cell, day_first_);
    if (!time && lead_ == Lead::time_text && !day_first_ && parse_time(cell, true)) {
      // A day above 12 shows that 3/4/2013 was the third of April: read the dates so far again.
      day_first_ = true;
      for (const auto& [row, text] : slash_dates_) {
        const auto again = parse_time(text, true);
        require(again.has_value(), "{}:{}: column {}: {} has its day first, {} its month", path_,
                records_.line(), date_name_, quoted_text(cell), quoted_text(text));
        times_[row] = *again;
      }
      slash_dates_.clear();
      time = parse_time(cell, true);
    }
    if (!time) {
      fail("{}:{}: column {}: {} is not a date; expected such as 2013-01-31 06:00 or 1/31/2013", path_,
           records_.line(), date_name_, quoted_text(cell));
    }
    if (!day_first_ && cell.find('/') < 3) slash_dates_.emplace_back(times_.size(), cell);
    times_.push_back(*time);
  }

  const std::string& path_;
  const std::vector<std::string>& wanted_;
  Records records_;
  size_t width_ = 0;
  Lead lead_ = Lead::channel;
  std::string date_name_;
  std::vector<size_t> places_;  // field of each channel
  RawSeries series_;
  std::vector<int64_t> times_;
  bool day_first_ = false;
  std::vector<std::pair<size_t, std::string>>
      slash_dates_;  // row and text, while the order of day and month is open
  int64_t rows_ = 0, first_row_ = 0;
};

std::string name_of_file(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  for (const std::string_view tail : {".gz", ".csv", ".txt", ".tsv"}) {
    if (name.size() > tail.size() && name.ends_with(tail)) name.resize(name.size() - tail.size());
  }
  return name;
}

// One line of a collection; `where` begins the messages.
RawSeries parse_series_line(std::string_view line, const std::string& where) {
  std::array<std::string_view, 4> fields;
  size_t count = 0;
  for (std::string_view rest = line;; ++count) {
    const size_t end = std::min(rest.find('\t'), rest.size());
    if (count < 4) fields[count] = trimmed(rest.substr(0, end));
    if (end == rest.size()) break;
    rest.remove_prefix(end + 1);
  }
  require(++count == 4 && !fields[0].empty(), "{}: {} fields, expected name, frequency, start and values",
          where, count);
  RawSeries s;
  s.name = is_utf8(fields[0]) ? std::string(fields[0]) : latin1_to_utf8(fields[0]);
  s.channels = {"value"};
  try {
    s.step = parse_step(fields[1]);
  } catch (const Error& e) {
    fail("{}: {}", where, e.what());
  }
  float number;
  const bool no_date =
      fields[2] == "NaT" || parse_cell(fields[2], number) != CellKind::text;  // published sets hold both
  if (!no_date) {
    const std::optional<int64_t> start = parse_time(fields[2]);
    require(start.has_value(), "{}: {} is not a date", where, quoted_text(fields[2]));
    s.start = *start;
  }
  std::vector<float> values;
  for (std::string_view rest = fields[3];;) {
    const size_t end = std::min(rest.find(','), rest.size());
    const std::string_view cell = trimmed(rest.substr(0, end));
    float value;
    const CellKind kind = parse_cell(cell, value);
    if (kind == CellKind::text || kind == CellKind::too_large)
      fail("{}: value {}: {} is {}", where, values.size() + 1, quoted_text(cell), complaint(kind));
    values.push_back(value);
    if (end == rest.size()) break;
    rest.remove_prefix(end + 1);
  }
  require(!std::all_of(values.begin(), values.end(), [](float x) { return std::isnan(x); }),
          "{}: {} holds no value", where, quoted_text(s.name));
  s.values = {std::move(values)};
  return s;
}

}  // namespace

int64_t RawSeries::missing() const {
  int64_t n = 0;
  for (const std::vector<float>& c : values)
    n += std::count_if(c.begin(), c.end(), [](float x) { return std::isnan(x); });
  return n;
}

RawSeries parse_csv(const std::string& text, const std::string& path, const CsvOptions& options) {
  RawSeries s = Reader(text, path, options.columns).read();
  s.name = name_of_file(path);
  if (!options.freq.empty()) s.step = parse_step(options.freq);
  return s;
}

RawSeries read_csv(const std::string& path, const CsvOptions& options) {
  return parse_csv(read_text_file(path), path, options);
}

std::vector<RawSeries> read_series_tsv(const std::string& path,
                                       const std::function<void(const std::string&)>& report) {
  const std::string text = read_text_file(path);
  std::vector<RawSeries> all;
  int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    ++number;
    if (trimmed(line).empty()) continue;
    try {
      all.push_back(parse_series_line(line, fmt::format("{}:{}", path, number)));
    } catch (const Error& e) {
      report(e.what());
    }
  }
  require(!all.empty(), "{}: holds no series", path);
  return all;
}

}  // namespace modrwkv
