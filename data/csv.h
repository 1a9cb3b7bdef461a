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
  std::string freq;                  // step of the rows where the file has no dates; "" takes it from the dates
  std::vector<std::string> columns;  // names to keep, in this order; empty: all
};

// Comma, semicolon or tab; plain or gzip; with or without a header; the first column is a date where it is no number. Fields may
// be quoted; line ends LF or CRLF; names that are not UTF-8 are read as Latin-1. Empty cells, NA, N/A, NaN and null are
// missing. Refused by one line with file, line and column: text in a number column, rows of another length, a name given twice.
RawSeries read_csv(const std::string& path, const CsvOptions& options = {});

// Lines "name <tab> frequency <tab> start <tab> v,v,v": a collection of series with one channel each. A bad line is told to `report`
// and left out.
std::vector<RawSeries> read_series_tsv(const std::string& path, const std::function<void(const std::string&)>& report);

}  // namespace modrwkv
