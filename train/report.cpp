// report.html of a run.
#include "train/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace modrwkv {
namespace {

constexpr const char* kCss =
    R"(:root{color-scheme:light dark;--bg:#fff;--ink:#1f2937;--soft:#5b6472;--line:#e3e6eb;--card:#f7f8fa;--mark:#2563eb}
@media (prefers-color-scheme:dark){:root{--bg:#14181f;--ink:#e5e7eb;--soft:#9aa5b4;--line:#2b3340;--card:#1a2029;--mark:#6ea8fe}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:960px;margin:0 auto;padding:28px 20px 40px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:2.2rem 0 .7rem}
p{margin:.4rem 0}.soft,figcaption,footer{color:var(--soft);font-size:.92rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.32rem .9rem .32rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
.scores th+th,.scores td+td{text-align:right;white-space:nowrap;padding:.32rem .3rem .32rem 1.2rem}
th{font-weight:600;color:var(--soft);font-size:.88rem}
tr.ours td{font-weight:650;color:var(--mark)}
figure{margin:1.1rem 0;padding:10px 12px;border:1px solid var(--line);border-radius:8px}
figcaption{margin-top:.3rem}
figure svg{display:block;margin:0 auto}figure .mp .bg{fill:none}
.narrow{display:none!important}
@media (max-width:640px){.wide{display:none!important}.narrow{display:block!important}main{padding:18px 12px 30px}figure{padding:6px 4px}figcaption{padding:0 6px}
.options td:nth-child(3){display:none}}
code{font-family:ui-monospace,"SF Mono",Consolas,"DejaVu Sans Mono",monospace;font-size:.88em;overflow-wrap:anywhere}
details{margin-top:2.2rem}summary{cursor:pointer;font-size:1.2rem;font-weight:700}
.options{width:100%;margin-top:.6rem;font-size:.92rem}
.options .group td{padding-top:1rem;color:var(--soft);font-weight:600}
tr.changed code{font-weight:700;color:var(--mark)}
footer{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:.8rem;overflow-wrap:anywhere}
)";

// Twice: for a desk and for a phone; the style shows the one that fits, so that letters keep their size.
std::string figure_html(const Plot& plot, const std::string& caption) {
  std::string html = "<figure>\n";
  for (const bool narrow : {false, true}) {
    Plot sized = plot;
    sized.width = narrow ? 360 : 890;
    sized.height = narrow ? 320 : 330;
    html += fmt::format("<div class=\"{}\">\n{}</div>\n", narrow ? "narrow" : "wide", plot_svg(sized, false));
  }
  if (!caption.empty()) html += "<figcaption>" + xml_escape(caption) + "</figcaption>\n";
  return html + "</figure>\n";
}

std::string table_html(const ReportTable& table) {
  std::string html =
      "<h2>" + xml_escape(table.title) + "</h2>\n<div class=\"scroll\"><table class=\"scores\">\n<thead><tr>";
  for (const auto& c : table.columns) html += "<th>" + xml_escape(c) + "</th>";
  html += "</tr></thead>\n<tbody>\n";
  for (const auto& row : table.rows) {
    require(row.cells.size() == table.columns.size(), "report: a row of table \"{}\" has {} cells, expected {}",
            one_line(table.title, 60), row.cells.size(), table.columns.size());
    html += row.ours ? "<tr class=\"ours\">" : "<tr>";
    for (const auto& cell : row.cells) html += "<td>" + xml_escape(cell) + "</td>";
    html += "</tr>\n";
  }
  html += "</tbody></table></div>\n";
  if (!table.note.empty()) html += "<p class=\"soft\">" + xml_escape(table.note) + "</p>\n";
  return html;
}

std::string options_html(const std::vector<OptionRow>& options) {
  const auto changed =
      std::count_if(options.begin(), options.end(), [](const OptionRow& o) { return !o.is_default; });
  std::string html = fmt::format(
      "<details open><summary>Options</summary>\n<p class=\"soft\">{} of {} differ from their default; those "
      "are "
      "coloured.</p>\n<table class=\"options\"><tbody>\n",
      changed, options.size());
  std::string group;
  for (const auto& o : options) {
    if (o.group != group)
      html += "<tr class=\"group\"><td colspan=\"3\">" + xml_escape(group = o.group) + "</td></tr>\n";
    html += fmt::format(
        "<tr{}><td><code>{}</code></td><td><code>{}</code></td><td class=\"soft\">{}</td></tr>\n",
        o.is_default ? "" : " class=\"changed\"", xml_escape(o.key), xml_escape(o.value), xml_escape(o.help));
  }
  return html + "</tbody></table></details>\n";
}

double number_or_nan(const Json& row, const std::string& key) {
  const Json* value = row.find(key);
  return value != nullptr && value->is_number() ? value->as_double() : NAN;
}

PlotSeries curve(const std::vector<Json>& metrics, bool evaluations, const std::string& key) {
  PlotSeries s;
  for (const Json& row : metrics) {
    if ((row.find("eval") != nullptr) != evaluations) continue;
    s.x.push_back(number_or_nan(row, "step"));
    s.y.push_back(number_or_nan(row, key));
  }
  return s;
}

}  // namespace

Plot loss_curve(const std::vector<Json>& metrics, const std::string& score, bool log_y) {
  Plot plot;
  plot.title = "Loss";
  plot.x_label = "step";
  plot.log_y = log_y;
  PlotSeries train = curve(metrics, false, "loss");
  train.label = "training loss";
  train.color = PlotColor::gray;
  // The mean over a fiftieth of the run around each step, beside the noise.
  PlotSeries smooth = train;
  smooth.label = "running mean";
  smooth.color = PlotColor::blue;
  const size_t n = train.y.size(), half = n / 100;
  double sum = 0;
  size_t count = 0;
  const auto take = [&](size_t i, double sign) {
    if (!std::isfinite(train.y[i])) return;
    sum += sign * train.y[i];
    count += sign > 0 ? 1 : size_t(-1);
  };
  for (size_t i = 0, begin = 0, end = 0; i < n; ++i) {
    for (; end < std::min(n, i + half + 1); ++end) take(end, 1);
    for (; begin + half < i; ++begin) take(begin, -1);
    smooth.y[i] = count > 0 ? sum / double(count) : NAN;
  }
  PlotSeries validation = curve(metrics, true, score);
  validation.label = "validation " + score;
  validation.color = PlotColor::orange;
  plot.series.push_back(std::move(train));
  if (smooth.y.size() >= 100) plot.series.push_back(std::move(smooth));
  if (!validation.y.empty()) plot.series.push_back(std::move(validation));
  return plot;
}

Plot learning_rate_curve(const std::vector<Json>& metrics) {
  Plot plot;
  plot.title = "Learning rate";
  plot.x_label = "step";
  plot.series.push_back(curve(metrics, false, "lr"));
  return plot;
}

std::vector<size_t> windows_at_percentiles(const std::vector<double>& errors,
                                           const std::vector<double>& percentiles) {
  std::vector<size_t> order;
  for (size_t i = 0; i < errors.size(); ++i)
    if (!std::isnan(errors[i])) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return errors[a] < errors[b]; });
  std::vector<size_t> chosen;
  if (order.empty()) return chosen;
  for (const double p : percentiles) {
    require(p >= 0 && p <= 100, "report: percentile {}, expected 0 to 100", p);
    const size_t window = order[size_t(std::llround(p / 100 * double(order.size() - 1)))];
    if (std::find(chosen.begin(), chosen.end(), window) == chosen.end()) chosen.push_back(window);
  }
  return chosen;
}

std::string make_report(const Report& report) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      xml_escape(report.title) + "</title>\n<style>\n" + kCss + plot_css() +
      "\n</style>\n</head>\n<body>\n<main>\n<h1>" + xml_escape(report.title) + "</h1>\n";
  if (!report.summary.empty()) html += "<p class=\"soft\">" + xml_escape(report.summary) + "</p>\n";
  for (const auto& table : report.tables) html += table_html(table);
  if (!report.figures.empty()) html += "<h2>Forecasts</h2>\n";
  for (const auto& f : report.figures) html += figure_html(f.plot, f.caption);
  if (!report.metrics.empty()) {
    html += "<h2>Training</h2>\n";
    html += figure_html(loss_curve(report.metrics, report.score, report.log_loss), "");
    html += figure_html(learning_rate_curve(report.metrics), "");
  }
  if (!report.options.empty()) html += options_html(report.options);
  if (!report.footer.empty()) html += "<footer>" + xml_escape(report.footer) + "</footer>\n";
  return html + "</main>\n</body>\n</html>\n";
}

}  // namespace modrwkv
