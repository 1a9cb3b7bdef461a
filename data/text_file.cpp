#include "data/text_file.h"

#include <zlib.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "core/error.h"

namespace modrwkv {
namespace {

struct Close {
  void operator()(gzFile_s* file) const { gzclose_r(file); }
};

void refuse_foreign(const std::string& path, std::string_view head) {
  using namespace std::string_view_literals;
  if (head.starts_with("PK\x03\x04"sv)) fail("{}: is a zip archive; unpack it first", path);
  if (head.starts_with("\xFD"
                       "7zXZ"sv))
    fail("{}: is xz compressed; unpack it first", path);
  if (head.starts_with("\x89HDF"sv)) fail("{}: is an HDF5 file, expected text", path);
  if (head.starts_with("\xFF\xFE"sv) || head.starts_with("\xFE\xFF"sv))
    fail("{}: is UTF-16 text, expected UTF-8", path);
}

}  // namespace

std::string read_text_file(const std::string& path, const TextLimits& limits) {
  errno = 0;
  const std::unique_ptr<gzFile_s, Close> file(gzopen(path.c_str(), "rb"));
  if (!file) fail("{}: cannot open: {}", path, errno ? strerror(errno) : "out of memory");
  gzbuffer(file.get(), 1 << 18);
  std::string text;
  uint64_t line_begin = 0;
  for (;;) {
    constexpr size_t kPiece = size_t(1) << 20;
    const size_t before = text.size();
    if (text.capacity() < before + kPiece) text.reserve(2 * text.capacity() + kPiece);
    text.resize(before + kPiece);
    const int got = gzread(file.get(), text.data() + before, kPiece);
    int code = Z_OK;
    const char* reason = gzerror(file.get(), &code);
    if (code == Z_ERRNO) fail("{}: cannot read: {}", path, strerror(errno));
    if (code == Z_BUF_ERROR) fail("{}: the gzip data is cut off", path);
    if (got < 0) fail("{}: damaged gzip data: {}", path, reason);
    text.resize(before + size_t(got));
    if (before == 0) refuse_foreign(path, text);
    if (got == 0) break;
    const char* piece = text.data() + before;
    if (memchr(piece, 0, size_t(got))) fail("{}: is not text (it holds a zero byte)", path);
    if (const void* end = memrchr(piece, '\n', size_t(got)))
      line_begin = uint64_t(static_cast<const char*>(end) + 1 - text.data());
    if (text.size() - line_begin > limits.line)
      fail("{}: is not a table: a line is longer than {} bytes", path, limits.line);
    if (text.size() > limits.file) fail("{}: holds more than {} bytes of text, the limit", path, limits.file);
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return text;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80 ? 0 : lead >= 0xC2 && lead < 0xE0 ? 1 : (lead & 0xF0) == 0xE0 ? 2 : 3;
    if (lead >= 0x80 && (lead < 0xC2 || lead > 0xF4)) return false;
    if (i + size_t(more) >= text.size()) return false;
    for (int k = 1; k <= more; ++k)
      if ((static_cast<unsigned char>(text[i + size_t(k)]) & 0xC0) != 0x80) return false;
    const auto second = more > 1 ? static_cast<unsigned char>(text[i + 1]) : 0;
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F))
      return false;  // too long; surrogates
    if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return false;
    i += size_t(more) + 1;
  }
  return true;
}

std::string latin1_to_utf8(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) {
      out += char(0xC0 | (byte >> 6));
      out += char(0x80 | (byte & 0x3F));
    } else {
      out += c;
    }
  }
  return out;
}

std::string quoted_text(std::string_view text) {
  constexpr size_t kMost = 40;
  std::string out(text.substr(0, kMost));
  const bool utf8 = is_utf8(text);
  // A cut must not leave half a character.
  if (utf8 && text.size() > kMost)
    while (!out.empty() && !is_utf8(out)) out.pop_back();
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && !utf8)) c = '?';
  }
  return "'" + out + (text.size() > kMost ? "..." : "") + "'";
}

}  // namespace modrwkv
