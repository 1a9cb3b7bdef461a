// SVG charts: well-formed whatever the texts and values, and values drawn where the axis labels say.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <sstream>

#include "core/error.h"
#include "tests/xml_check.h"
#include "train/plot.h"

namespace modrwkv {
namespace {

std::vector<XmlElement> elements_of(const std::string& svg) {
  std::string problem;
  auto all = read_xml(svg, problem);
  EXPECT_EQ(problem, "") << svg.substr(0, 3000);
  return all;
}

struct Point {
  double x, y;
};
// Runs of absolute M and L commands.
std::vector<std::vector<Point>> path_points(const std::string& d) {
  std::vector<std::vector<Point>> runs;
  for (size_t i = 0; i < d.size();) {
    if (d[i] == 'M') runs.emplace_back();
    if (d[i] != 'M' && d[i] != 'L') break;
    size_t used = 0;
    const double x = std::stod(d.substr(i + 1), &used);
    i += 1 + used;
    EXPECT_EQ(d[i], ',');
    const double y = std::stod(d.substr(i + 1), &used);
    i += 1 + used;
    runs.back().push_back({x, y});
    if (i < d.size() && (d[i] == 'h' || d[i] == 'Z')) i = std::min(d.find('M', i), d.size());
  }
  return runs;
}

// Pixel of a value, from two labelled ticks of the picture alone.
struct Scale {
  double v0 = 0, p0 = 0, v1 = 0, p1 = 0;
  int ticks = 0;
  bool log = false;
  double pixel(double v) const {
    const auto f = [&](double u) { return log ? std::log(u) : u; };
    return p0 + (p1 - p0) * (f(v) - f(v0)) / (f(v1) - f(v0));
  }
};
Scale scale_of(const std::vector<XmlElement>& all, bool vertical, bool log = false) {
  Scale s;
  s.log = log;
  const XmlElement* line = nullptr;
  for (const auto& e : all) {
    if (e.name == "line") line = &e;  // each tick's line stands before its label
    if (e.name != "text" || e.attributes.at("class") != (vertical ? "t ty" : "t tx")) continue;
    const double pixel = line->number(vertical ? "y1" : "x1"), value = std::stod(e.text);
    (s.ticks++ == 0 ? s.v0 : s.v1) = value;
    (s.ticks == 1 ? s.p0 : s.p1) = pixel;
  }
  EXPECT_GE(s.ticks, 2);
  return s;
}

std::vector<std::string> paths(const std::vector<XmlElement>& all, const std::string& classes) {
  std::vector<std::string> out;
  for (const auto& e : all)
    if (e.name == "path" && e.attributes.at("class") == classes) out.push_back(e.attributes.at("d"));
  return out;
}

TEST(Plot, PointsStandWhereTheLabelsSay) {
  for (const bool log : {false, true}) {
    Plot plot;
    plot.title = "T";
    plot.log_y = log;
    plot.series = {{"", {-10, 0, 5, 12.5, 30}, {1, 250, 3.5, 40, 0.7}, PlotColor::green, false}};
    const auto all = elements_of(plot_svg(plot));
    const Scale x = scale_of(all, false), y = scale_of(all, true, log);
    const auto lines = paths(all, "s3");
    ASSERT_EQ(lines.size(), 1u);
    const auto runs = path_points(lines[0]);
    ASSERT_EQ(runs.size(), 1u);
    ASSERT_EQ(runs[0].size(), 5u);
    for (size_t i = 0; i < 5; ++i) {
      // Coordinates and tick lines are rounded to 0.1; ticks may be closer together than the points.
      EXPECT_NEAR(runs[0][i].x, x.pixel(plot.series[0].x[i]), 0.5);
      EXPECT_NEAR(runs[0][i].y, y.pixel(plot.series[0].y[i]), 0.5);
    }
    EXPECT_GT(runs[0][4].x, runs[0][0].x);
    for (const auto& e : all) {  // the axis runs from the first x to the last
      if (e.name != "line" || e.attributes.at("class") != "a" || e.number("y1") != e.number("y2")) continue;
      EXPECT_NEAR(e.number("x1"), runs[0][0].x, 0.11);
      EXPECT_NEAR(e.number("x2"), runs[0][4].x, 0.11);
    }
    EXPECT_LT(runs[0][1].y, runs[0][0].y);  // larger is higher
  }
}

TEST(Plot, EverythingStaysInsideThePicture) {
  Plot plot;
  plot.width = 360;
  plot.title = "a long title that has to be broken into several lines because the picture is narrow";
  plot.x_label = "hours";
  plot.y_label = "value";
  plot.series = {{"one", {0, 1, 2}, {-1e5, 2, 1e5}, PlotColor::ink, false},
                 {"a second long label", {0, 2}, {3, 4}, PlotColor::orange, true}};
  plot.bands = {{"90 % band", {1, 2}, {-2e5, 0}, {0, 3e5}, PlotColor::blue}};
  plot.markers = {{1, "end of look-back"}};
  int titles = 0;
  for (const auto& e : elements_of(plot_svg(plot))) {
    if (e.name == "text" && e.attributes.count("x")) {
      EXPECT_GE(e.number("x"), 0);
      EXPECT_LE(e.number("x"), 360);
      EXPECT_LE(e.number("y"), 320);
      titles += e.attributes.at("class") == "t h";
    }
    if (e.name == "path")
      for (const auto& run : path_points(e.attributes.at("d")))
        for (const Point& p : run) {
          EXPECT_GE(p.x, 0);
          EXPECT_LE(p.x, 360);
          EXPECT_GE(p.y, 0);
          EXPECT_LE(p.y, 320 - 49);
        }
  }
  EXPECT_GE(titles, 2);
}

TEST(Plot, MissingValuesLeaveGapsAndLonePointsAreSeen) {
  Plot plot;
  plot.series = {{"s", {0, 1, 2, 3, 4, 5}, {1, 2, NAN, 3, INFINITY, 4}, PlotColor::blue, false}};
  auto all = elements_of(plot_svg(plot));
  std::string d = paths(all, "s1").back();
  EXPECT_EQ(std::count(d.begin(), d.end(), 'M'), 3);
  EXPECT_EQ(std::count(d.begin(), d.end(), 'h'), 2);  // dots
  plot.log_y = true;
  plot.series[0].y = {1, 2, 0, 3, -4, 4};
  all = elements_of(plot_svg(plot));
  d = paths(all, "s1").back();
  EXPECT_EQ(std::count(d.begin(), d.end(), 'M'), 3);
}

TEST(Plot, BandIsTheHighEdgeAndTheLowEdgeBackwards) {
  Plot plot;
  plot.bands = {{"", {0, 1, 2, 3}, {0, 1, NAN, 5}, {10, 11, 12, 15}, PlotColor::purple}};
  plot.series = {{"", {0, 3}, {0, 20}, PlotColor::ink, false}};
  const auto all = elements_of(plot_svg(plot));
  const Scale x = scale_of(all, false), y = scale_of(all, true);
  const auto runs = path_points(paths(all, "f4").at(0));
  ASSERT_EQ(runs.size(), 2u);  // a gap at x = 2
  ASSERT_EQ(runs[0].size(), 4u);
  const double values[4][2] = {{0, 10}, {1, 11}, {1, 1}, {0, 0}};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(runs[0][size_t(i)].x, x.pixel(values[i][0]), 0.5);
    EXPECT_NEAR(runs[0][size_t(i)].y, y.pixel(values[i][1]), 0.5);
  }
}

TEST(Plot, MarkersAndTicksOfOnesOwn) {
  Plot plot;
  plot.series = {{"", {0, 100}, {0, 1}, PlotColor::ink, false}};
  plot.x_ticks = {{0, "0"}, {50, "50"}, {51, "too near"}, {100, "100"}, {200, "outside"}};
  plot.markers = {{25, "M"}, {500, "outside"}};
  const auto all = elements_of(plot_svg(plot));
  const Scale x = scale_of(all, false);
  int markers = 0;
  for (const auto& e : all) {
    if (e.name == "line" && e.attributes.at("class") == "m") {
      ++markers;
      EXPECT_NEAR(e.number("x1"), x.pixel(25), 0.2);
    }
    EXPECT_NE(e.text, "outside");
    EXPECT_NE(e.text, "too near");
  }
  EXPECT_EQ(markers, 1);
}

TEST(Plot, HostileTextsAndValuesGiveWellFormedPictures) {
  std::mt19937_64 random(5);
  const double odd[] = {0,      -0.0, NAN,       INFINITY, -INFINITY, 1e308, -1e308,
                        5e-324, 1,    1 + 1e-15, 1e-300,   123456789, 1e15};
  const std::string texts[] = {"<script>alert('x')</script>",
                               "a & b \"c\"",
                               "\x01\x02\n",
                               "\xff\xfe",
                               "]]>",
                               "Temp \xc2\xb0"
                               "C",
                               "",
                               std::string(500, 'w')};
  for (int i = 0; i < 2000; ++i) {
    Plot plot;
    plot.log_y = random() % 2;
    plot.title = texts[random() % 8];
    plot.x_label = texts[random() % 7];
    plot.y_label = texts[random() % 7];
    for (size_t n = random() % 3; n > 0; --n) {
      PlotSeries s{texts[random() % 7], {}, {}, PlotColor(random() % 6), random() % 2 == 0};
      for (size_t k = random() % 6; k > 0; --k)
        s.x.push_back(odd[random() % 13]), s.y.push_back(odd[random() % 13]);
      plot.series.push_back(s);
      plot.bands.push_back({texts[random() % 7], s.x, s.y, s.y, PlotColor::gray});
    }
    plot.markers = {{odd[random() % 13], texts[random() % 7]}};
    plot.height = 700;
    const std::string svg = plot_svg(plot);
    const auto all = elements_of(svg);
    ASSERT_FALSE(testing::Test::HasFailure()) << "round " << i << "\n" << svg;
    for (const auto& e : all)
      for (const auto& [key, value] : e.attributes)
        if (key == "d" || key == "x" || key == "y" || key[0] == 'x' || key[0] == 'y') {
          if (key == "xmlns") continue;
          EXPECT_EQ(value.find("nan"), std::string::npos);
          EXPECT_EQ(value.find("inf"), std::string::npos);
        }
    EXPECT_EQ(svg.find("<script"), std::string::npos);
  }
}

TEST(Plot, NoDataSaysSo) {
  const std::string svg = plot_svg(Plot{});
  elements_of(svg);
  EXPECT_NE(svg.find(">no data<"), std::string::npos);
}

TEST(Plot, LongSeriesAreThinnedButKeepTheirExtremes) {
  Plot plot;
  PlotSeries s{"", {}, {}, PlotColor::blue, false};
  for (int i = 0; i < 100000; ++i)
    s.x.push_back(i), s.y.push_back(i == 77777 ? 50 : i == 12345 ? -40 : std::sin(i * 0.1));
  plot.series = {s};
  const std::string svg = plot_svg(plot);
  EXPECT_LT(svg.size(), 80000u);
  const auto all = elements_of(svg);
  const Scale x = scale_of(all, false), y = scale_of(all, true);
  const auto run = path_points(paths(all, "s1").at(0)).at(0);
  Point top = run[0], bottom = run[0];
  for (const Point& p : run) {
    if (p.y < top.y) top = p;
    if (p.y > bottom.y) bottom = p;
  }
  EXPECT_NEAR(top.y, y.pixel(50), 0.5);
  EXPECT_NEAR(top.x, x.pixel(77777), 0.5);
  EXPECT_NEAR(bottom.y, y.pixel(-40), 0.5);
  EXPECT_NEAR(bottom.x, x.pixel(12345), 0.5);
}

TEST(Plot, RoundTicks) {
  EXPECT_EQ(round_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(-1, 1, 4), (std::vector<double>{-1, -0.5, 0, 0.5, 1}));
  EXPECT_EQ(round_ticks(3, 97, 4), (std::vector<double>{50}));
  EXPECT_TRUE(round_ticks(1, 1, 5).empty());
  EXPECT_TRUE(round_ticks(NAN, 1, 5).empty());
  EXPECT_TRUE(round_ticks(1e18, 1e18 + 1000, 5).empty());
  EXPECT_LE(round_ticks(-1.7e308, 1.7e308, 5).size(), 6u);
  EXPECT_LE(round_ticks(0, 1e-322, 5).size(), 6u);
  std::mt19937_64 random(9);
  for (int i = 0; i < 1000; ++i) {
    const double low = std::ldexp(double(random() % 2000) - 1000, int(random() % 20) - 10),
                 high = low + std::ldexp(1 + double(random() % 1000), int(random() % 20) - 10);
    const int count = 2 + int(random() % 10);
    const auto ticks = round_ticks(low, high, count);
    const double slack = 1e-5 * (high - low);
    for (const double t : ticks) EXPECT_TRUE(t >= low - slack && t <= high + slack);
    EXPECT_LE(ticks.size(), size_t(count) + 1);
    EXPECT_GE(double(ticks.size()), count / 2.5 - 1.01);
  }
}

TEST(Plot, LegendListsLabelledSeriesOnly) {
  Plot plot;
  plot.series = {{"truth", {0, 1}, {0, 1}, PlotColor::ink, false},
                 {"", {0, 1}, {1, 0}, PlotColor::gray, false}};
  plot.bands = {{"band", {0, 1}, {0, 1}, {1, 2}, PlotColor::blue}};
  const auto all = elements_of(plot_svg(plot));
  EXPECT_EQ(paths(all, "s0").size(), 2u);  // swatch and line
  EXPECT_EQ(paths(all, "s5").size(), 1u);
  int swatches = 0;
  for (const auto& e : all) swatches += e.name == "rect" && e.attributes.at("class") == "f1";
  EXPECT_EQ(swatches, 1);
}

TEST(Plot, StandsAloneOrInline) {
  const std::string file = plot_svg(Plot{}), page = plot_svg(Plot{}, false);
  EXPECT_NE(file.find("xmlns=\"http://www.w3.org/2000/svg\""), std::string::npos);
  EXPECT_NE(file.find("prefers-color-scheme"), std::string::npos);
  EXPECT_EQ(page.find("<style"), std::string::npos);
  EXPECT_NE(plot_css().find("prefers-color-scheme"), std::string::npos);
}

TEST(Plot, WrongSizesAreRefused) {
  Plot plot;
  plot.series = {{"s", {0, 1}, {0}, PlotColor::ink, false}};
  EXPECT_THROW(plot_svg(plot), Error);
  plot.series.clear();
  plot.bands = {{"b", {0, 1}, {0, 1}, {0}, PlotColor::ink}};
  EXPECT_THROW(plot_svg(plot), Error);
  plot.bands.clear();
  plot.width = 10;
  EXPECT_THROW(plot_svg(plot), Error);
}

}  // namespace
}  // namespace modrwkv
