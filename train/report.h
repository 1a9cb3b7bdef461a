// report.html of a run: options, scores beside baselines, curves and figures in one file that needs no network
// and no script.
#pragma once
#include <string>
#include <vector>

#include "core/json.h"
#include "core/options.h"
#include "train/plot.h"

namespace modrwkv {

struct ReportTable {
  std::string title, note;           // note: one sentence below, may be empty
  std::vector<std::string> columns;  // the first is the name of a row
  struct Row {
    std::vector<std::string> cells;
    bool ours = false;  // drawn in bold
  };
  std::vector<Row> rows;
};

struct ReportFigure {
  Plot plot;
  std::string caption;
};

struct Report {
  std::string title;                  // "ETTh1, 96 hours ahead"
  std::string summary;                // one sentence under it
  std::vector<ReportTable> tables;    // scores
  std::vector<ReportFigure> figures;  // forecasts
  std::vector<Json> metrics;          // rows of metrics.jsonl: loss and learning rate curves
  std::string score = "mse";          // key of evaluation rows, drawn beside the loss
  bool log_loss = false;
  std::vector<OptionRow> options;  // of describe_options
  std::string footer;              // machine, date, command
};

// The page. Throws Error where a table's row has another number of cells than columns.
std::string make_report(const Report& report);

// Curves from rows of metrics.jsonl: rows without "eval" are steps, those with it carry `score`.
Plot loss_curve(const std::vector<Json>& metrics, const std::string& score, bool log_y);
Plot learning_rate_curve(const std::vector<Json>& metrics);

// Indices of the windows that stand at these percentiles by error, from best to worst; NaN errors are left out.
// Fewer where there are fewer windows.
std::vector<size_t> windows_at_percentiles(const std::vector<double>& errors,
                                           const std::vector<double>& percentiles);

}  // namespace modrwkv
