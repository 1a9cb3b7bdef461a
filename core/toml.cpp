// toml++ behind a small interface: it takes seconds to compile and is included nowhere else.
#include "core/toml.h"

#include <stdexcept>

// toml++ 3.3 meets some broken texts ("[=" for one) with an assertion: those must be refusals, not the end of
// the process.
namespace modrwkv::detail {
[[noreturn, gnu::noinline]] void toml_broken() { throw std::logic_error("broken key or value"); }
}  // namespace modrwkv::detail
#undef NDEBUG
#define TOML_ASSERT(condition) ((condition) ? void() : modrwkv::detail::toml_broken())
#ifndef TOML_HEADER_ONLY
#define TOML_HEADER_ONLY 1
#endif
#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

#include "core/error.h"
#include "core/files.h"

namespace modrwkv {
namespace {

constexpr size_t kLongest = 1 << 20;  // bytes; a configuration is a page of text

std::string one_line(std::string_view text) {
  std::string line;
  for (const char c : text) line += (unsigned char)c < 32 || c == 127 ? ' ' : c;
  return line;
}

std::string kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::date:
      return "a date";
    case toml::node_type::time:
      return "a time";
    case toml::node_type::date_time:
      return "a date and time";
    default:
      return "an unknown kind of value";
  }
}

TomlScalar scalar_of(const toml::node& node) {
  if (const auto* b = node.as_boolean()) return b->get();
  if (const auto* i = node.as_integer()) return i->get();
  if (const auto* d = node.as_floating_point()) return d->get();
  if (const auto* s = node.as_string()) return s->get();
  return TomlOther{kind_of(node)};
}

}  // namespace

std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file) {
  require(text.size() <= kLongest, "{}: {} bytes, a configuration has at most {}", file, text.size(), kLongest);
  toml::table table;
  try {
    table = toml::parse(text, file);
  } catch (const toml::parse_error& e) {
    fail("{}:{}: {}", file, e.source().begin.line, one_line(e.description()));
  } catch (const std::logic_error& e) {
    fail("{}: not TOML: {}", file, e.what());
  }
  std::vector<TomlEntry> entries;
  for (const auto& [key, node] : table) {
    TomlEntry entry{std::string(key.str()), int64_t(node.source().begin.line), false, {}};
    if (const auto* array = node.as_array()) {
      entry.list = true;
      for (const auto& element : *array) entry.values.push_back(scalar_of(element));
    } else {
      entry.values.push_back(scalar_of(node));
    }
    entries.push_back(std::move(entry));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TomlEntry& a, const TomlEntry& b) { return a.line < b.line; });
  return entries;
}

std::vector<TomlEntry> read_toml(const std::string& file) {
  return parse_toml(read_file(file, kLongest), file);
}

std::string toml_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if ((unsigned char)c < 32 || c == 127) {
      out += fmt::format("\\u{:04X}", int((unsigned char)c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string toml_number(double value) {
  std::string text = fmt::format("{}", value);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

}  // namespace modrwkv
