// metrics.jsonl of a run folder: one flat JSON object a line, each with an integer `step`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace modrwkv {

// The rows of a file in its order. A last line torn by a crash (no line end) is left out; Error "FILE:line:
// ..." on any other line that is no JSON object with a step.
std::vector<Json> read_metrics(const std::string& file);

// Appends rows. Fields keep their order, doubles read back equal, NaN and infinities become null (see Json).
class MetricsWriter {
 public:
  static MetricsWriter create(const std::string& file);  // refuses a file that is there
  // Drops rows with a step above `last_step` and a torn last line, all or nothing, then appends. Creates the
  // file where it is missing.
  static MetricsWriter resume(const std::string& file, int64_t last_step);
  MetricsWriter(MetricsWriter&& other) noexcept;
  ~MetricsWriter();

  void write(const Json& row);  // handed to the system before it returns
  void sync();                  // to the disk; before a checkpoint is committed

 private:
  MetricsWriter(std::string file, int flags);
  std::string file_;
  int fd_ = -1;
};

}  // namespace modrwkv
