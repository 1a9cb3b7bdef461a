#include <zlib.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "data/csv.h"
#include "data/text_file.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

namespace {

const std::string kSample = "data/samples/nyc_hourly_2013.csv", kShared = "../shared/data/timeseries/";

RawSeries parse(const std::string& text, const CsvOptions& options = {}) {
  return parse_csv(text, "x.csv", options);
}

// A file that goes away with the test.
struct TemporaryFile {
  std::string path;
  TemporaryFile(const std::string& name, std::string_view content, bool packed = false)
      : path(::testing::TempDir() + "modrwkv_csv_" + name) {
    if (packed) {
      gzFile f = gzopen(path.c_str(), "wb");
      gzwrite(f, content.data(), unsigned(content.size()));
      gzclose(f);
    } else {
      std::ofstream(path, std::ios::binary) << content;
    }
  }
  ~TemporaryFile() { std::filesystem::remove(path); }
};

using Names = std::vector<std::string>;
using Values = std::vector<float>;

}  // namespace

TEST(Csv, SampleIsReadWhole) {
  const auto begin = std::chrono::steady_clock::now();
  const RawSeries s = read_csv(kSample);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_LT(seconds, 0.5);  // 0.5 MB; some 10 ms, a loaded machine allowed for
  EXPECT_EQ(s.name, "nyc_hourly_2013");
  EXPECT_EQ(s.rows(), 8730);
  ASSERT_EQ(s.channels.size(), 9u);
  EXPECT_EQ(s.channels[4], "JFK_temp_c");
  EXPECT_EQ(s.missing(), 0);
  EXPECT_EQ(s.step.str(), "h");
  EXPECT_EQ(s.irregular, 0);
  EXPECT_EQ(format_time(s.start), "2013-01-01 06:00:00");
  EXPECT_EQ(s.values[5][1], 5.0f);
  EXPECT_EQ(s.values[8][0], 57.33f);
}

TEST(Csv, SeparatorsAndLineEnds) {
  for (const char* text :
       {"date,a,b\n2013-01-01,1,2\n2013-01-02,3,-4e1\n", "date;a;b\r\n2013-01-01;1;2\r\n2013-01-02; 3 ;-4e1",
        "date\ta\tb\n\n2013-01-01\t1\t2\n2013-01-02\t+3\t-40\n\n",
        "\"date\",\"a\",\"b\"\n2013-01-01,\"1\",2\n2013-01-02,3,\"-40\"\n",
        "date,a,\"b\"\r\n\"2013-01-01\",1,2\r\n2013-01-02,3,-40\r\n"}) {
    const RawSeries s = parse(text);
    EXPECT_EQ(s.channels, (Names{"a", "b"})) << text;
    EXPECT_EQ(s.values[0], (Values{1, 3})) << text;
    EXPECT_EQ(s.values[1], (Values{2, -40})) << text;
    EXPECT_EQ(s.step.str(), "D") << text;
  }
  // A separator inside a name does not decide.
  EXPECT_EQ(parse("date,wind; max,t\n2013-01-01,1,2\n").channels, (Names{"wind; max", "t"}));
}

TEST(Csv, QuotedNames) {
  const RawSeries s =
      parse("date,\"p, mbar\",\"say \"\"x\"\"\",\"two\nlines\"\n2013-01-01,1,2,3\n2013-01-02,1,z,3\n",
            {"", {"p, mbar", "two lines"}});
  EXPECT_EQ(s.channels, (Names{"p, mbar", "two lines"}));
  EXPECT_EQ(parse("d,\"say \"\"x\"\"\"\n2013-01-01,1\n").channels, (Names{"say \"x\""}));
  expect_error([] { parse("a,b\n1,\"2\n3,4\n"); }, "x.csv:2: a quote is not closed");
  expect_error([] { parse("a,b\n1,\"2\"x\n"); }, "x.csv:2: 'x' after a closing quote");
  expect_error([] { parse("a,\"b\nc\"\n1,2\n1,z\n"); },
               "x.csv:4: column b c: 'z' is not a number");  // lines are those of the file
}

