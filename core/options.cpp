// Flags, TOML keys, help, saved text and comparison from one list of fields.
#include "core/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <stdexcept>

#include "core/error.h"
#include "core/toml.h"

#ifndef MODRWKV_VERSION
#define MODRWKV_VERSION "0.1.0"
#endif

namespace modrwkv {
namespace {

// ------------------------------------------------------------------ words

constexpr size_t kShown = 60;       // bytes of a refused value in a message
constexpr size_t kHelpWidth = 100;  // columns

std::string quoted(std::string_view text) { return '"' + one_line(text, kShown) + '"'; }

std::string with_hyphens(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '_', '-');
  return key;
}

bool is_utf8(std::string_view s) {
  for (size_t i = 0; i < s.size();) {
    const unsigned char c = s[i];
    const int more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : -1;
    if (more < 0 || i + size_t(more) >= s.size()) return false;
    uint32_t code = more == 0 ? c : c & (0x3f >> more);
    for (int k = 1; k <= more; ++k) {
      if ((s[i + size_t(k)] & 0xc0) != 0x80) return false;
      code = code << 6 | (s[i + size_t(k)] & 0x3f);
    }
    constexpr uint32_t kFirst[4] = {0, 0x80, 0x800, 0x10000};
    if (code < kFirst[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += size_t(more) + 1;
  }
  return true;
}

// ------------------------------------------------------------------ types

template <class T>
struct ElementOf {
  using type = T;
  static constexpr bool list = false;
};
template <class T>
struct ElementOf<std::vector<T>> {
  using type = T;
  static constexpr bool list = true;
};

// Calls f with the pointer to the member.
template <class F>
decltype(auto) visit_target(const OptionField& field, F&& f) {
  return std::visit(std::forward<F>(f), field.target);
}

bool is_list(const OptionField& field) { return field.target.index() >= 4; }
bool is_switch(const OptionField& field) { return std::holds_alternative<bool*>(field.target); }

std::string number_text(double x) { return fmt::format("{}", x); }
std::string bound_text(double x) {  // whole numbers in full: 10000000, not 1e+07
  return x == std::floor(x) && std::abs(x) < 1e15 ? fmt::format("{:.0f}", x) : number_text(x);
}

std::string range_text(const OptionField& f) {
  const bool low = std::isfinite(f.low), high = std::isfinite(f.high);
  if (low && high) return fmt::format("from {} to {}", bound_text(f.low), bound_text(f.high));
  if (low) return "of at least " + bound_text(f.low);
  if (high) return "of at most " + bound_text(f.high);
  return "";
}

template <class T>
std::string expected(const OptionField& f) {
  if (!f.choices.empty()) return fmt::format("one of {}", fmt::join(f.choices, ", "));
  std::string text;
  if constexpr (std::is_same_v<T, bool>) text = "true or false";
  if constexpr (std::is_same_v<T, int64_t>) text = "a whole number";
  if constexpr (std::is_same_v<T, double>) text = "a number";
  if constexpr (std::is_same_v<T, std::string>) text = "a text";
  const std::string range = range_text(f);
  return range.empty() ? text : text + " " + range;
}

// Where a value comes from, for messages: "--lr" or "c.toml:3: lr".
[[noreturn]] void refuse(const std::string& where, const std::string& expectation, const std::string& came) {
  fail("{}: expected {}, got {}", where, expectation, came);
}

template <class T>
void check(const OptionField& f, const T& value, const std::string& where, const std::string& came) {
  if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
    const bool bounded = std::isfinite(f.low) || std::isfinite(f.high);
    // Written so that a NaN is out of every range.
    if (bounded && !(double(value) >= f.low && double(value) <= f.high)) refuse(where, expected<T>(f), came);
  }
  if constexpr (std::is_same_v<T, std::string>) {
    if (!f.choices.empty() && std::find(f.choices.begin(), f.choices.end(), value) == f.choices.end()) {
      const std::string near = nearest(value, f.choices);
      fail("{}: expected {}, got {}{}", where, expected<T>(f), came,
           near.empty() ? "" : "; did you mean " + near + "?");
    }
    if (!is_utf8(value)) refuse(where, "valid UTF-8", came);
  }
}

template <class T>
T from_text(const OptionField& f, std::string_view text, const std::string& where) {
  T value{};
  if constexpr (std::is_same_v<T, std::string>) value = text;
  if constexpr (std::is_same_v<T, bool>) {
    if (text != "true" && text != "false") refuse(where, expected<T>(f), quoted(text));
    value = text == "true";
  }
  if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, double>) {
    std::string_view digits = text;
    if (digits.size() > 1 && digits[0] == '+' && digits[1] != '-') digits.remove_prefix(1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse(where, expected<T>(f), quoted(text));
  }
  check(f, value, where, quoted(text));
  return value;
}

// What a value of TOML is, in the words of a message.
std::string came(const TomlScalar& scalar) {
  struct Words {
    std::string operator()(bool b) const { return b ? "true" : "false"; }
    std::string operator()(int64_t i) const { return std::to_string(i); }
    std::string operator()(double d) const { return toml_number(d); }
    std::string operator()(const std::string& s) const { return quoted(s); }
    std::string operator()(const TomlOther& other) const { return other.kind; }
  };
  return std::visit(Words{}, scalar);
}

template <class T>
T from_scalar(const OptionField& f, const TomlScalar& scalar, const std::string& where) {
  T value{};
  if (const T* exact = std::get_if<T>(&scalar)) {
    value = *exact;
  } else {
    const int64_t* whole = std::is_same_v<T, double> ? std::get_if<int64_t>(&scalar) : nullptr;
    if (whole == nullptr) refuse(where, expected<T>(f), came(scalar));
    if constexpr (std::is_same_v<T, double>) value = double(*whole);
  }
  check(f, value, where, came(scalar));
  return value;
}

void set_from_text(const OptionField& f, std::string_view text, const std::string& where) {
  visit_target(f, [&](auto* member) {
    using Member = std::remove_pointer_t<decltype(member)>;
    using T = typename ElementOf<Member>::type;
    if constexpr (ElementOf<Member>::list) {
      Member list;
      for (size_t begin = 0; !text.empty() && begin <= text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        list.push_back(from_text<T>(f, text.substr(begin, end - begin), where));
        begin = end + 1;
      }
      *member = std::move(list);
    } else {
      *member = from_text<T>(f, text, where);
    }
  });
}

void set_from_toml(const OptionField& f, const TomlEntry& entry, const std::string& where) {
  visit_target(f, [&](auto* member) {
    using Member = std::remove_pointer_t<decltype(member)>;
    using T = typename ElementOf<Member>::type;
    if constexpr (ElementOf<Member>::list) {
      if (!entry.list) refuse(where, "a list, each element " + expected<T>(f), came(entry.values[0]));
      Member list;
      for (const auto& scalar : entry.values) list.push_back(from_scalar<T>(f, scalar, where));
      *member = std::move(list);
    } else {
      if (entry.list) refuse(where, expected<T>(f), "a list");
      *member = from_scalar<T>(f, entry.values[0], where);
    }
  });
}

template <class T>
std::string element_toml(const T& value) {
  if constexpr (std::is_same_v<T, bool>)
    return value ? "true" : "false";
  else if constexpr (std::is_same_v<T, int64_t>)
    return std::to_string(value);
  else if constexpr (std::is_same_v<T, double>)
    return toml_number(value);
  else
    return toml_string(value);
}

std::string value_toml(const OptionField& f) {
  return visit_target(f, [](auto* member) {
    using Member = std::remove_pointer_t<decltype(member)>;
    if constexpr (ElementOf<Member>::list) {
      std::vector<std::string> elements;
      for (auto&& element : *member)
        elements.push_back(element_toml<typename ElementOf<Member>::type>(element));
      return fmt::format("[{}]", fmt::join(elements, ", "));
    } else {
      return element_toml(*member);
    }
  });
}

bool is_empty(const OptionField& f) {
  return visit_target(f, [](auto* member) {
    if constexpr (requires { member->empty(); })
      return member->empty();
    else
      return false;
  });
}

// A default that its own field refuses would make the saved configuration unreadable: an error of the program's
// author.
void check_default(const OptionField& f) {
  visit_target(f, [&](auto* member) {
    using Member = std::remove_pointer_t<decltype(member)>;
    using T = typename ElementOf<Member>::type;
    const std::string where = "the default of --" + f.key;
    if constexpr (ElementOf<Member>::list) {
      for (auto&& element : *member) check<T>(f, element, where, element_toml<T>(element));
    } else if (!f.required) {
      check<T>(f, *member, where, element_toml<T>(*member));
    }
  });
}

// ------------------------------------------------------------------ names

const OptionField* find(const std::vector<OptionField>& list, const std::string& key) {
  for (const auto& f : list)
    if (f.key == key) return &f;
  return nullptr;
}

std::string suggestion(const std::string& near, const char* otherwise) {
  return near.empty() ? otherwise : "; did you mean " + near + "?";
}

std::string flag_suggestion(const std::vector<OptionField>& list, const std::string& key) {
  std::vector<std::string> flags = {"--config", "--help", "--version"};
  for (const auto& f : list) {
    if (!f.label.empty()) continue;
    flags.push_back("--" + f.key);
    if (is_switch(f)) flags.push_back("--no-" + f.key);
  }
  return suggestion(nearest("--" + key, flags), "; see --help");
}

// ------------------------------------------------------------------ help

std::string placeholder(const OptionField& f) {
  if (is_switch(f)) return "";
  std::string one = "TEXT";
  if (std::holds_alternative<int64_t*>(f.target) || std::holds_alternative<std::vector<int64_t>*>(f.target))
    one = "N";
  if (std::holds_alternative<double*>(f.target) || std::holds_alternative<std::vector<double>*>(f.target))
    one = "X";
  if (std::holds_alternative<std::vector<bool>*>(f.target)) one = "true|false";
  if (!f.choices.empty()) one = fmt::format("{}", fmt::join(f.choices, "|"));
  return is_list(f) ? one + ",..." : one;
}

std::string default_text(const OptionField& f) {
  if (f.required) return "required";
  return visit_target(f, [&](auto* member) -> std::string {
    using Member = std::remove_pointer_t<decltype(member)>;
    if (is_empty(f)) return "";
    if constexpr (std::is_same_v<Member, std::string>) return "default " + *member;
    if constexpr (std::is_same_v<Member, double>) return "default " + bound_text(*member);
    if constexpr (std::is_same_v<Member, bool>) return *member ? "default on" : "";
    if constexpr (ElementOf<Member>::list) {
      std::string list = value_toml(f);
      list.erase(std::remove(list.begin(), list.end(), ' '), list.end());
      return "default " + list.substr(1, list.size() - 2);
    }
    return "default " + value_toml(f);
  });
}

// `text` in a column from `indent`, broken at blanks.
std::string wrapped(std::string_view text, size_t indent) {
  std::string out;
  const size_t width = kHelpWidth - indent;
  while (text.size() > width) {
    size_t cut = text.rfind(' ', width);
    if (cut == std::string_view::npos || cut == 0) cut = std::min(text.find(' '), text.size());
    out += std::string(text.substr(0, cut)) + "\n";
    text.remove_prefix(std::min(cut + 1, text.size()));
    if (!text.empty()) out += std::string(indent, ' ');
  }
  return text.empty() ? out : out + std::string(text) + "\n";
}

std::string help_line(const std::string& left, const std::string& right) {
  constexpr size_t kColumn = 28;
  std::string line = "  " + left;
  if (line.size() + 2 > kColumn) line += "\n" + std::string(kColumn, ' ');
  line.resize(std::max(line.size(), kColumn), ' ');
  return line + wrapped(right, kColumn);
}

std::string help_of(const OptionField& f) {
  std::vector<std::string> facts;
  if (const auto d = default_text(f); !d.empty()) facts.push_back(d);
  if (const auto r = range_text(f); !r.empty()) facts.push_back(r.substr(r.find(' ') + 1));
  std::string text = f.help;
  if (!facts.empty()) text += fmt::format(" [{}]", fmt::join(facts, ", "));
  return text;
}

std::string usage(const std::vector<OptionField>& list, const std::string& program) {
  std::string line = "usage: " + program;
  for (const auto& f : list)
    if (f.label.empty() && f.required) line += fmt::format(" --{} {}", f.key, placeholder(f));
  line += " [options]";
  for (const auto& f : list) {
    if (f.label.empty()) continue;
    const std::string label = f.label + (is_list(f) ? "..." : "");
    line += f.required ? " " + label : " [" + label + "]";
  }
  return wrapped(line, 2);
}

// ------------------------------------------------------------------ reading

void apply_toml(OptionFields& fields, const std::vector<TomlEntry>& entries, const std::string& file,
                std::set<std::string>* given) {
  std::set<std::string> seen;
  for (const auto& entry : entries) {
    const std::string key = with_hyphens(entry.key);
    const OptionField* f = find(fields.list(), key);
    const std::string at = fmt::format("{}:{}", file, entry.line);
    if (f == nullptr) {
      std::vector<std::string> keys;
      for (const auto& known : fields.list()) keys.push_back(known.key);
      fail("{}: unknown key {}{}", at, quoted(entry.key), suggestion(nearest(key, keys), "; see --help"));
    }
    require(seen.insert(key).second, "{}: {} is given twice", at, key);
    set_from_toml(*f, entry, at + ": " + key);
    if (given != nullptr) given->insert(key);
  }
}

}  // namespace

// ------------------------------------------------------------------ public

void OptionFields::add(OptionField field, std::string_view key, std::string_view label, std::string_view help) {
  field.key = with_hyphens(key);
  field.label = label;
  field.group = group_;
  field.help = help;
  if (!label.empty()) {
    for (char& c : field.key) {
      if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
      if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) c = '-';
    }
  }
  const bool legal = !field.key.empty() &&
                     field.key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  const bool reserved =
      field.key == "config" || field.key == "help" || field.key == "version" || field.key.starts_with("no-");
  if (!legal || reserved || find(list_, field.key) != nullptr)
    throw std::logic_error("options: the key " + field.key + " is illegal, reserved or defined twice");
  list_.push_back(std::move(field));
}

