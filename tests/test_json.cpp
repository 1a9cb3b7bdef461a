// JSON: what is written reads back equal, what is broken is refused in one line.
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <random>

#include "core/error.h"
#include "core/json.h"
#include "tests/raw_hdf5.h"

namespace modrwkv {
namespace {

using testing::refusal;

TEST(Json, ObjectsKeepTheirOrderAndPrintOnOneLine) {
  Json j = Json::object();
  j.set("step", 3).set("loss", 0.1).set("name", "a\"b\\\n\t\x01").set("ok", true).set("none", Json());
  j.set("list", std::vector<int>{1, 2}).set("step", 4);
  EXPECT_EQ(
      j.dump(),
      R"({"step": 4, "loss": 0.1, "name": "a\"b\\\n\t\u0001", "ok": true, "none": null, "list": [1, 2]})");
  EXPECT_EQ(Json::parse(j.dump()), j);
  EXPECT_EQ(Json::parse(j.pretty()), j);
  EXPECT_EQ(Json::parse(R"({"b":1,"a":{"d":2,"c":[]}})").canonical(), R"({"a":{"c":[],"d":2},"b":1})");
  EXPECT_EQ(Json::parse(R"({"b":1,"a":2})"), Json::parse(R"({"a":2,"b":1.0})"));
}

TEST(Json, NumbersReadBackEqual) {
  for (double x : {0.0, 1.0, 5e-324, DBL_MAX, 1.0 / 3, 1e16, 123456789.125, 1e-7}) {
    for (double y : {x, -x}) {
      const double back = Json::parse(Json(y).dump()).as_double();
      EXPECT_EQ(memcmp(&back, &y, sizeof y), 0) << Json(y).dump();
    }
  }
  std::mt19937_64 random(7);
  for (int i = 0; i < 10000; ++i) {
    const uint64_t bits = random();
    double x;
    memcpy(&x, &bits, sizeof x);
    if (!std::isfinite(x)) continue;
    EXPECT_EQ(Json::parse(Json(x).dump()).as_double(), x);
  }
  EXPECT_EQ(Json(0.1f).dump(), "0.1");
  EXPECT_EQ(Json(2.0).dump(), "2.0");
  EXPECT_EQ(Json(NAN).dump(), "null");
  EXPECT_EQ(Json(-INFINITY).dump(), "null");
  EXPECT_EQ(Json(INT64_MIN).dump(), "-9223372036854775808");
  EXPECT_EQ(Json::parse("9223372036854775807").as_int(), INT64_MAX);
  EXPECT_EQ(Json::parse("3.0").as_int(), 3);
  EXPECT_TRUE(std::isnan(Json::parse(R"({"a":null})").get_double("a")));
}

TEST(Json, BrokenUtf8IsReplacedWhenWritten) {
  EXPECT_EQ(Json("\xe2\x82\xac\xf0\x9f\x98\x80").dump(), "\"\xe2\x82\xac\xf0\x9f\x98\x80\"");
  for (const char* broken :
       {"\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xc0\x80", "\xf8\x88\x80\x80", "\xf4\x90\x80\x80"}) {
    const std::string text = Json(broken).dump();
    EXPECT_NE(text.find("\xef\xbf\xbd"), std::string::npos);
    EXPECT_NO_THROW(Json::parse(text));  // the parser checks UTF-8
  }
}

TEST(Json, BrokenTextIsRefused) {
  for (const char* text :
       {"", "{", "[1,", "{\"a\" 1}", "nul", "1 2", "{\"a\":1,}", "[01]", "\"\\x\"", "\"\x01\"", "\"\xff\""}) {
    EXPECT_EQ(refusal([&] { Json::parse(text, "m.json"); }).rfind("m.json: ", 0), 0u) << text;
  }
  EXPECT_EQ(refusal([&] { Json::parse("{\"a\":1,\"b\":2,\"a\":3}", "m.json"); }),
            "m.json: key \"a\" occurs twice");
  EXPECT_EQ(refusal([&] { Json::parse(std::string(100000, '['), "m.json"); }),
            "m.json: more than 64 nested levels");
  EXPECT_NO_THROW(Json::parse(std::string(64, '[') + std::string(64, ']')));
}

TEST(Json, KeysAreNamedWhenMissingOrOfAnotherKind) {
  const Json j = Json::parse(R"({"a":"x","b":1.5,"c":true})");
  EXPECT_EQ(refusal([&] { j.get_int("z"); }), "key \"z\" is missing");
  EXPECT_EQ(refusal([&] { j.get_int("a"); }), "key \"a\": expected an integer, found a string");
  EXPECT_EQ(refusal([&] { j.get_int("b"); }), "key \"b\": expected an integer, found a number");
  EXPECT_EQ(refusal([&] { j.get_string("b"); }), "key \"b\": expected a string, found a number");
  EXPECT_EQ(refusal([&] { j.get_bool("b"); }), "key \"b\": expected a boolean, found a number");
  EXPECT_TRUE(j.get_bool("c"));
  EXPECT_EQ(j.find("z"), nullptr);
}

}  // namespace
}  // namespace modrwkv
