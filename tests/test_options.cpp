// Options: flags, TOML, help and saved text from one definition; every refusal is one line that names the
// option.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>

#include "core/error.h"
#include "core/files.h"
#include "core/options.h"
#include "core/program.h"

namespace modrwkv {
namespace {

struct Basic {
  std::string data, out = "runs/x", schedule = "cosine";
  int64_t steps = 1000, seed = 0;
  double learning_rate = 4e-4;
  bool resume = false, shuffle = true;
  std::vector<double> split = {0.6, 0.2, 0.2};
  std::vector<int64_t> dilations;
  std::vector<std::string> names;
  std::vector<bool> mask;
  template <class V>
  void fields(V& v) {
    v.group("files");
    v("data", data, "packed set", Required{});
    v("out", out, "run folder", Resumable{});
    v.group("training");
    v("schedule", schedule, "course of the learning rate", Choices{"constant", "cosine", "wsd"});
    v("steps", steps, "optimiser steps", Range{1, 65536}, Resumable{});
    v("seed", seed, "of all random numbers", AtLeast{0});
    v("learning_rate", learning_rate, "peak", Range{0, 1});
    v("resume", resume, "go on");
    v("shuffle", shuffle, "draw at random");
    v("split", split, "rows or fractions", AtLeast{0});
    v("dilations", dilations, "of convolutions");
    v("names", names, "of channels");
    v("mask", mask, "of channels");
  }
};

Arguments words(std::vector<std::string> values) { return {"train", std::move(values)}; }

template <class Options = Basic>
Options given(std::vector<std::string> values) {
  return parse_options<Options>(words(std::move(values)), "Trains.");
}

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 400u) << message;
    return message;
  }
  return "(accepted)";
}

std::string refused(std::vector<std::string> values) {
  values.insert(values.begin(), "--data=d.h5");
  return refusal([&] { given(values); });
}

std::string refused_toml(const std::string& text) {
  return refusal([&] { options_from_toml<Basic>(text, "c.toml"); });
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& text) {
    path = testing::TempDir() + "options_" + std::to_string(std::random_device{}()) + ".toml";
    write_file(path, text);
  }
  ~TemporaryFile() { std::remove(path.c_str()); }
  std::string path;
};

