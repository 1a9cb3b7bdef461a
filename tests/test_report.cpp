// report.html: one well-formed page that asks for nothing else, with the data that went in.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "tests/xml_check.h"
#include "train/report.h"

namespace modrwkv {
namespace {

Report sample() {
  Report r;
  r.title = "ETTh1 <96> & \"more\"";
  r.summary = "One sentence.";
  r.tables = {{"Scores",
               "A note.",
               {"", "MSE", "MAE"},
               {{{"ModRWKV", "0.371", "0.396"}, true}, {{"last <value>", "1.294", "0.713"}, false}}}};
  Plot plot;
  plot.title = "window 3";
  plot.series = {{"truth", {0, 1, 2}, {1, 2, 3}, PlotColor::ink, false}};
  r.figures = {{plot, "Median window & its band"}};
  for (int step = 1; step <= 200; ++step) {
    r.metrics.push_back(Json::object().set("step", step).set("loss", 2.0 / step).set("lr", 1e-3 * step));
    if (step % 50 == 0)
      r.metrics.push_back(Json::object().set("step", step).set("eval", "validation").set("mse", 3.0 / step));
  }
  r.options = {{"run", "data", "\"a.h5\"", "packed set", false},
               {"run", "steps", "1100", "optimiser <steps>", true}};
  r.footer = "2 cores";
  return r;
}

std::vector<XmlElement> elements_of(const std::string& html) {
  std::string problem;
  auto all = read_xml(html, problem, true);
  EXPECT_EQ(problem, "");
  return all;
}

TEST(Report, IsWellFormedAndNeedsNoNetworkAndNoScript) {
  const std::string html = make_report(sample());
  const auto all = elements_of(html);
  EXPECT_EQ(html.find("http:"), std::string::npos);
  EXPECT_EQ(html.find("https:"), std::string::npos);
  EXPECT_EQ(html.find("url("), std::string::npos);
  EXPECT_EQ(html.find("@import"), std::string::npos);
  for (const auto& e : all) {
    for (const char* name : {"script", "link", "iframe", "img", "object"}) EXPECT_NE(e.name, name);
    EXPECT_EQ(e.attributes.count("src") + e.attributes.count("href"), 0u);
  }
  EXPECT_NE(html.find("name=\"viewport\""), std::string::npos);
  EXPECT_NE(html.find("prefers-color-scheme"), std::string::npos);
}

TEST(Report, HoldsTablesOptionsFiguresAndTexts) {
  const auto all = elements_of(make_report(sample()));
  std::vector<std::string> cells, headers, captions, options;
  int ours = 0, changed = 0, pictures = 0;
  std::string title;
  for (const auto& e : all) {
    if (e.name == "td" && e.attributes.empty()) cells.push_back(e.text);
    if (e.name == "th") headers.push_back(e.text);
    if (e.name == "figcaption") captions.push_back(e.text);
    if (e.name == "code") options.push_back(e.text);
    if (e.name == "h1") title = e.text;
    if (e.name == "tr" && e.attributes.count("class")) {
      ours += e.attributes.at("class") == "ours";
      changed += e.attributes.at("class") == "changed";
    }
    pictures += e.name == "svg";
  }
  EXPECT_EQ(title, "ETTh1 <96> & \"more\"");
  EXPECT_EQ(headers, (std::vector<std::string>{"", "MSE", "MAE"}));
  EXPECT_EQ(std::vector<std::string>(cells.begin(), cells.begin() + 6),
            (std::vector<std::string>{"ModRWKV", "0.371", "0.396", "last <value>", "1.294", "0.713"}));
  EXPECT_EQ(options, (std::vector<std::string>{"data", "\"a.h5\"", "steps", "1100"}));
  EXPECT_EQ(captions, (std::vector<std::string>{"Median window & its band"}));
  EXPECT_EQ(ours, 1);
  EXPECT_EQ(changed, 1);
  EXPECT_EQ(pictures, 2 * 3);  // figure, loss, learning rate; each wide and narrow
}

TEST(Report, EmptyPartsLeaveNoHeadings) {
  Report r;
  r.title = "T";
  for (const auto& e : elements_of(make_report(r))) {
    EXPECT_NE(e.name, "h2");
    EXPECT_NE(e.name, "table");
    EXPECT_NE(e.name, "svg");
  }
}

TEST(Report, CurvesComeFromTheRowsOfMetrics) {
  const Report r = sample();
  const Plot loss = loss_curve(r.metrics, "mse", true);
  EXPECT_TRUE(loss.log_y);
  ASSERT_EQ(loss.series.size(), 3u);
  ASSERT_EQ(loss.series[0].y.size(), 200u);
  EXPECT_EQ(loss.series[0].x[9], 10);
  EXPECT_EQ(loss.series[0].y[9], 0.2);
  EXPECT_EQ(loss.series[2].x, (std::vector<double>{50, 100, 150, 200}));
  EXPECT_EQ(loss.series[2].y[1], 0.03);
  // The running mean over i - 2 .. i + 2, cut at the ends.
  const auto f = [](int i) { return 2.0 / (i + 1); };
  EXPECT_NEAR(loss.series[1].y[0], (f(0) + f(1) + f(2)) / 3, 1e-12);
  EXPECT_NEAR(loss.series[1].y[100], (f(98) + f(99) + f(100) + f(101) + f(102)) / 5, 1e-12);
  EXPECT_NEAR(loss.series[1].y[199], (f(197) + f(198) + f(199)) / 3, 1e-12);
  const Plot rate = learning_rate_curve(r.metrics);
  EXPECT_EQ(rate.series[0].y[199], 1e-3 * 200);
}

TEST(Report, SkippedStepsAreGaps) {
  std::vector<Json> rows;
  for (int i = 0; i < 120; ++i) rows.push_back(Json::object().set("step", i).set("loss", i == 60 ? NAN : 1.0));
  rows.push_back(Json::object().set("step", 120));
  const Plot loss = loss_curve(rows, "mse", false);
  EXPECT_TRUE(std::isnan(loss.series[0].y[60]));
  EXPECT_TRUE(std::isnan(loss.series[0].y[120]));
  EXPECT_EQ(loss.series[1].y[60], 1);  // the mean of its neighbours
  Report r;
  r.metrics = rows;
  elements_of(make_report(r));
}

TEST(Report, WindowsAtPercentiles) {
  const double nan = NAN;
  std::vector<double> errors = {nan, 10};
  for (int i = 100; i >= 1; --i) errors.push_back(i * 1.0);  // window 2 has error 100
  const auto windows = windows_at_percentiles(errors, {0, 10, 50, 90, 100});
  ASSERT_EQ(windows.size(), 5u);
  EXPECT_EQ(errors[windows[0]], 1);
  EXPECT_EQ(errors[windows[1]], 10);  // of 101 values the one at index 10: 1..10, 10, 11
  EXPECT_EQ(errors[windows[2]], 50);
  EXPECT_EQ(errors[windows[3]], 90);
  EXPECT_EQ(errors[windows[4]], 100);
  EXPECT_EQ(windows_at_percentiles({5}, {10, 50, 90}), (std::vector<size_t>{0}));
  EXPECT_TRUE(windows_at_percentiles({nan}, {50}).empty());
  EXPECT_TRUE(windows_at_percentiles({}, {50}).empty());
}

TEST(Report, RowsOfAnotherLengthAreRefused) {
  Report r = sample();
  r.tables[0].rows[0].cells.pop_back();
  EXPECT_THROW(make_report(r), Error);
}

}  // namespace
}  // namespace modrwkv
