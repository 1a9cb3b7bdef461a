// Whole text files, plain or gzip (told by content, not by name), made safe to parse.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace modrwkv {

struct TextLimits {
  uint64_t file = uint64_t(2) << 30;   // bytes of text, after unpacking
  uint64_t line = uint64_t(64) << 20;  // bytes of one line
};

// The text without a byte order mark. Refuses, by one line that begins with the path: what cannot be read,
// damaged or cut gzip data, UTF-16, binary content (a zero byte) and what is beyond the limits; it stops
// reading at the first of these.
std::string read_text_file(const std::string& path, const TextLimits& limits = {});

bool is_utf8(std::string_view text);
std::string latin1_to_utf8(std::string_view text);
// For messages: at most 40 bytes, without control characters, valid UTF-8, in single quotes.
std::string quoted_text(std::string_view text);

}  // namespace modrwkv