TEST(Options, FlagsOfEveryForm) {
  const auto o = given({"--data", "d.h5", "--steps=12", "--learning-rate", "1e-3", "--schedule", "wsd",
                        "--resume", "--no-shuffle", "--split", "8640,2880,2880", "--dilations=-1,+2", "--names",
                        "a,,b", "--mask", "true,false", "--seed", "9223372036854775807"});
  EXPECT_EQ(o.data, "d.h5");
  EXPECT_EQ(o.steps, 12);
  EXPECT_EQ(o.learning_rate, 1e-3);
  EXPECT_EQ(o.schedule, "wsd");
  EXPECT_TRUE(o.resume);
  EXPECT_FALSE(o.shuffle);
  EXPECT_EQ(o.split, (std::vector<double>{8640, 2880, 2880}));
  EXPECT_EQ(o.dilations, (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(o.names, (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(o.mask, (std::vector<bool>{true, false}));
  EXPECT_EQ(o.seed, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(o.out, "runs/x");
  EXPECT_EQ(given({"--data=x", "--learning_rate=.5"}).learning_rate, 0.5);
  EXPECT_FALSE(given({"--data=x", "--shuffle=false"}).shuffle);
  EXPECT_EQ(given({"--data=a=b"}).data, "a=b");
  EXPECT_EQ(given({"--data=x", "--out="}).out, "");
  EXPECT_EQ(given({"--data=--x"}).data, "--x");
  EXPECT_TRUE(given({"--data=x", "--split="}).split.empty());
}

TEST(Options, RefusalsOfTheCommandLineNameFlagValueAndExpectation) {
  EXPECT_EQ(refused({"--lerning-rate", "3"}), "unknown flag --lerning-rate; did you mean --learning-rate?");
  EXPECT_EQ(refused({"--zzzzzzzzz"}), "unknown flag --zzzzzzzzz; see --help");
  EXPECT_EQ(refused({"--no-shufle"}), "unknown flag --no-shufle; did you mean --no-shuffle?");
  EXPECT_EQ(refused({"--no-steps"}), "unknown flag --no-steps; did you mean --steps?");
  EXPECT_EQ(refused({"--steps", "0"}), "--steps: expected a whole number from 1 to 65536, got \"0\"");
  EXPECT_EQ(refused({"--steps", "65537"}), "--steps: expected a whole number from 1 to 65536, got \"65537\"");
  for (const char* text : {"1e4", "1.0", "", " 1", "1 ", "0x10", "99999999999999999999", "1,2", "+-1", "nan"})
    EXPECT_EQ(refused({std::string("--steps=") + text}),
              "--steps: expected a whole number from 1 to 65536, got \"" + std::string(text) + "\"");
  for (const char* text : {"nan", "1.5", "-1e-9", "inf", "", "x", "0,1", "1e999", "0.5f"})
    EXPECT_EQ(refused({std::string("--learning-rate=") + text}),
              "--learning-rate: expected a number from 0 to 1, got \"" + std::string(text) + "\"");
  EXPECT_EQ(refused({"--schedule", "cosin"}),
            "--schedule: expected one of constant, cosine, wsd, got \"cosin\"; did you mean cosine?");
  EXPECT_EQ(refused({"--resume=maybe"}), "--resume: expected true or false, got \"maybe\"");
  EXPECT_EQ(refused({"--no-resume=true"}), "--no-resume takes no value; write --resume=true or --resume=false");
  EXPECT_EQ(refused({"--split", "1,x"}), "--split: expected a number of at least 0, got \"x\"");
  EXPECT_EQ(refused({"--split", "1,"}), "--split: expected a number of at least 0, got \"\"");
  EXPECT_EQ(refused({"--steps", "1", "--steps=1"}), "--steps is given twice");
  EXPECT_EQ(refused({"--resume", "--no-resume"}), "--resume is given twice");
  EXPECT_EQ(refused({"--learning-rate=0", "--learning_rate=0"}), "--learning-rate is given twice");
  EXPECT_EQ(refused({"--steps"}), "--steps needs a value: optimiser steps");
  EXPECT_EQ(refused({"--out", "--resume"}), "--out needs a value: run folder");
  EXPECT_EQ(refused({"--config"}), "--config needs a value: a TOML file");
  EXPECT_EQ(refused({"--config="}), "--config needs a value: a TOML file");
  EXPECT_EQ(refused({"file.csv"}), "unexpected argument \"file.csv\"; see --help");
  EXPECT_EQ(refused({"--resume", "true"}),
            "unexpected argument \"true\"; see --help (a switch takes its value as --flag=false)");
  EXPECT_EQ(refused({"-x"}), "unknown flag -x; flags have two hyphens, see --help");
  EXPECT_EQ(refused({"--out=\xff\xfe"}), "--out: expected valid UTF-8, got \"??\"");
  EXPECT_EQ(refused({"--a\nb"}), "unknown flag --a b; see --help");
  EXPECT_EQ(refused({"--steps=" + std::string(5000, '7')}),
            "--steps: expected a whole number from 1 to 65536, got \"" + std::string(60, '7') + "...\"");
  EXPECT_EQ(refusal([] { given({}); }), "--data is required: packed set");
  EXPECT_EQ(refusal([] { given({"--data="}); }), "--data must not be empty: packed set");
}

TEST(Options, CommandLineWinsOverConfigWinsOverDefaults) {
  const TemporaryFile config("data = 'c.h5'\nsteps = 7\nlearning_rate = 1\nresume = true\nsplit = [1, 2.5]\n");
  const auto o = given({"--config", config.path, "--steps", "9", "--no-resume"});
  EXPECT_EQ(o.data, "c.h5");  // satisfies Required
  EXPECT_EQ(o.steps, 9);
  EXPECT_EQ(o.learning_rate, 1);
  EXPECT_FALSE(o.resume);
  EXPECT_EQ(o.split, (std::vector<double>{1, 2.5}));
  EXPECT_EQ(o.seed, 0);
  EXPECT_EQ(given({"--steps=9", "--no-resume", "--config=" + config.path}).steps, 9);  // whatever the order
  EXPECT_EQ(refusal([] { given({"--config", "no/such.toml"}); }).find("no/such.toml: "), 0u);
  EXPECT_EQ(refusal([] { given({"--config", testing::TempDir()}); }).find(testing::TempDir()), 0u);
}

TEST(Options, HostileTomlIsRefusedInOneLine) {
  EXPECT_EQ(refused_toml("steps = 3\nlerning-rate = 1\n"),
            "c.toml:2: unknown key \"lerning-rate\"; did you mean learning-rate?");
  EXPECT_EQ(refused_toml("\nsteps = '3'"),
            "c.toml:2: steps: expected a whole number from 1 to 65536, got \"3\"");
  EXPECT_EQ(refused_toml("steps = 3.0"), "c.toml:1: steps: expected a whole number from 1 to 65536, got 3.0");
  EXPECT_EQ(refused_toml("steps = true"), "c.toml:1: steps: expected a whole number from 1 to 65536, got true");
  EXPECT_EQ(refused_toml("steps = [3]"),
            "c.toml:1: steps: expected a whole number from 1 to 65536, got a list");
  EXPECT_EQ(refused_toml("steps = 1979-05-27"),
            "c.toml:1: steps: expected a whole number from 1 to 65536, got a date");
  EXPECT_EQ(refused_toml("steps = 0"), "c.toml:1: steps: expected a whole number from 1 to 65536, got 0");
  EXPECT_EQ(refused_toml("learning_rate = nan"),
            "c.toml:1: learning-rate: expected a number from 0 to 1, got nan");
  EXPECT_EQ(refused_toml("learning_rate = inf"),
            "c.toml:1: learning-rate: expected a number from 0 to 1, got inf");
  EXPECT_EQ(refused_toml("split = 5"),
            "c.toml:1: split: expected a list, each element a number of at least 0, got 5");
  EXPECT_EQ(refused_toml("split = [1, [2]]"), "c.toml:1: split: expected a number of at least 0, got a list");
  EXPECT_EQ(refused_toml("split = [1, {a=1}]"),
            "c.toml:1: split: expected a number of at least 0, got a table");
  EXPECT_EQ(refused_toml("split = [1, -1]"), "c.toml:1: split: expected a number of at least 0, got -1");
  EXPECT_EQ(refused_toml("names = ['a', 1]"), "c.toml:1: names: expected a text, got 1");
  EXPECT_EQ(refused_toml("out = 1"), "c.toml:1: out: expected a text, got 1");
  EXPECT_EQ(refused_toml("resume = 1"), "c.toml:1: resume: expected true or false, got 1");
  EXPECT_EQ(refused_toml("schedule = 'x'"),
            "c.toml:1: schedule: expected one of constant, cosine, wsd, got \"x\"");
  EXPECT_EQ(refused_toml("[steps]\na = 1"),
            "c.toml:1: steps: expected a whole number from 1 to 65536, got a table");
  EXPECT_EQ(refused_toml("[training]\nsteps = 1"), "c.toml:1: unknown key \"training\"; see --help");
  EXPECT_EQ(refused_toml("learning-rate = 1\nlearning_rate = 1"), "c.toml:2: learning-rate is given twice");
  EXPECT_EQ(refused_toml("config = 'x'"), "c.toml:1: unknown key \"config\"; see --help");
  // From here on the parser's own words, behind our file and line.
  EXPECT_EQ(refused_toml("steps = 1\nsteps = 2").find("c.toml:2: "), 0u);
  EXPECT_EQ(refused_toml("[=").find("c.toml: not TOML"), 0u);
  EXPECT_EQ(refused_toml("steps = ").find("c.toml:1: "), 0u);
  EXPECT_EQ(refused_toml("out = \"\xff\xfe\"").find("c.toml:1: "), 0u);
  EXPECT_EQ(refused_toml("out = '\n'").find("c.toml:"), 0u);
  EXPECT_EQ(refused_toml("steps = 99999999999999999999").find("c.toml:1: "), 0u);
  EXPECT_EQ(refused_toml(std::string("out = '\0'", 9)).find("c.toml:1: "), 0u);
  EXPECT_EQ(refused_toml("split = " + std::string(100000, '[')).find("c.toml:1: "), 0u);
  EXPECT_EQ(refused_toml("names = ['" + std::string(10 << 20, 'x') + "']").find("c.toml: 10485"), 0u);
  const TemporaryFile large("names = ['" + std::string(10 << 20, 'x') + "']");
  EXPECT_EQ(refusal([&] { given({"--config", large.path}); }).find(large.path), 0u);
}

// Bytes at random, and broken copies of a good file: an Error or a value, never anything else.
TEST(Options, RandomBytesNeverEscape) {
  std::mt19937_64 random(7);
  const std::string good = options_to_toml(Basic{});
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = good;
    if (i % 3 == 0) {
      text.resize(random() % 60);
      for (char& c : text) c = char(random());
    } else {
      for (int k = 0; k < 1 + int(random() % 3); ++k)
        text[random() % text.size()] = i % 3 == 1 ? char(random()) : "[]{}='\"\n.,#"[random() % 11];
    }
    try {
      options_from_toml<Basic>(text, "c.toml");
      ++accepted;
    } catch (const Error& e) {
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      EXPECT_EQ(std::string(e.what()).find("c.toml:"), 0u) << e.what();
    }
  }
  EXPECT_GT(accepted, 10);
  EXPECT_LT(accepted, 2900);
}

// ------------------------------------------------------------------ round trip

struct Any {
  bool b = false;
  int64_t i = 0;
  double d = 0;
  std::string s;
  std::vector<bool> bs;
  std::vector<int64_t> is;
  std::vector<double> ds;
  std::vector<std::string> ss;
  template <class V>
  void fields(V& v) {
    v("b", b, "");
    v("i", i, "");
    v("d", d, "");
    v("s", s, "");
    v("bs", bs, "");
    v("is", is, "");
    v("ds", ds, "");
    v("ss", ss, "");
  }
};

struct Draw {
  std::mt19937_64 random;
  double number() {
    constexpr double kOdd[] = {0.0,
                               -0.0,
                               5e-324,
                               2.2250738585072011e-308,
                               1.7976931348623157e308,
                               0.1,
                               1e23,
                               1e15,
                               1e16,
                               4e-4,
                               -1,
                               std::numeric_limits<double>::infinity(),
                               -std::numeric_limits<double>::infinity()};
    if (random() % 3 == 0) return kOdd[random() % std::size(kOdd)];
    if (random() % 3 == 0) return double(int64_t(random() % 2000) - 1000) / 8;
    const uint64_t bits = random();
    double x;
    std::memcpy(&x, &bits, 8);
    return std::isnan(x) ? 1.5 : x;
  }
  int64_t whole() {
    const int64_t kOdd[] = {0, -1, INT64_MAX, INT64_MIN, 1};
    return random() % 2 ? kOdd[random() % 5] : int64_t(random()) >> (random() % 63);
  }
  std::string text() {  // any Unicode code point but NUL, with a taste for what TOML treats specially
    std::string s;
    const char special[] = "\"\\'#=[]{},\n\r\t\b\f\v\x1b\x7f .-_";
    for (size_t n = random() % 8; n > 0; --n) {
      if (random() % 2) {
        s += special[random() % (sizeof special - 1)];
        continue;
      }
      uint32_t c = 1 + random() % (random() % 2 ? 0x7ff : 0x10fffe);
      if (c >= 0xd800 && c < 0xe000) c = 0xfffd;
      if (c < 0x80)
        s += char(c);
      else if (c < 0x800)
        s += char(0xc0 | c >> 6), s += char(0x80 | (c & 63));
      else if (c < 0x10000)
        s += char(0xe0 | c >> 12), s += char(0x80 | (c >> 6 & 63)), s += char(0x80 | (c & 63));
      else
        s += char(0xf0 | c >> 18), s += char(0x80 | (c >> 12 & 63)), s += char(0x80 | (c >> 6 & 63)),
            s += char(0x80 | (c & 63));
    }
    return s;
  }
  size_t length() { return random() % 4; }
};

uint64_t bits(double x) {
  uint64_t b;
  std::memcpy(&b, &x, 8);
  return b;
}

void expect_equal(const Any& a, const Any& b) {
  EXPECT_EQ(a.b, b.b);
  EXPECT_EQ(a.i, b.i);
  EXPECT_EQ(bits(a.d), bits(b.d));
  EXPECT_EQ(a.s, b.s);
  EXPECT_EQ(a.bs, b.bs);
  EXPECT_EQ(a.is, b.is);
  ASSERT_EQ(a.ds.size(), b.ds.size());
  for (size_t k = 0; k < a.ds.size(); ++k) EXPECT_EQ(bits(a.ds[k]), bits(b.ds[k]));
  EXPECT_EQ(a.ss, b.ss);
}

TEST(Options, SavedTextReadsBackExactly) {
  const uint64_t seed = 20240;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Draw draw{std::mt19937_64(seed)};
  for (int round = 0; round < 2000 && !testing::Test::HasFailure(); ++round) {
    Any a;
    a.b = draw.random() % 2, a.i = draw.whole(), a.d = draw.number(), a.s = draw.text();
    for (size_t n = draw.length(); n > 0; --n) a.bs.push_back(draw.random() % 2);
    for (size_t n = draw.length(); n > 0; --n) a.is.push_back(draw.whole());
    for (size_t n = draw.length(); n > 0; --n) a.ds.push_back(draw.number());
    for (size_t n = draw.length(); n > 0; --n) a.ss.push_back(draw.text());
    const std::string text = options_to_toml(a);
    Any b;
    ASSERT_NO_THROW(b = options_from_toml<Any>(text, "saved")) << text;
    expect_equal(a, b);
    EXPECT_EQ(options_to_toml(b), text);
    EXPECT_TRUE(option_differences(a, b).empty());
    // The same values by flags, where a flag can say them.
    std::vector<std::string> flags = {a.b ? "--b" : "--no-b", "--i=" + std::to_string(a.i), "--s=" + a.s};
    std::string list;
    for (const int64_t x : a.is) list += (list.empty() ? "" : ",") + std::to_string(x);
    flags.push_back("--is=" + list);
    const Any c = given<Any>(flags);
    EXPECT_EQ(c.b, a.b);
    EXPECT_EQ(c.i, a.i);
    EXPECT_EQ(c.s, a.s);
    EXPECT_EQ(c.is, a.is);
  }
}

TEST(Options, SavedTextIsTheDocumentedForm) {
  Basic o;
  o.data = "a \"b\"\\\n";
  o.mask = {true};
  o.names = {"", "x"};
  EXPECT_EQ(options_to_toml(o),
            "# files\ndata = \"a \\\"b\\\"\\\\\\u000A\"\nout = \"runs/x\"\n\n# training\nschedule = "
            "\"cosine\"\nsteps = 1000\n"
            "seed = 0\nlearning-rate = 0.0004\nresume = false\nshuffle = true\nsplit = [0.6, 0.2, "
            "0.2]\ndilations = []\n"
            "names = [\"\", \"x\"]\nmask = [true]\n");
}

TEST(Options, DifferencesNameKeysAndWhatMayChange) {
  Basic a, b;
  b.steps = 5;
  b.learning_rate = std::nextafter(a.learning_rate, 1);
  b.split = {0.6, 0.2};
  const auto d = option_differences(a, b);
  ASSERT_EQ(d.size(), 3u);
  EXPECT_EQ(d[0].key, "steps");
  EXPECT_EQ(d[0].before, "1000");
  EXPECT_EQ(d[0].after, "5");
  EXPECT_TRUE(d[0].resumable);
  EXPECT_EQ(d[1].key, "learning-rate");
  EXPECT_FALSE(d[1].resumable);
  EXPECT_EQ(d[2].key, "split");
  const auto rows = describe_options(b);
  ASSERT_EQ(rows.size(), 12u);
  EXPECT_EQ(rows[3].key, "steps");
  EXPECT_EQ(rows[3].group, "training");
  EXPECT_FALSE(rows[3].is_default);
  EXPECT_TRUE(rows[4].is_default);
}

// ------------------------------------------------------------------ help, positional arguments, commands

struct Forecast {
  std::string model, csv;
  std::vector<int64_t> more;
  bool plot = false;
  template <class V>
  void fields(V& v) {
    v("model", model, "run folder or file", Required{});
    v("plot", plot, "draw");
    v.positional("FILE.csv", csv, "series", Required{});
    v.positional("COLUMN", more, "columns", AtLeast{0});
  }
};

TEST(Options, PositionalArguments) {
  const auto o = given<Forecast>({"a.csv", "--model", "m", "3", "--plot", "4"});
  EXPECT_EQ(o.csv, "a.csv");
  EXPECT_EQ(o.model, "m");
  EXPECT_EQ(o.more, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(given<Forecast>({"--model=m", "--", "--odd"}).csv, "--odd");
  EXPECT_EQ(refusal([] { given<Forecast>({"--model=m"}); }), "FILE.csv is required: series");
  EXPECT_EQ(refusal([] {
              given<Forecast>({"--model=m", "a", "-1"});
            }),
            "COLUMN: expected a whole number of at least 0, got \"-1\"");
  EXPECT_EQ(refusal([] {
              given<Forecast>({"--model=m", "--file-csv=a"});
            }),
            "unknown flag --file-csv; see --help");
  const auto saved = options_from_toml<Forecast>(options_to_toml(o), "saved");
  EXPECT_EQ(saved.csv, "a.csv");
  EXPECT_EQ(saved.more, o.more);
}

TEST(Options, HelpIsAnsweredBeforeAnythingIsRefused) {
  for (const char* flag : {"--help", "-h", "--version"}) {
    try {
      given<Forecast>({"--nonsense", flag});
      FAIL();
    } catch (const Answer& answer) {
      EXPECT_NE(answer.text.find(flag[2] == 'v' ? "train (ModRWKV) "
                                                : "usage: train --model TEXT [options] FILE.csv [COLUMN...]\n"),
                std::string::npos)
          << answer.text;
    }
  }
}

TEST(Options, HelpShowsDefaultsRangesChoicesAndIsAligned) {
  EXPECT_EQ(options_help<Basic>("train", "Trains."),
            R"(usage: train --data TEXT [options]

Trains.

files
  --data TEXT               packed set [required]
  --out TEXT                run folder [default runs/x]

training
  --schedule constant|cosine|wsd
                            course of the learning rate [default cosine]
  --steps N                 optimiser steps [default 1000, 1 to 65536]
  --seed N                  of all random numbers [default 0, at least 0]
  --learning-rate X         peak [default 0.0004, 0 to 1]
  --[no-]resume             go on
  --[no-]shuffle            draw at random [default on]
  --split X,...             rows or fractions [default 0.6,0.2,0.2, at least 0]
  --dilations N,...         of convolutions
  --names TEXT,...          of channels
  --mask true|false,...     of channels

general
  --config FILE             TOML file with any of these keys; the command line wins over it
  --help                    this text
  --version                 version of the program
)");
}

struct Wordy {
  int64_t n = 1;
  template <class V>
  void fields(V& v) {
    v("n", n, std::string(30, 'a') + " " + std::string(60, 'b') + " " + std::string(90, 'c') + " dd");
  }
};

TEST(Options, LongHelpIsWrapped) {
  const std::string text = options_help<Wordy>("p", "S.");
  const std::string indent(28, ' ');
  EXPECT_NE(
      text.find("--n N                     " + std::string(30, 'a') + "\n" + indent + std::string(60, 'b') +
                "\n" + indent + std::string(90, 'c') + "\n" + indent + "dd [default 1]\n"),
      std::string::npos)
      << text;
}

template <int kCase>
struct Wrong {
  int64_t a = 5, b = 0;
  std::string s = "x";
  template <class V>
  void fields(V& v) {
    if (kCase == 0) v("a", a, "", Range{0, 4});
    if (kCase == 1) v("s", s, "", Choices{"y"});
    if (kCase == 2) v("a", a, ""), v("a", b, "");
    if (kCase == 3) v("help", a, "");
    if (kCase == 4) v("no-a", a, "");
    if (kCase == 5) v("A", a, "");
  }
};

TEST(Options, MistakesOfTheProgramsAuthorAreFound) {
  EXPECT_THROW(given<Wrong<0>>({}), Error);
  EXPECT_THROW(given<Wrong<1>>({}), Error);
  EXPECT_THROW(given<Wrong<2>>({}), std::logic_error);
  EXPECT_THROW(given<Wrong<3>>({}), std::logic_error);
  EXPECT_THROW(given<Wrong<4>>({}), std::logic_error);
  EXPECT_THROW(given<Wrong<5>>({}), std::logic_error);
}

TEST(Options, NearestName) {
  EXPECT_EQ(nearest("spilt", {"split", "spirit"}), "split");  // neighbours that change places count once
  EXPECT_EQ(nearest("lr", {"out", "data"}), "");
  EXPECT_EQ(nearest("", {"out"}), "");
  EXPECT_EQ(nearest(std::string(100000, 'x'), {"out"}), "");
}

std::string seen_program;
int command_a(Arguments& arguments) {
  seen_program = arguments.program;
  return int(arguments.values.size());
}

TEST(Options, Commands) {
  const std::vector<Command> commands = {{"timeseries", "CSV files", command_a},
                                         {"text", "JSON lines", command_a}};
  const auto run = [&](std::vector<std::string> values) {
    Arguments arguments{"import", std::move(values)};
    return run_command(arguments, "Packs.", commands);
  };
  EXPECT_EQ(run({"timeseries", "--csv", "x"}), 2);
  EXPECT_EQ(seen_program, "import timeseries");
  EXPECT_EQ(refusal([&] { run({"timeserie"}); }), "unknown command \"timeserie\"; did you mean timeseries?");
  EXPECT_EQ(refusal([&] { run({"zzzzzzzz"}); }),
            "unknown command \"zzzzzzzz\"; expected one of timeseries, text");
  EXPECT_EQ(refusal([&] { run({}); }), "expected a command: one of timeseries, text; see --help");
  EXPECT_THROW(run({"--help"}), Answer);
}

// ------------------------------------------------------------------ the frame of a main

struct Outcome {
  int code;
  std::string out, error;
};
Outcome run_main(int (*body)(Arguments&), std::vector<const char*> argv) {
  argv.insert(argv.begin(), "/usr/bin/train_text");
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int code = run_program(int(argv.size()), argv.data(), body);
  std::string out = testing::internal::GetCapturedStdout();
  return {code, std::move(out), testing::internal::GetCapturedStderr()};
}

TEST(Program, ExitCodesAndOneLineOnStandardError) {
  auto o = run_main([](Arguments&) -> int { fail("x.h5: no such set\nline two"); }, {});
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(o.error, "train_text: x.h5: no such set line two\n");
  o = run_main([](Arguments&) -> int { throw std::bad_alloc(); }, {});
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(o.error.find("train_text: out of memory"), 0u);
  o = run_main([](Arguments&) -> int { throw std::out_of_range("vector"); }, {});
  EXPECT_EQ(o.error, "train_text: unexpected failure: vector\n");
  o = run_main([](Arguments&) { return kStoppedBySignal; }, {});
  EXPECT_EQ(o.code, 75);
  EXPECT_EQ(o.error, "");
  o = run_main([](Arguments& a) { return parse_options<Forecast>(a, "F.").plot ? 1 : 0; }, {"--help"});
  EXPECT_EQ(o.code, 0);
  EXPECT_EQ(o.out.find("usage: train_text "), 0u);
  EXPECT_EQ(o.error, "");
  o = run_main(
      [](Arguments& a) {
        return run_command(a, "S.", {{"c", "s", [](Arguments&) -> int { fail("bad"); }}});
      },
      {"c"});
  EXPECT_EQ(o.error, "train_text c: bad\n");
}

TEST(Program, AFullStandardOutputIsAFailure) {
  std::FILE* probe = std::fopen("/dev/full", "w");
  if (probe == nullptr) GTEST_SKIP() << "no /dev/full here";
  std::fclose(probe);
  EXPECT_EXIT(
      {
        if (!std::freopen("/dev/full", "w", stdout)) std::exit(9);
        const char* argv[] = {"inspect"};
        std::exit(run_program(1, argv, [](Arguments&) { return std::puts("result") >= 0 ? 0 : 0; }));
      },
      testing::ExitedWithCode(1), "inspect: cannot write standard output: No space left on device");
}

}  // namespace
}  // namespace modrwkv
