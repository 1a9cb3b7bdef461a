// Reads flat TOML: keys with scalars or lists of scalars. The one place that includes toml++ is toml.cpp.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace modrwkv {

// A kind that no option has (a date, a table, a list in a list), by its name.
struct TomlOther {
  std::string kind;
};
using TomlScalar = std::variant<bool, int64_t, double, std::string, TomlOther>;

struct TomlEntry {
  std::string key;
  int64_t line = 0;   // from 1
  bool list = false;  // else `values` holds exactly one
  std::vector<TomlScalar> values;
};

// The entries in the order of the text. `file` is the name for messages. Throws Error with one line "file:line:
// ..." where the text is not TOML (a key given twice and broken UTF-8 included) or longer than 1 MiB.
std::vector<TomlEntry> parse_toml(std::string_view text, const std::string& file);
std::vector<TomlEntry> read_toml(const std::string& file);

std::string toml_string(std::string_view text);  // quoted and escaped
std::string toml_number(double value);  // shortest text that reads back as the same double, always a TOML float

}  // namespace modrwkv