TEST(Csv, Headers) {
  EXPECT_EQ(parse("1,2.5\n3,4\n").channels, (Names{"0", "1"}));                         // none
  EXPECT_EQ(parse("2013-01-01 00:00,2.5\n2013-01-01 01:00,4\n").channels, Names{"0"});  // none, but dates
  EXPECT_EQ(parse("date,0\n2013-01-01,2.5\n").channels, Names{"0"});                    // a number for a name
  EXPECT_EQ(parse("0,1,2\n5,6,7\n").rows(), 1);                                         // positions
  EXPECT_EQ(parse("a\n1\n2\n").values[0], (Values{1, 2}));
  EXPECT_EQ(parse("3\n1\n2\n").values[0], (Values{3, 1, 2}));
  EXPECT_EQ(parse(",1\n,2\n").rows(), 2);  // the first cell may be missing
  EXPECT_EQ(parse("date,t (\xB0"
                  "C)\n2013-01-01,1\n")
                .channels,
            Names{"t (°C)"});  // Latin-1
  EXPECT_EQ(parse("date,t (°C)\n2013-01-01,1\n").channels, Names{"t (°C)"});
  expect_error([] { parse("a,b,a\n1,2,3\n"); }, "x.csv: two columns are called 'a'");
  expect_error([] { parse(""); }, "x.csv: is empty");
  expect_error([] { parse("\n \r\n"); }, "x.csv: is empty");
  expect_error([] { parse("date,a\n"); }, "x.csv: holds a header and no rows");
  expect_error([] { parse("date\n2013-01-01\n"); }, "dates and no column of values");
}

TEST(Csv, FirstColumn) {
  const int64_t start = parse_time("2017-01-01").value();
  const RawSeries unix = parse("timestamp,a\n1483228800,1\n1483232400,2\n");
  EXPECT_EQ(unix.start, start);
  EXPECT_EQ(unix.step.str(), "h");
  EXPECT_EQ(parse("ds,a\n1483228800000,1\n").start, start);
  EXPECT_EQ(parse("Date,a\n20170101,1\n20170102,1\n").step.str(), "D");
  EXPECT_EQ(parse("year,a\n2017,1\n2018,1\n2019,3\n").step.str(), "Y");
  EXPECT_EQ(parse("load,a\n1483228800,1\n").channels, (Names{"load", "a"}));  // its name says nothing of dates
  EXPECT_EQ(parse(",a,b\n0,5,6\n1,7,8\n").channels, (Names{"a", "b"}));       // row numbers
  expect_error([] { parse(",a\n0,5\n2,7\n"); }, "x.csv:3: the first column counts the rows, but '2' is not 1");
  expect_error([] { parse("date,a\n2013-01-01,1\nsoon,2\n"); }, "x.csv:3: column date: 'soon' is not a date");
}

TEST(Csv, DayFirst) {
  const RawSeries s = parse("date,a\n11/1/2013,1\n12/1/2013,2\n13/1/2013,3\n14/1/2013,3\n");
  EXPECT_EQ(format_time(s.start, true), "2013-01-11");
  EXPECT_EQ(s.step.str(), "D");
  EXPECT_EQ(format_time(parse("date,a\n11/1/2013,1\n11/2/2013,2\n").start, true), "2013-11-01");
  expect_error([] { parse("date,a\n1/13/2013,1\n13/1/2013,2\n"); },
               "x.csv:3: column date: '13/1/2013' has its day first, '1/13/2013' its month");
}

TEST(Csv, MissingAndOddNumbers) {
  const RawSeries s = parse("a,b\n1,\nNA,2\nNaN, \nnan,NULL\nn/a,None\n-9999,1e-60\n");
  EXPECT_EQ(s.missing(), 8);
  EXPECT_EQ(std::bit_cast<uint32_t>(s.values[1][0]), 0x7FC00000u);
  EXPECT_EQ(std::bit_cast<uint32_t>(s.values[0][2]), 0x7FC00000u);  // whatever bits the parser gives
  EXPECT_EQ(s.values[0][5], -9999);
  EXPECT_EQ(s.values[1][5], 0);
  for (const char* bad : {"inf", "-inf", "1,5", "0x10", "1e5x", "--1", "+-1", "1 2", "?"}) {
    EXPECT_THROW(parse(std::string("a;b\n1;2\n1;") + bad + "\n"), Error) << bad;
  }
  expect_error([] { parse("a,b\n1,1e39\n"); },
               "x.csv:2: column b: '1e39' is beyond the range of 32-bit numbers");
}

