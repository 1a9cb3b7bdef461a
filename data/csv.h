// Series from text: a CSV with one column a channel, and the TSV form of a collection.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/dates.h"

namespace modrwkv {

// One series of several channels that share their rows. NaN is a missing value.
struct RawSeries {
  std::string name;
  std::vector<std::string> channels;
  std::vector<std::vector<float>> values;  // [channel][row]
  int64_t start = kUnknownTime;            // of row 0
  TimeStep step;                           // unknown where no date tells
  int64_t irregular = 0;                   // rows whose distance to the row before is not the step
  int64_t rows() const { return values.empty() ? 0 : int64_t(values[0].size()); }
  int64_t missing() const;
};

struct CsvOptions {
  std::string freq;  // step of the rows where the file has no dates; "" takes it from the dates
  std::vector<std::string>
      columns;  // channels to keep, in this order, by name or else by position from 0; empty: all
};

// Comma, semicolon or tab; plain or gzip; fields may be quoted; line ends LF or CRLF. A header is detected;
// names that are not UTF-8 are read as Latin-1, and without a header they are "0", "1" ... The first column is
// a date where it is text (3/4/2013 is in March unless a later row shows that the day comes first), or where
// its name says so (date, time, timestamp, ds ..) and it holds unix seconds, milliseconds, YYYYMMDD or years;
// it is dropped where it counts the rows under such a name or none. Empty cells, NA, N/A, NaN, null and None
// are missing; every other number stays (-9999 too). Refused by one line with file, line and column: text in a
// column that is kept ("sales.csv:1043: column OT: 'abc' is not a number"), rows of another length, a name
// given twice.
RawSeries read_csv(const std::string& path, const CsvOptions& options = {});
// The same of a text in memory; `path` names it in messages, and the series.
RawSeries parse_csv(const std::string& text, const std::string& path, const CsvOptions& options = {});

// Lines "name <tab> frequency <tab> start <tab> v,v,v": a collection of series with one channel each; start may
// be empty, NaT or a number (unknown). A bad line, or one without any value, is told to `report` and left out.
std::vector<RawSeries> read_series_tsv(const std::string& path,
                                       const std::function<void(const std::string&)>& report);

}  // namespace modrwkv