Arguments make_arguments(int argc, const char* const* argv) {
  Arguments arguments;
  if (argc > 0) {
    arguments.program = argv[0];
    arguments.program.erase(0, arguments.program.rfind('/') + 1);
  }
  for (int i = 1; i < argc; ++i) arguments.values.emplace_back(argv[i]);
  return arguments;
}

const char* version() { return MODRWKV_VERSION; }

std::string one_line(std::string_view text, size_t longest) {
  std::string line(text.substr(0, longest));
  // Not to end inside a UTF-8 sequence.
  if (text.size() > longest) {
    while (!line.empty() && (line.back() & 0xc0) == 0x80) line.pop_back();
    if (!line.empty() && (line.back() & 0x80)) line.pop_back();
  }
  for (char& c : line)
    if ((unsigned char)c < 32 || c == 127) c = ' ';
  if (!is_utf8(line))
    for (char& c : line)
      if (c & 0x80) c = '?';
  return text.size() > longest ? line + "..." : line;
}

std::string nearest(std::string_view name, const std::vector<std::string>& names) {
  std::string best;
  size_t least = std::max<size_t>(2, std::min<size_t>(name.size(), 64) / 3) + 1;
  for (const auto& other : names) {
    if (name.size() > other.size() + least || other.size() > name.size() + least) continue;
    // Edit distance in which two neighbours that change places count once (optimal string alignment).
    std::vector<std::vector<size_t>> d(name.size() + 1, std::vector<size_t>(other.size() + 1));
    for (size_t i = 0; i <= name.size(); ++i) {
      for (size_t j = 0; j <= other.size(); ++j) {
        if (i == 0 || j == 0) {
          d[i][j] = i + j;
          continue;
        }
        d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (name[i - 1] != other[j - 1])});
        if (i > 1 && j > 1 && name[i - 1] == other[j - 2] && name[i - 2] == other[j - 1])
          d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
    if (d.back().back() < least) {
      least = d.back().back();
      best = other;
    }
  }
  return best;
}

