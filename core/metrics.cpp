// Lines of JSON that survive a crash and a resumed run.
#include "core/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "core/files.h"

namespace modrwkv {
namespace {

// Calls row(json, line text with its line end) for every complete line.
template <class Row>
void each_row(const std::string& file, std::string_view text, Row&& row) {
  int64_t line = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) return;
    const std::string where = fmt::format("{}:{}", file, ++line);
    const Json json = Json::parse(text.substr(begin, end - begin), where);
    const Json* step = json.is_object() ? json.find("step") : nullptr;
    require(step != nullptr && step->kind() == Json::Kind::integer,
            "{}: expected a JSON object with a whole number \"step\"", where);
    row(json, text.substr(begin, end + 1 - begin));
    begin = end + 1;
  }
}

}  // namespace

std::vector<Json> read_metrics(const std::string& file) {
  std::vector<Json> rows;
  each_row(file, read_file(file), [&](const Json& row, std::string_view) { rows.push_back(row); });
  return rows;
}

MetricsWriter::MetricsWriter(std::string file, int flags) : file_(std::move(file)) {
  ignore_file_size_signal();
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | flags, 0666);
  require(fd_ >= 0, "{}: cannot create: {}", file_, std::strerror(errno));
}

MetricsWriter::MetricsWriter(MetricsWriter&& other) noexcept
    : file_(std::move(other.file_)), fd_(std::exchange(other.fd_, -1)) {}

MetricsWriter::~MetricsWriter() {
  if (fd_ >= 0) ::close(fd_);
}

MetricsWriter MetricsWriter::create(const std::string& file) { return MetricsWriter(file, O_EXCL); }

MetricsWriter MetricsWriter::resume(const std::string& file, int64_t last_step) {
  if (path_exists(file)) {
    const std::string before = read_file(file);
    std::string kept;
    each_row(file, before, [&](const Json& row, std::string_view line) {
      if (row.get_int("step") <= last_step) kept += line;
    });
    if (kept != before) write_file(file, kept);
  }
  return MetricsWriter(file, 0);
}

void MetricsWriter::write(const Json& row) {
  const Json* step = row.is_object() ? row.find("step") : nullptr;
  require(step != nullptr && step->kind() == Json::Kind::integer, "{}: a row without a whole number \"step\"",
          file_);
  append_all(fd_, file_, row.dump() + "\n");
}

void MetricsWriter::sync() { require(::fsync(fd_) == 0, "{}: cannot sync: {}", file_, std::strerror(errno)); }

}  // namespace modrwkv
