// Splits lines into fields and fields into numbers.
#include "data/csv.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "core/error.h"
#include "data/text_file.h"

namespace modrwkv {
namespace {

constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

std::string_view trimmed(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t' || s.back() == '\r')) s.remove_suffix(1);
  return s;
}

bool is_missing(std::string_view s) {
  for (const std::string_view m : {"", "NA", "N/A", "NaN", "nan", "NAN", "null", "NULL", "None"}) {
    if (s == m) return true;
  }
  return false;
}

// A finite number that fills the whole field.
std::optional<double> number(std::string_view s) {
  if (!s.empty() && s.front() == '+') s.remove_prefix(1);
  double x = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), x);
  if (error != std::errc() || end != s.data() + s.size() || !std::isfinite(x)) return std::nullopt;
  return x;
}

// Fields of a line; quotes around a field are taken off and doubled quotes inside become one.
void split(std::string_view line, char separator, std::vector<std::string_view>& fields, std::vector<std::string>& unquoted) {
  fields.clear();
  unquoted.clear();
  size_t at = 0;
  while (true) {
    if (at < line.size() && line[at] == '"') {
      std::string text;
      size_t i = at + 1;
      while (i < line.size() && !(line[i] == '"' && (i + 1 == line.size() || line[i + 1] != '"'))) {
        if (line[i] == '"') ++i;
        text += line[i++];
      }
      const size_t end = std::min(line.find(separator, i), line.size());
      unquoted.push_back(text);
      fields.push_back({});  // filled in below: `unquoted` may still move
      at = end;
    } else {
      const size_t end = std::min(line.find(separator, at), line.size());
      fields.push_back(trimmed(line.substr(at, end - at)));
      at = end;
    }
    if (at >= line.size()) break;
    ++at;
  }
  size_t next = 0;
  for (std::string_view& f : fields) {
    if (f.data() == nullptr && next < unquoted.size()) f = trimmed(unquoted[next++]);
  }
}

// The lines of a text, without their ends; empty ones are left out. `line_numbers` count from 1.
struct Lines {
  std::vector<std::string_view> text;
  std::vector<int64_t> number;
};

