#include "data/dates.h"
#include "tests/op_test.h"

using namespace modrwkv;
using namespace modrwkv::testing;

TEST(Dates, CommonForms) {
  // Seconds from Python's calendar.timegm.
  constexpr int64_t kMoment = 1357020000;  // 2013-01-01 06:00
  for (const char* text :
       {"2013-01-01 06:00", "2013-01-01 06:00:00", "2013-01-01T06:00:00", "2013-01-01T06:00:00Z",
        "2013/1/1 6:00", "1/1/2013 6:00", "1/1/2013 6:00 AM", "1.1.2013 06:00", "1-1-2013 06:00:00.000",
        "2013-01-01T07:00:00+01:00", "2013-01-01 01:00-05:00", "20130101 06:00"}) {
    EXPECT_EQ(parse_time(text), kMoment) << text;
  }
  EXPECT_EQ(parse_time("2016-07-01"), 1467331200);
  EXPECT_EQ(parse_time("2016-07"), 1467331200);
  EXPECT_EQ(parse_time("1900-03-01"), -2203891200);
  EXPECT_EQ(parse_time("2/29/2000 11:59 PM"), 951868740);
  EXPECT_EQ(parse_time("3/4/2013"), parse_time("2013-03-04"));
  EXPECT_EQ(parse_time("3/4/2013", true), parse_time("2013-04-03"));
}

TEST(Dates, RefusesWhatIsNone) {
  for (const char* text :
       {"", "abc", "2013", "12.5", "2013-13-01", "2013-02-29", "2013-01-01 25:00", "2013-01-01 06:60",
        "2013-01-01x", "13/1/2013", "1/1/13", "2013-01-01 13:00 PM", "2013.12", "NaT", "-1"}) {
    EXPECT_FALSE(parse_time(text).has_value()) << text;
  }
}

TEST(Dates, FormatsWhatItReads) {
  for (const char* text :
       {"2013-01-31 06:00:00", "1969-12-31 23:59:59", "0001-01-01 00:00:00", "2400-02-29 12:00:01"}) {
    EXPECT_EQ(format_time(parse_time(text).value()), text);
  }
  EXPECT_EQ(format_time(parse_time("2013-01-31").value(), true), "2013-01-31");
  EXPECT_EQ(format_time(kUnknownTime), "");
}

TEST(Dates, StepsReadAndWrite) {
  for (const char* text : {"", "s", "10min", "h", "6h", "D", "B", "W", "2W", "M", "3M", "Y"})
    EXPECT_EQ(parse_step(text).str(), text);
  for (const char* text : {"H", "1h", "60min", "60T", "hourly", "3600s"})
    EXPECT_EQ(parse_step(text), parse_step("h")) << text;
  for (const char* text : {"7D", "W-SUN", "weekly", "168h"})
    EXPECT_EQ(parse_step(text), parse_step("W")) << text;
  EXPECT_EQ(parse_step("Q"), parse_step("3M"));
  for (const char* text : {"m", "0h", "fortnight", "1.5h", "-1h", "h1"})
    expect_error([&] { parse_step(text); }, "unknown frequency");
}

TEST(Dates, StepsForward) {
  const auto after = [](const char* from, const char* step, int64_t n) {
    return format_time(add_steps(parse_time(from).value(), parse_step(step), n), true);
  };
  EXPECT_EQ(after("2013-12-31 23:00", "h", 1), "2014-01-01");
  EXPECT_EQ(after("2013-01-31", "M", 1), "2013-02-28");
  EXPECT_EQ(after("2013-02-28", "M", 1), "2013-03-31");  // the end of a month stays one
  EXPECT_EQ(after("2013-01-30", "M", 1), "2013-02-28");
  EXPECT_EQ(after("2013-01-15", "M", -13), "2011-12-15");
  EXPECT_EQ(after("2012-02-29", "Y", 1), "2013-02-28");
  EXPECT_EQ(after("2013-11-29", "B", 1), "2013-12-02");  // a Friday
  EXPECT_EQ(after("2013-11-29", "B", 11), "2013-12-16");
  EXPECT_EQ(after("2013-12-02", "B", -1), "2013-11-29");
  EXPECT_EQ(after("2013-11-29", "W", 2), "2013-12-13");
  expect_error([] { add_steps(0, {}, 1); }, "unknown");
}

TEST(Dates, InfersTheStep) {
  for (const char* step : {"s", "10min", "h", "D", "W", "B", "M", "3M", "Y"}) {
    std::vector<int64_t> times = {parse_time("2011-03-31 00:00").value()};
    while (times.size() < 40) times.push_back(add_steps(times.back(), parse_step(step), 1));
    const StepGuess guess = infer_step(times);
    EXPECT_EQ(guess.step.str(), step);
    EXPECT_EQ(guess.irregular, 0);
  }
  // One missing hour is an irregular row; random times have no step.
  std::vector<int64_t> times;
  for (int64_t i = 0; i < 50; ++i) times.push_back(3600 * (i + (i > 20)));
  EXPECT_EQ(infer_step(times).step.str(), "h");
  EXPECT_EQ(infer_step(times).irregular, 1);
  EXPECT_FALSE(infer_step({0, 7, 9, 100, 113, 200}).step.known());
  EXPECT_FALSE(infer_step({5}).step.known());
  EXPECT_FALSE(infer_step({5, 5, 5, 5}).step.known());
}
