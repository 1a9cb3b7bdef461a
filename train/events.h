// events.out.tfevents.* of a run folder: the rows of metrics.jsonl for TensorBoard.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"

namespace modrwkv {

// CRC-32C (Castagnoli), as in RFC 3720 appendix B.4.
uint32_t crc32c(std::string_view bytes);

// One event as a TFRecord: length, its masked CRC, a tensorflow.Event with a simple_value for each number of
// the row but "step" itself, its masked CRC. A row with "eval": NAME gets the tags NAME/KEY, other rows
// train/KEY. `wall_time` in seconds since 1970.
std::string event_record(const Json& row, double wall_time);

// Appends events to the run folder's file.
class EventsWriter {
 public:
  // Makes `folder`/events.out.tfevents.TIME.HOST, or goes on with the one that is there: what is behind
  // `last_step`, torn or damaged is cut off; a link is not followed. Error "FILE: ..." where that fails.
  EventsWriter(const std::string& folder, int64_t last_step);
  EventsWriter(const EventsWriter&) = delete;
  ~EventsWriter();

  void write(const Json& row);  // with a whole number "step"
  void sync();                  // to the disk; before a checkpoint is committed

 private:
  std::string file_;
  int fd_ = -1;
};

}  // namespace modrwkv