TEST(Csv, RefusalsNameFileLineAndColumn) {
  std::string text = "date,OT\n";
  for (int i = 0; i < 1041; ++i) text += "2013-01-01,1\n";
  expect_error([&] { parse_csv(text + "2013-01-02,abc\n", "sales.csv"); },
               "sales.csv:1043: column OT: 'abc' is not a number");
  expect_error([&] { parse("a,b,c\n1,2,3\n\n1,2\n"); }, "x.csv:4: 2 fields, expected 3");
  expect_error([&] { parse("a,b,c\n1,2\n"); }, "x.csv:2: 2 fields, expected 3");
  // What is shown is short, and has no control characters.
  try {
    parse("a,b\n1,\x1b[31m" + std::string(1000, 'z') + "\n");
    FAIL();
  } catch (const Error& e) {
    EXPECT_LT(std::string(e.what()).size(), 120u);
    EXPECT_EQ(std::string(e.what()).find('\x1b'), std::string::npos);
  }
}

TEST(Csv, Columns) {
  const std::string text = "date,a,station,b\n2013-01-01,1,x,2\n2013-01-02,3,y,4\n";
  expect_error([&] { parse(text); }, "column station: 'x' is not a number");
  EXPECT_EQ(parse(text, {"", {"b", "a"}}).values, (std::vector<Values>{{2, 4}, {1, 3}}));
  EXPECT_EQ(parse(text, {"", {"2"}}).channels, Names{"b"});  // by position
  expect_error([&] { parse(text, {"", {"c"}}); }, "x.csv: no column 'c'; it has a, station, b");
  expect_error([&] { parse(text, {"", {"3"}}); }, "no column '3'");
  expect_error([&] { parse(text, {"", {"a", "0"}}); }, "column 'a' is asked for twice");
}

TEST(Csv, Frequency) {
  EXPECT_FALSE(parse("1\n2\n3\n").step.known());
  EXPECT_EQ(parse("1\n2\n3\n", {"h", {}}).step.str(), "h");
  EXPECT_EQ(parse("1\n2\n").start, kUnknownTime);
  expect_error([] { parse("1\n2\n", {"x", {}}); }, "unknown frequency 'x'");
}

TEST(TextFile, GzipIsToldByContent) {
  const TemporaryFile packed("packed.csv", "date,a\n2013-01-01,1\n", true), marked("marked.csv",
                                                                                   "\xEF\xBB\xBF"
                                                                                   "a,b\n1,2\n");
  EXPECT_EQ(read_csv(packed.path).values[0], Values{1});
  EXPECT_EQ(read_csv(marked.path).channels, (Names{"a", "b"}));  // a byte order mark
  std::string cut;
  {
    std::string text = "a\n";
    for (int i = 0; i < 100000; ++i) text += std::to_string(i * 7919 % 10007) + "\n";
    const TemporaryFile whole("whole.csv.gz", text, true);
    EXPECT_EQ(read_csv(whole.path).rows(), 100000);
    std::ifstream in(whole.path, std::ios::binary);
    cut.assign(std::istreambuf_iterator<char>(in), {});
  }
  std::string damaged = cut;
  for (size_t i = damaged.size() / 2; i < damaged.size() / 2 + 64; ++i) damaged[i] = char(damaged[i] ^ 0x55);
  const TemporaryFile half("half.gz", std::string_view(cut).substr(0, cut.size() / 2)),
      broken("broken.gz", damaged);
  expect_error([&] { read_csv(half.path); }, half.path + ": the gzip data is cut off");
  expect_error([&] { read_csv(broken.path); }, broken.path + ": damaged gzip data");
}

TEST(TextFile, RefusesWhatIsNoText) {
  using namespace std::string_view_literals;
  expect_error([] { read_text_file("no/such.csv"); }, "no/such.csv: cannot open: No such file");
  expect_error([] { read_text_file("data"); }, "data: cannot read");
  const TemporaryFile zip("a.zip", "PK\x03\x04zzz"sv), h5("a.h5", "\x89HDF\r\n\x1a\n"sv),
      wide("wide.csv",
           "\xFF\xFE"
           "a\0"sv),
      binary("b.csv", "a,b\n1,\0\n"sv);
  expect_error([&] { read_text_file(zip.path); }, "zip archive");
  expect_error([&] { read_text_file(h5.path); }, "HDF5 file");
  expect_error([&] { read_text_file(wide.path); }, "UTF-16");
  expect_error([&] { read_text_file(binary.path); }, "is not text");
  // A bomb: 200 MB of one line, packed into 200 kB, is refused at the limit of a line.
  const TemporaryFile bomb("bomb.gz", std::string(200 << 20, '1'), true);
  expect_error([&] { read_text_file(bomb.path); }, "a line is longer than 67108864 bytes");
  const TemporaryFile lines("lines.csv", "1\n2\n3\n4\n");
  expect_error([&] { read_text_file(lines.path, {4, 100}); }, "more than 4 bytes");
}

