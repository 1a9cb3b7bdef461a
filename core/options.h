// Options of a program: one struct, one definition of each field.
//
//   struct TrainOptions {
//     std::string out;  int64_t steps = 1000;  double lr = 4e-4;  std::string schedule = "cosine";
//     template <class V> void fields(V& v) {
//       v.group("training");
//       v("out", out, "run folder", Required{});
//       v("steps", steps, "optimiser steps", AtLeast{1}, Resumable{});
//       v("lr", lr, "peak learning rate", Range{0, 1});
//       v("schedule", schedule, "course of the learning rate", Choices{"constant", "cosine", "wsd"});
//     }
//   };
//   const auto options = parse_options<TrainOptions>(arguments, "Trains a forecaster on a packed set of
//   series.");
//
// From it come the flags (--lr 1e-3, --lr=1e-3, --resume / --no-resume / --resume=false, lists --split
// 8640,2880,2880), the keys of
// --config FILE.toml (arrays for lists), --help, --version, the text that options_to_toml writes and --config
// reads back exactly, and option_differences(). Order of force: defaults, --config, command line. Keys may be
// written with hyphens or underscores. Types: bool, int64_t, double, std::string and std::vector of these; a
// choice is a string. An element of a list that contains a comma, or is the only one and empty, can be given in
// TOML only. Every refusal is one Error of one line, without the program's name (run_program prints that).
#pragma once
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace modrwkv {

// ------------------------------------------------------------------ marks of a field

struct Range {  // inclusive; for lists of each element
  template <class Low, class High>
  constexpr Range(Low l, High h) : low(double(l)), high(double(h)) {}
  double low, high;
};
struct AtLeast {
  template <class Low>
  constexpr explicit AtLeast(Low l) : low(double(l)) {}
  double low;
};
struct Choices {  // for lists of each element
  Choices(std::initializer_list<std::string> n) : names(n) {}
  explicit Choices(std::vector<std::string> n) : names(std::move(n)) {}
  std::vector<std::string> names;
};
struct Required {};   // must be given, and not empty
struct Resumable {};  // may change when a run is resumed

// ------------------------------------------------------------------ the registry behind the struct

using OptionTarget = std::variant<bool*, int64_t*, double*, std::string*, std::vector<bool>*,
                                  std::vector<int64_t>*, std::vector<double>*, std::vector<std::string>*>;

struct OptionField {
  std::string key;    // with hyphens
  std::string label;  // positional arguments only: the name in the usage line
  std::string group, help;
  OptionTarget target;
  bool required = false, resumable = false;
  double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices;
};

// The V of fields(V& v).
class OptionFields {
 public:
  template <class T, class... Marks>
  void operator()(std::string_view key, T& member, std::string_view help, const Marks&... marks) {
    OptionField field;
    field.target = &member;
    (mark(field, marks), ...);
    add(std::move(field), key, "", help);
  }
  // An argument without a flag, in the order of their definition; a list takes all that are left. Its key in
  // TOML is `name` in lower case with hyphens.
  template <class T, class... Marks>
  void positional(std::string_view name, T& member, std::string_view help, const Marks&... marks) {
    OptionField field;
    field.target = &member;
    (mark(field, marks), ...);
    add(std::move(field), name, name, help);
  }
  void group(std::string_view title) { group_ = title; }  // of the fields that follow
  std::vector<OptionField>& list() { return list_; }

 private:
  static void mark(OptionField& f, const Range& r) { f.low = r.low, f.high = r.high; }
  static void mark(OptionField& f, const AtLeast& a) { f.low = a.low; }
  static void mark(OptionField& f, const Choices& c) { f.choices = c.names; }
  static void mark(OptionField& f, const Required&) { f.required = true; }
  static void mark(OptionField& f, const Resumable&) { f.resumable = true; }
  void add(OptionField field, std::string_view key, std::string_view label, std::string_view help);
  std::vector<OptionField> list_;
  std::string group_ = "options";
};

struct Arguments {
  std::string program;              // for messages: "train_text", "import timeseries"
  std::vector<std::string> values;  // without the program's name
};
Arguments make_arguments(int argc, const char* const* argv);

// Thrown for --help and --version: `text` belongs on standard output, and the program ends with exit code 0.
struct Answer {
  std::string text;
};

struct OptionDifference {
  std::string key, before, after;  // values as in TOML
  bool resumable = false;
};
struct OptionRow {  // for tables
  std::string group, key, value, help;
  bool is_default = false;
};

const char* version();
std::string one_line(std::string_view text, size_t longest);  // control characters as spaces, cut with "..."
std::string nearest(std::string_view name, const std::vector<std::string>& names);  // empty where none is near

namespace detail {
void parse(OptionFields& fields, const Arguments& arguments, std::string_view sentence);
void read(OptionFields& fields, std::string_view toml, const std::string& file);
std::string help(OptionFields& fields, const std::string& program, std::string_view sentence);
std::string to_toml(OptionFields& fields);
std::vector<OptionDifference> differences(OptionFields& before, OptionFields& after);
std::vector<OptionRow> describe(OptionFields& now, OptionFields& defaults);
template <class Options>
OptionFields fields_of(Options& options) {
  OptionFields fields;
  options.fields(fields);
  return fields;
}
}  // namespace detail

// ------------------------------------------------------------------ what a program calls

template <class Options>
Options parse_options(const Arguments& arguments, std::string_view sentence) {
  Options options;
  auto fields = detail::fields_of(options);
  detail::parse(fields, arguments, sentence);
  return options;
}

template <class Options>
std::string options_to_toml(Options options) {  // the whole effective configuration
  auto fields = detail::fields_of(options);
  return detail::to_toml(fields);
}

template <class Options>
Options options_from_toml(std::string_view toml,
                          const std::string& file) {  // `file` names the text in messages
  Options options;
  auto fields = detail::fields_of(options);
  detail::read(fields, toml, file);
  return options;
}

// The keys in which two configurations differ. A resumed run refuses those that are not resumable.
template <class Options>
std::vector<OptionDifference> option_differences(Options before, Options after) {
  auto a = detail::fields_of(before), b = detail::fields_of(after);
  return detail::differences(a, b);
}

template <class Options>
std::vector<OptionRow> describe_options(Options options) {
  Options defaults;
  auto a = detail::fields_of(options), b = detail::fields_of(defaults);
  return detail::describe(a, b);
}

template <class Options>
std::string options_help(const std::string& program, std::string_view sentence) {
  Options options;
  auto fields = detail::fields_of(options);
  return detail::help(fields, program, sentence);
}

// ------------------------------------------------------------------ programs made of commands

struct Command {
  std::string name, sentence;
  int (*run)(Arguments& arguments);
};
// Runs the command named by the first argument; arguments.program becomes "program command".
int run_command(Arguments& arguments, std::string_view sentence, const std::vector<Command>& commands);

}  // namespace modrwkv