Lines lines_of(std::string_view text) {
  Lines lines;
  int64_t n = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    ++n;
    const std::string_view line = text.substr(0, end);
    if (!trimmed(line).empty()) {
      lines.text.push_back(!line.empty() && line.back() == '\r' ? line.substr(0, line.size() - 1) : line);
      lines.number.push_back(n);
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

char separator_of(std::string_view line) {
  for (const char c : {'\t', ';', ','}) {
    if (line.find(c) != std::string_view::npos) return c;
  }
  return ',';
}

std::string name_of_file(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/') + 1);
  for (const char* tail : {".gz", ".csv", ".txt", ".tsv"}) {
    const std::string t = tail;
    if (name.size() > t.size() && name.compare(name.size() - t.size(), t.size(), t) == 0) name.resize(name.size() - t.size());
  }
  return name;
}

void keep_columns(RawSeries& s, const std::vector<std::string>& wanted, const std::string& path) {
  if (wanted.empty()) return;
  RawSeries kept = s;
  kept.channels.clear();
  kept.values.clear();
  for (const std::string& w : wanted) {
    const auto at = std::find(s.channels.begin(), s.channels.end(), w);
    require(at != s.channels.end(), "{}: no column {}", path, quoted_text(w));
    kept.channels.push_back(w);
    kept.values.push_back(s.values[size_t(at - s.channels.begin())]);
  }
  s = std::move(kept);
}

}  // namespace

int64_t RawSeries::missing() const {
  int64_t n = 0;
  for (const std::vector<float>& c : values) n += std::count_if(c.begin(), c.end(), [](float x) { return std::isnan(x); });
  return n;
}

RawSeries read_csv(const std::string& path, const CsvOptions& options) {
  const std::string text = read_text_file(path);
  const Lines lines = lines_of(text);
  require(!lines.text.empty(), "{}: is empty", path);
  const char separator = separator_of(lines.text[0]);
  std::vector<std::string_view> fields;
  std::vector<std::string> unquoted;
  const auto is_value = [](std::string_view f) { return is_missing(f) || number(f).has_value(); };

  // A header names the columns: its last field is no number, and neither is it missing.
  split(lines.text[0], separator, fields, unquoted);
  const bool header = !is_value(fields.back());
  std::vector<std::string> names;
  for (const std::string_view f : fields) names.push_back(is_utf8(f) ? std::string(f) : latin1_to_utf8(f));
  const size_t first = header ? 1 : 0;
  require(first < lines.text.size(), "{}: holds a header and no rows", path);
  split(lines.text[first], separator, fields, unquoted);
  const size_t skip = is_value(fields[0]) && !(header && names[0] == "date") ? 0 : 1;  // a date column
  require(fields.size() > skip, "{}:{}: a date and no value", path, lines.number[first]);
  const size_t width = fields.size();
  require(!header || names.size() == width, "{}:{}: {} fields, the header has {}", path, lines.number[first], width, names.size());

  RawSeries s;
  s.name = name_of_file(path);
  for (size_t c = skip; c < width; ++c) {
    s.channels.push_back(header ? names[c] : std::to_string(c - skip));
    require(std::count(s.channels.begin(), s.channels.end(), s.channels.back()) == 1, "{}: two columns are called {}", path,
            quoted_text(s.channels.back()));
  }
  s.values.resize(width - skip);
  for (std::vector<float>& v : s.values) v.reserve(lines.text.size());
  std::vector<int64_t> times;
  for (size_t i = first; i < lines.text.size(); ++i) {
    split(lines.text[i], separator, fields, unquoted);
    require(fields.size() == width, "{}:{}: {} fields, expected {}", path, lines.number[i], fields.size(), width);
    if (skip == 1) {
      const std::optional<int64_t> time = parse_time(fields[0]);
      require(time.has_value(), "{}:{}: column {}: {} is not a date", path, lines.number[i], header ? names[0] : "1", quoted_text(fields[0]));
      times.push_back(*time);
    }
    for (size_t c = skip; c < width; ++c) {
      const std::optional<double> x = number(fields[c]);
      require(x.has_value() || is_missing(fields[c]), "{}:{}: column {}: {} is not a number", path, lines.number[i], s.channels[c - skip],
              quoted_text(fields[c]));
      s.values[c - skip].push_back(x ? float(*x) : kMissing);
    }
  }
  if (!times.empty()) {
    s.start = times[0];
    const StepGuess guess = infer_step(times);
    s.step = guess.step;
    s.irregular = guess.irregular;
  }
  if (!options.freq.empty()) s.step = parse_step(options.freq);
  keep_columns(s, options.columns, path);
  return s;
}

std::vector<RawSeries> read_series_tsv(const std::string& path, const std::function<void(const std::string&)>& report) {
  const std::string text = read_text_file(path);
  const Lines lines = lines_of(text);
  std::vector<RawSeries> all;
  for (size_t i = 0; i < lines.text.size(); ++i) {
    try {
      std::vector<std::string_view> fields;
      for (std::string_view rest = lines.text[i];;) {
        const size_t end = std::min(rest.find('\t'), rest.size());
        fields.push_back(rest.substr(0, end));
        if (end == rest.size()) break;
        rest.remove_prefix(end + 1);
      }
      require(fields.size() == 4 && !fields[0].empty(), "{}:{}: {} fields, expected name, frequency, start and values", path,
              lines.number[i], fields.size());
      RawSeries s;
      s.name = std::string(fields[0]);
      s.channels = {"value"};
      s.step = parse_step(fields[1]);
      if (!fields[2].empty()) {
        const std::optional<int64_t> start = parse_time(fields[2]);
        require(start.has_value(), "{}:{}: {} is not a date", path, lines.number[i], quoted_text(fields[2]));
        s.start = *start;
      }
      std::vector<float> values;
      for (std::string_view rest = fields[3];;) {
        const size_t end = std::min(rest.find(','), rest.size());
        const std::string_view f = trimmed(rest.substr(0, end));
        const std::optional<double> x = number(f);
        require(x.has_value() || is_missing(f), "{}:{}: value {}: {} is not a number", path, lines.number[i], values.size() + 1, quoted_text(f));
        values.push_back(x ? float(*x) : kMissing);
        if (end == rest.size()) break;
        rest.remove_prefix(end + 1);
      }
      s.values = {std::move(values)};
      all.push_back(std::move(s));
    } catch (const Error& e) {
      report(e.what());
    }
  }
  require(!all.empty(), "{}: holds no series", path);
  return all;
}

}  // namespace modrwkv
