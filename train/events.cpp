// TensorBoard's file format by hand: four fields of two messages are less than a dependency on protobuf.
#include "train/events.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/error.h"
#include "core/files.h"

namespace modrwkv {
namespace {

constexpr const char* kPrefix = "events.out.tfevents.";
constexpr size_t kHeader = 12, kFooter = 4;  // of a record: length and its CRC; the data's CRC

// Field numbers and wire types of tensorflow's event.proto and summary.proto, as (number << 3 | type).
constexpr char kWallTime = 1 << 3 | 1, kStep = 2 << 3, kFileVersion = 3 << 3 | 2, kSummary = 5 << 3 | 2;
constexpr char kValue = 1 << 3 | 2, kTag = 1 << 3 | 2, kSimpleValue = 2 << 3 | 5;

template <class T>
void put(std::string& out, T value) {  // little-endian, as every machine that is built for
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += char(value | 128);
  out += char(value);
}

void put_bytes(std::string& out, char field, std::string_view bytes) {
  out += field;
  put_varint(out, bytes.size());
  out += bytes;
}

template <class T>
T get(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

std::string record_of(std::string_view event) {
  std::string record;
  put<uint64_t>(record, event.size());
  put(record, masked_crc(record));
  record += event;
  put(record, masked_crc(event));
  return record;
}

std::string event_at(double wall_time, int64_t step) {
  std::string event(1, kWallTime);
  put(event, wall_time);
  event += kStep;
  put_varint(event, uint64_t(step));
  return event;
}

// The step of an event as event_at() begins it; 0 of the first one, which has none.
int64_t step_of(std::string_view event) {
  uint64_t step = 0;
  if (event.size() > 9 && event[9] == kStep) {
    for (size_t i = 10, shift = 0; i < event.size() && shift < 64; ++i, shift += 7) {
      step |= uint64_t(event[i] & 127) << shift;
      if ((event[i] & 128) == 0) break;
    }
  }
  return int64_t(step);
}

// The length of the leading records that are whole and not behind last_step.
size_t kept_bytes(std::string_view file, int64_t last_step) {
  size_t at = 0;
  while (file.size() - at >= kHeader + kFooter) {
    const auto length = get<uint64_t>(file, at);
    if (get<uint32_t>(file, at + 8) != masked_crc(file.substr(at, 8))) break;
    if (length > file.size() - at - kHeader - kFooter) break;
    const std::string_view event = file.substr(at + kHeader, length);
    if (get<uint32_t>(file, at + kHeader + length) != masked_crc(event) || step_of(event) > last_step) break;
    at += kHeader + length + kFooter;
  }
  return at;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> t;
    for (uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0x82f63b78u : 0);
    }
    return t;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = table[(crc ^ uint8_t(c)) & 255] ^ crc >> 8;
  return ~crc;
}

std::string event_record(const Json& row, double wall_time) {
  const Json* eval = row.find("eval");
  const std::string group = eval != nullptr ? eval->as_string() : "train";
  std::string summary;
  for (const auto& [key, value] : row.members()) {
    if (key == "step" || !value.is_number()) continue;
    std::string entry;
    put_bytes(entry, kTag, group + "/" + key);
    entry += kSimpleValue;
    put(entry, float(value.as_double()));
    put_bytes(summary, kValue, entry);
  }
  std::string event = event_at(wall_time, row.get_int("step"));
  put_bytes(event, kSummary, summary);
  return record_of(event);
}

EventsWriter::EventsWriter(const std::string& folder, int64_t last_step) {
  for (const std::string& name : list_directory(folder)) {
    if (name.starts_with(kPrefix)) file_ = join_path(folder, name);
  }
  if (file_.empty()) {
    char host[256] = "localhost";
    gethostname(host, sizeof host - 1);
    file_ = join_path(folder, kPrefix + std::to_string(int64_t(now())) + "." + host);
  }
  const std::string before = path_exists(file_) ? read_file(file_) : "";
  ignore_file_size_signal();
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
  require(fd_ >= 0, "{}: cannot create: {}", file_, std::strerror(errno));
  const size_t kept = kept_bytes(before, last_step);
  require(::ftruncate(fd_, off_t(kept)) == 0, "{}: cannot shorten: {}", file_, std::strerror(errno));
  if (kept == 0) {
    std::string event(1, kWallTime);
    put(event, now());
    put_bytes(event, kFileVersion, "brain.Event:2");
    append_all(fd_, file_, record_of(event));
  }
}

EventsWriter::~EventsWriter() {
  if (fd_ >= 0) ::close(fd_);
}

void EventsWriter::write(const Json& row) { append_all(fd_, file_, event_record(row, now())); }

void EventsWriter::sync() { require(::fsync(fd_) == 0, "{}: cannot sync: {}", file_, std::strerror(errno)); }

}  // namespace modrwkv