namespace detail {

std::string help(OptionFields& fields, const std::string& program, std::string_view sentence) {
  const auto& list = fields.list();
  for (const auto& f : list) check_default(f);
  std::string text = usage(list, program) + "\n" + wrapped(sentence, 0);
  std::string group;
  for (const auto& f : list) {
    if (f.label.empty()) continue;
    if (group.empty()) text += "\narguments\n";
    group = "arguments";
    text += help_line(f.label + (is_list(f) ? "..." : ""), help_of(f));
  }
  std::vector<std::string> groups;
  for (const auto& f : list)
    if (f.label.empty() && std::find(groups.begin(), groups.end(), f.group) == groups.end())
      groups.push_back(f.group);
  for (const auto& title : groups) {
    text += "\n" + title + "\n";
    for (const auto& f : list) {
      if (!f.label.empty() || f.group != title) continue;
      const std::string value = placeholder(f);
      text +=
          help_line((is_switch(f) ? "--[no-]" : "--") + f.key + (value.empty() ? "" : " " + value), help_of(f));
    }
  }
  text += "\ngeneral\n";
  text += help_line("--config FILE", "TOML file with any of these keys; the command line wins over it");
  text += help_line("--help", "this text");
  text += help_line("--version", "version of the program");
  return text;
}

void read(OptionFields& fields, std::string_view toml, const std::string& file) {
  for (const auto& f : fields.list()) check_default(f);
  apply_toml(fields, parse_toml(toml, file), file, nullptr);
}

void parse(OptionFields& fields, const Arguments& arguments, std::string_view sentence) {
  const auto& list = fields.list();
  for (const auto& f : list) check_default(f);
  const auto& values = arguments.values;
  const auto end_of_flags = std::find(values.begin(), values.end(), "--");
  const auto asks = [&](const char* flag) {
    return std::find(values.begin(), end_of_flags, flag) != end_of_flags;
  };
  if (asks("--help") || asks("-h")) throw Answer{help(fields, arguments.program, sentence)};
  if (asks("--version")) throw Answer{fmt::format("{} (ModRWKV) {}\n", arguments.program, version())};

  struct Given {
    const OptionField* field;
    std::string text, where;
  };
  std::vector<Given> flags;
  std::vector<std::string> loose;
  std::set<std::string> seen;
  std::string config;
  bool only_loose = false;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string& word = values[i];
    if (!only_loose && word == "--") {
      only_loose = true;
      continue;
    }
    const bool negative =
        word.size() > 1 && word[0] == '-' && (word[1] == '.' || (word[1] >= '0' && word[1] <= '9'));
    if (only_loose || word.size() < 2 || word[0] != '-' || negative) {
      loose.push_back(word);
      continue;
    }
    require(word[1] == '-', "unknown flag {}; flags have two hyphens, see --help", one_line(word, kShown));
    const size_t equals = word.find('=');
    const std::string written = word.substr(0, equals);
    std::string key = with_hyphens(std::string_view(written).substr(2));
    const OptionField* f = find(list, key);
    bool off = false;
    if (f == nullptr && key.starts_with("no-")) {
      f = find(list, key.substr(3));
      off = f != nullptr && is_switch(*f);
      if (off)
        key = f->key;
      else
        f = nullptr;
    }
    const bool is_config = key == "config";
    if (!is_config && (f == nullptr || !f->label.empty()))
      fail("unknown flag {}{}", one_line(written, kShown), flag_suggestion(list, key));
    require(seen.insert(key).second, "--{} is given twice", key);
    std::string text;
    if (equals != std::string::npos) {
      require(!off, "{} takes no value; write --{}=true or --{}=false", written, key, key);
      text = word.substr(equals + 1);
    } else if (f != nullptr && is_switch(*f)) {
      text = off ? "false" : "true";
    } else {
      const bool missing = i + 1 == values.size() || values[i + 1].starts_with("--");
      require(!missing, "--{} needs a value: {}", key, is_config ? "a TOML file" : f->help);
      text = values[++i];
    }
    if (is_config)
      config = text;
    else
      flags.push_back({f, text, "--" + key});
  }
  require(!seen.contains("config") || !config.empty(), "--config needs a value: a TOML file");

