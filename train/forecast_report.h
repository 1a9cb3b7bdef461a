// The report of a forecaster's run: scores beside baselines, curves, and the windows of the test part that
// stand at the 10th, 50th and 90th percentile by error.
#pragma once
#include <string>
#include <vector>

#include "core/options.h"
#include "data/series_set.h"

namespace modrwkv {

// Scores the exported model of the run folder (its model.h5) on the test part, or on the validation part where
// a set has no test rows, and writes report.html into the folder.
void write_forecast_report(const std::string& run_folder, const SeriesSet& set, const std::string& set_name,
                           int64_t season, const std::vector<OptionRow>& options);

}  // namespace modrwkv