TEST(TextFile, Utf8) {
  for (const char* good : {"", "abc", "°C", "€", "😀"}) EXPECT_TRUE(is_utf8(good)) << good;
  for (const char* bad :
       {"\xB0", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\x80"})
    EXPECT_FALSE(is_utf8(bad));
  EXPECT_EQ(latin1_to_utf8("m\xB2 \xE9"), "m² é");
  EXPECT_EQ(quoted_text("a\nb"), "'a?b'");
  EXPECT_EQ(quoted_text("\xE9"), "'?'");
  EXPECT_TRUE(is_utf8(quoted_text("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa€€€")));
}

TEST(SeriesTsv, BadLinesAreToldAndLeftOut) {
  const TemporaryFile file("c.tsv",
                           "a\th\t2013-01-01 00:00:00\t1,2,,4\n"
                           "b\t\t\t5\n"
                           "c\th\tNaT\t1\n"
                           "d\th\t1,2\n"
                           "e\tx\t\t1,2\n"
                           "f\tD\t\t1,abc\n"
                           "g\tD\tsoon\t1\n"
                           "\n"
                           "h\tD\t\t,,\n"
                           "i\tM\t3560.0\t7\r\n");
  std::vector<std::string> bad;
  const auto all = read_series_tsv(
      file.path, [&](const std::string& line) { bad.push_back(line.substr(file.path.size())); });
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[0].name, "a");
  EXPECT_EQ(all[0].step.str(), "h");
  EXPECT_EQ(all[0].rows(), 4);
  EXPECT_EQ(all[0].missing(), 1);
  EXPECT_EQ(all[2].start, kUnknownTime);
  EXPECT_EQ(all[3].values[0], Values{7});
  EXPECT_EQ(
      bad, (Names{":4: 3 fields, expected name, frequency, start and values",
                  ":5: unknown frequency 'x'; expected such as 10min h D W M",
                  ":6: value 2: 'abc' is not a number", ":7: 'soon' is not a date", ":9: 'h' holds no value"}));
  const TemporaryFile none("n.tsv", "a,b\n1,2\n");
  expect_error([&] { read_series_tsv(none.path, [](const std::string&) {}); }, "holds no series");
}

// The public evaluation sets and the corpus, where they are at hand; counts are those of their description.
TEST(Csv, PublicSets) {
  if (!std::filesystem::exists(kShared)) GTEST_SKIP() << kShared << " is not here";
  struct Case {
    const char *file, *step, *start;
    int64_t rows, channels;
  };
  for (const Case& c : {Case{"ETTh1.csv", "h", "2016-07-01 00:00:00", 17420, 7},
                        {"ETTm2.csv.gz", "15min", "2016-07-01 00:00:00", 69680, 7},
                        {"weather.csv.gz", "10min", "2020-01-01 00:10:00", 52696, 21},
                        {"WTH.csv.gz", "h", "2010-01-01 00:00:00", 35064, 12},
                        {"exchange_rate.txt.gz", "", "", 7588, 8},
                        {"traffic_sensor0.csv.gz", "h", "2015-01-01 00:00:00", 17544, 1}}) {
    const RawSeries s = read_csv(kShared + "eval/" + c.file);
    EXPECT_EQ(s.rows(), c.rows) << c.file;
    EXPECT_EQ(int64_t(s.channels.size()), c.channels) << c.file;
    EXPECT_EQ(s.step.str(), c.step) << c.file;
    EXPECT_EQ(format_time(s.start), c.start) << c.file;
    EXPECT_EQ(s.missing(), 0) << c.file;
  }
  const RawSeries co2 = read_csv(kShared + "eval/weather.csv.gz", {"", {"20"}});
  EXPECT_EQ(std::count(co2.values[0].begin(), co2.values[0].end(), -9999.0f), 50);
  int64_t bad = 0, observed = 0, with_gaps = 0, longer = 0;
  const auto corpus = read_series_tsv(kShared + "pretrain/corpus.tsv.gz", [&](const std::string&) { ++bad; });
  for (const RawSeries& s : corpus) {
    observed += s.rows() - s.missing();
    with_gaps += s.missing() > 0;
    longer += s.rows() >= 816;
  }
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(corpus.size(), 1740u);
  EXPECT_EQ(observed, 8477181);
  EXPECT_EQ(with_gaps, 325);
  EXPECT_EQ(longer, 1194);
}