  std::vector<std::string>::const_iterator next = loose.begin();
  std::set<std::string> from_config;
  if (!config.empty()) apply_toml(fields, read_toml(config), config, &from_config);
  for (const auto& g : flags) set_from_text(*g.field, g.text, g.where);
  for (const auto& f : list) {
    if (f.label.empty() || next == loose.end()) continue;
    seen.insert(f.key);
    if (!is_list(f)) {
      set_from_text(f, *next++, f.label);
      continue;
    }
    visit_target(f, [&](auto* member) {
      using Member = std::remove_pointer_t<decltype(member)>;
      if constexpr (ElementOf<Member>::list) {
        member->clear();
        while (next != loose.end())
          member->push_back(from_text<typename ElementOf<Member>::type>(f, *next++, f.label));
      }
    });
  }
  if (next != loose.end()) {
    const bool word = *next == "true" || *next == "false";
    fail("unexpected argument {}; see --help{}", quoted(*next),
         word ? " (a switch takes its value as --flag=false)" : "");
  }
  for (const auto& f : list) {
    if (!f.required) continue;
    const std::string name = f.label.empty() ? "--" + f.key : f.label;
    require(seen.contains(f.key) || from_config.contains(f.key), "{} is required: {}", name, f.help);
    require(!is_empty(f), "{} must not be empty: {}", name, f.help);
  }
}

