// Packs public formats into HDF5 data sets: import timeseries.
#include <fmt/core.h>

#include "core/error.h"
#include "core/files.h"
#include "core/hdf5.h"
#include "core/log.h"
#include "core/program.h"
#include "data/series_set.h"

using namespace modrwkv;

namespace {

struct TimeseriesOptions {
  std::vector<std::string> csv, more, columns;
  std::string tsv, out, freq, name;
  std::vector<double> split = {0.7, 0.1, 0.2};
  bool overwrite = false;

  template <class V>
  void fields(V& v) {
    v("csv", csv, "files with one column a channel, plain or gzip; each becomes a series");
    v.positional("FILE", more, "more files for --csv");
    v("tsv", tsv, "a collection: lines of name, frequency, start and comma-separated values, split by tabs");
    v("out", out, "data set to write", Required{});
    v("overwrite", overwrite, "replace --out");
    v("split", split, "training, validation and test part, in rows or as fractions");
    v("columns", columns, "columns to keep, by name or position from 0; all without it");
    v("name", name, "name of the series of one --csv file; that of the file without it");
    v("freq", freq, "step of the rows where a file has no dates: h, D, 15min, ..");
  }
};

int import_timeseries(Arguments& arguments) {
  auto o = parse_options<TimeseriesOptions>(
      arguments, "Packs series into a data set, with the statistics of their training part.");
  require(!o.csv.empty() || o.more.empty(), "unexpected argument {}; files come after --csv",
          o.more.empty() ? "" : o.more[0]);
  o.csv.insert(o.csv.end(), o.more.begin(), o.more.end());
  require(o.csv.empty() != o.tsv.empty(), "give --csv or --tsv");
  require(o.name.empty() || o.csv.size() == 1, "--name names the series of one --csv file");
  std::vector<std::string> inputs = o.csv;
  if (!o.tsv.empty()) inputs.push_back(o.tsv);
  require_other_file("--out", o.out, inputs);
  require(o.overwrite || !path_exists(o.out), "{}: exists; give --overwrite to replace it", o.out);
  require_replaceable_by_hdf5(o.out, "modrwkv.dataset", "series");
  const Split split = Split::parse(o.split);
  std::vector<RawSeries> raw;
  int64_t bad = 0;
  const std::function<void(const std::string&)> leave_out = [&](const std::string& line) {
    warn("{}", line);
    ++bad;
  };
  if (!o.tsv.empty()) raw = read_series_tsv(o.tsv, leave_out);
  for (const std::string& path : o.csv) raw.push_back(read_csv(path, {o.freq, o.columns}));
  if (!o.name.empty()) raw[0].name = o.name;
  const SeriesSet set = SeriesSet::make(std::move(raw), split, o.tsv.empty() ? nullptr : leave_out);
  set.write(o.out);
  int64_t values = 0, missing = 0;
  for (int64_t i = 0; i < set.size(); ++i) {
    const Series& s = set[i];
    values += s.raw.rows() * int64_t(s.raw.channels.size());
    missing += s.raw.missing();
    if (i >= 10) continue;  // a collection would fill the screen
    fmt::print("{}: {} rows, {} channels, step {}, parts {}, {}, {}{}\n", s.raw.name, s.raw.rows(),
               s.raw.channels.size(), s.raw.step.known() ? s.raw.step.str() : "unknown", s.train_end,
               s.val_end - s.train_end, s.test_end - s.val_end,
               s.raw.irregular > 0 ? fmt::format(", {} irregular rows", s.raw.irregular) : "");
    for (size_t c = 0; c < s.raw.channels.size() && set.size() == 1; ++c) {
      fmt::print("  {:<24} mean {:>12.4f}  std {:>12.4f}\n", s.raw.channels[c], s.mean[c], s.std[c]);
    }
  }
  if (set.size() > 10) fmt::print(".. and {} more\n", set.size() - 10);
  fmt::print("{}: {} series, {} values, {} missing{}\n", o.out, set.size(), values, missing,
             bad > 0 ? fmt::format(", {} bad series left out", bad) : "");
  return kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, [](Arguments& arguments) {
    return run_command(arguments, "Packs public formats into data sets that the trainers read.",
                       {{"timeseries", "series from CSV files or a TSV collection", import_timeseries}});
  });
}