std::string to_toml(OptionFields& fields) {
  std::string text, group;
  for (const auto& f : fields.list()) {
    if (f.group != group)
      text += fmt::format("{}# {}\n", text.empty() ? "" : "\n", one_line(group = f.group, kShown));
    text += fmt::format("{} = {}\n", f.key, value_toml(f));
  }
  return text;
}

std::vector<OptionDifference> differences(OptionFields& before, OptionFields& after) {
  std::vector<OptionDifference> out;
  for (size_t i = 0; i < before.list().size(); ++i) {
    const OptionField &a = before.list()[i], &b = after.list()[i];
    const std::string x = value_toml(a), y = value_toml(b);
    if (x != y) out.push_back({a.key, x, y, a.resumable});
  }
  return out;
}

std::vector<OptionRow> describe(OptionFields& now, OptionFields& defaults) {
  std::vector<OptionRow> rows;
  for (size_t i = 0; i < now.list().size(); ++i) {
    const OptionField& f = now.list()[i];
    const std::string value = value_toml(f);
    rows.push_back({f.group, f.key, value, f.help, value == value_toml(defaults.list()[i])});
  }
  return rows;
}

}  // namespace detail

int run_command(Arguments& arguments, std::string_view sentence, const std::vector<Command>& commands) {
  std::vector<std::string> names;
  for (const auto& c : commands) names.push_back(c.name);
  const std::string listed = fmt::format("{}", fmt::join(names, ", "));
  require(!arguments.values.empty(), "expected a command: one of {}; see --help", listed);
  const std::string name = arguments.values[0];
  if (name == "--help" || name == "-h") {
    std::string text =
        fmt::format("usage: {} COMMAND [options]\n\n{}\ncommands\n", arguments.program, wrapped(sentence, 0));
    for (const auto& c : commands) text += help_line(c.name, c.sentence);
    throw Answer{text +
                 fmt::format("\n{} COMMAND --help lists the options of a command.\n", arguments.program)};
  }
  if (name == "--version") throw Answer{fmt::format("{} (ModRWKV) {}\n", arguments.program, version())};
  for (const auto& c : commands) {
    if (c.name != name) continue;
    arguments.program += " " + name;
    arguments.values.erase(arguments.values.begin());
    return c.run(arguments);
  }
  fail("unknown command {}{}", quoted(name),
       suggestion(nearest(name, names), fmt::format("; expected one of {}", listed).c_str()));
}

}  // namespace modrwkv
