// Line charts as SVG text.
#include "train/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/options.h"

namespace modrwkv {
namespace {

constexpr double kFont = 13, kTitleFont = 15;  // pixels
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Hue {
  const char *light, *dark;
};
// Contrast of at least 3:1 to both backgrounds' counterparts; told apart without colour vision together with
// dashes.
constexpr Hue kHues[] = {{"#1f2937", "#e5e7eb"}, {"#2563eb", "#6ea8fe"}, {"#c2570c", "#fb9a4b"},
                         {"#15803d", "#4fd07f"}, {"#9333ea", "#c792ff"}, {"#6b7280", "#9ca3af"}};
const Hue& hue(PlotColor c) { return kHues[int(c)]; }

// An estimate in pixels, a little above what common sans-serif fonts take.
double text_width(const std::string& text, double font) {
  double width = 0;
  for (const char c : text) {
    if ((c & 0xc0) == 0x80) continue;  // inside of a UTF-8 sequence
    const bool thin = std::string_view(" .,:;!|'ijlI()[]-/").find(c) != std::string_view::npos;
    const bool wide =
        c == 'm' || c == 'w' || c == '%' || c == '@' || (c & 0x80) || (c >= 'A' && c <= 'Z' && c != 'I');
    width += thin ? 0.4 : wide ? 0.8 : 0.62;
  }
  return width * font;
}

// Lines of at most `width` pixels, broken at blanks.
std::vector<std::string> lines_of(const std::string& text, double width, double font) {
  std::vector<std::string> lines(1);
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const std::string word = text.substr(begin, end - begin);
    if (!lines.back().empty() && text_width(lines.back() + " " + word, font) > width) lines.emplace_back();
    lines.back() += (lines.back().empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return lines;
}

// ------------------------------------------------------------------ axes

struct Interval {
  double low = kInfinity, high = -kInfinity;
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return low > high; }
};

// Value to pixel; logarithmic axes see log10 of the value.
struct Axis {
  double low = 0, high = 1;    // in drawn units
  double first = 0, last = 1;  // pixels of low and high
  bool log = false;
  double drawn(double v) const { return log ? std::log10(v) : v; }
  bool shows(double v) const { return std::isfinite(v) && (!log || v > 0); }
  double pixel(double v) const {
    // Halves, because high - low may overflow.
    return first + (last - first) * ((drawn(v) / 2 - low / 2) / (high / 2 - low / 2));
  }
};

// The range of values with some air; a single value gets a range around it.
Axis make_axis(const Interval& values, bool log, double air) {
  Axis axis;
  axis.log = log;
  if (values.empty()) return axis.low = 0, axis.high = 1, axis;
  double low = axis.drawn(values.low), high = axis.drawn(values.high);
  const double least = log ? 0.1 : 1e-9 * std::max(std::abs(low), std::abs(high));
  if (high / 2 - low / 2 <= least / 2) {
    const double around = log ? 0.5 : low == 0 ? 1 : std::max(std::abs(low) * 0.1, 1e-300);
    low -= around;
    high += around;
  } else {
    const double more = (high / 2 - low / 2) * 2 * air;
    if (std::isfinite(low - more) && std::isfinite(high + more)) low -= more, high += more;
  }
  axis.low = low;
  axis.high = high;
  return axis;
}

std::string tick_text(double value, double step) {
  const double largest = std::max(std::abs(value), step);
  if (value == 0) return "0";
  if (largest >= 1e6 || step < 1e-5) {
    const int digits =
        std::clamp(int(std::floor(std::log10(std::abs(value))) - std::floor(std::log10(step) + 1e-9)), 0, 15);
    return fmt::format("{:.{}e}", value, digits);
  }
  const int decimals = std::max(0, int(-std::floor(std::log10(step) + 1e-9)));
  return fmt::format("{:.{}f}", value, decimals);
}

using Ticks = std::vector<std::pair<double, std::string>>;

Ticks linear_ticks(const Axis& axis, int count) {
  Ticks ticks;
  const auto values = round_ticks(axis.low, axis.high, count);
  for (const double v : values)
    ticks.emplace_back(v,
                       tick_text(v, values.size() > 1 ? values[1] - values[0] : std::max(std::abs(v), 1e-300)));
  return ticks;
}

// Powers of ten, with 2 and 5 between them where there are few; round numbers where the range is less than a
// decade.
Ticks log_ticks(const Axis& axis, int count) {
  const double low = std::pow(10, axis.low), high = std::pow(10, axis.high);
  if (axis.high - axis.low < 1) {
    Axis plain = axis;
    plain.low = low;
    plain.high = high;
    return linear_ticks(plain, count);
  }
  Ticks ticks;
  const int decades = int(std::floor(axis.high) - std::ceil(axis.low)) + 1;
  const int each = std::max(1, (decades + count) / (count + 1));
  for (int d = int(std::floor(axis.low)); d <= int(std::ceil(axis.high)); ++d) {
    if ((d % each + each) % each != 0) continue;
    for (const int m : {1, 2, 5}) {
      if (m > 1 && 3 * decades > 2 * count) break;
      const double v = m * std::pow(10.0, d);
      if (!(v > 0) || !std::isfinite(v) || v < low || v > high) continue;
      ticks.emplace_back(v, v >= 1e-4 && v < 1e6 ? fmt::format("{:.6g}", v) : fmt::format("{:.0e}", v));
    }
  }
  return ticks;
}

// ------------------------------------------------------------------ points

struct Point {
  double x, y;  // pixels
};
using Run = std::vector<Point>;  // without gaps

std::vector<Run> runs_of(const std::vector<double>& x, const std::vector<double>& y, const Axis& ax,
                         const Axis& ay) {
  std::vector<Run> runs;
  bool open = false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!ax.shows(x[i]) || !ay.shows(y[i])) {
      open = false;
      continue;
    }
    if (!open) runs.emplace_back();
    open = true;
    runs.back().push_back({ax.pixel(x[i]), ay.pixel(y[i])});
  }
  return runs;
}

// First, lowest, highest and last of each pixel column, in their order; for lines whose x grows.
Run thinned(const Run& run) {
  Run out;
  for (size_t begin = 0; begin < run.size();) {
    size_t end = begin, low = begin, high = begin;
    for (; end < run.size() && std::floor(run[end].x) == std::floor(run[begin].x); ++end) {
      if (run[end].y < run[low].y) low = end;
      if (run[end].y > run[high].y) high = end;
    }
    size_t keep[4] = {begin, low, high, end - 1};
    std::sort(keep, keep + 4);
    for (size_t k = 0; k < 4; ++k)
      if (k == 0 || keep[k] != keep[k - 1]) out.push_back(run[keep[k]]);
    begin = end;
  }
  return out;
}

Run thinned_if_long(const Run& run, double width) {
  return double(run.size()) > 2 * width ? thinned(run) : run;
}

std::string path_of(const std::vector<Run>& runs, double width) {
  std::string path;
  for (const Run& full : runs) {
    const Run run = thinned_if_long(full, width);
    for (size_t i = 0; i < run.size(); ++i)
      path += fmt::format("{}{:.1f},{:.1f}", i == 0 ? 'M' : 'L', run[i].x, run[i].y);
    if (run.size() == 1) path += "h0.01";  // round ends make it a dot
  }
  return path;
}

// ------------------------------------------------------------------ pieces of the picture

std::string text_at(double x, double y, const char* classes, const char* anchor, const std::string& text,
                    double font = kFont) {
  return fmt::format(
      "<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" font-size=\"{}\" text-anchor=\"{}\" "
      "fill=\"#374151\">{}</text>\n",
      classes, x, y, font, anchor, xml_escape(text));
}

std::string line_at(double x1, double y1, double x2, double y2, const char* classes, const char* color,
                    const char* more = "") {
  return fmt::format(
      "<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"{}/>\n", classes,
      x1, y1, x2, y2, color, more);
}

std::string stroke_of(const PlotSeries& s) {
  return fmt::format(
      "class=\"s{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\" "
      "stroke-linecap=\"round\"{}",
      int(s.color), hue(s.color).light, s.color == PlotColor::gray ? "1.2\" stroke-opacity=\"0.6" : "1.8",
      s.dashed ? " stroke-dasharray=\"5 4\"" : "");
}

std::string fill_of(const PlotBand& b) {
  return fmt::format("class=\"f{}\" fill=\"{}\" fill-opacity=\"0.18\" stroke=\"none\"", int(b.color),
                     hue(b.color).light);
}

// A row of swatches and labels that breaks at the right border. Returns the height used.
double legend(const Plot& plot, double left, double right, double top, std::string& out) {
  constexpr double kSwatch = 22, kGap = 6, kBetween = 16, kRow = 20;
  double x = left, y = top;
  bool any = false;
  const auto entry = [&](const std::string& label, auto&& swatch) {
    if (label.empty()) return;
    const double width = kSwatch + kGap + text_width(label, kFont);
    if (any && x + width > right) {
      x = left;
      y += kRow;
    }
    any = true;
    out += swatch(x, y + kRow / 2) + text_at(x + kSwatch + kGap, y + kRow / 2 + 4.5, "t", "start", label);
    x += width + kBetween;
  };
  for (const auto& s : plot.series)
    entry(s.label, [&](double at, double middle) {
      return fmt::format("<path {} d=\"M{:.1f},{:.1f}h{}\"/>\n", stroke_of(s), at, middle, kSwatch);
    });
  for (const auto& b : plot.bands)
    entry(b.label, [&](double at, double middle) {
      return fmt::format("<rect {} x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" height=\"12\"/>\n", fill_of(b), at,
                         middle - 6, kSwatch);
    });
  return any ? y + kRow - top : 0;
}

void check(const Plot& plot) {
  for (const auto& s : plot.series)
    require(s.x.size() == s.y.size(), "plot: series \"{}\" has {} x and {} y values", one_line(s.label, 60),
            s.x.size(), s.y.size());
  for (const auto& b : plot.bands)
    require(b.x.size() == b.low.size() && b.x.size() == b.high.size(),
            "plot: band \"{}\" has {} x, {} low and {} high values", one_line(b.label, 60), b.x.size(),
            b.low.size(), b.high.size());
  require(plot.width >= 120 && plot.height >= 100, "plot: {} x {} pixels, expected at least 120 x 100",
          plot.width, plot.height);
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  std::vector<double> ticks;
  const double span = high / std::max(count, 1) - low / std::max(count, 1);
  // Nor where the bounds are so close together that their difference is mostly rounding.
  if (!(span > 1e-12 * std::max(std::abs(low), std::abs(high))) || !std::isfinite(span)) return ticks;
  double step = std::pow(10, std::floor(std::log10(span)));
  for (const double factor : {1.0, 2.0, 5.0, 10.0})
    if (factor * step >= span * (1 - 1e-9)) {
      step *= factor;
      break;
    }
  // Counted, not summed; -0 becomes 0. The bounds get a hair, so that a tick on the border is kept.
  const double first = std::ceil(low / step - 1e-6), last = std::floor(high / step + 1e-6);
  for (double k = first; k <= last && ticks.size() < 1000; ++k) ticks.push_back(k * step + 0.0);
  return ticks;
}

std::string xml_escape(const std::string& text) {
  std::string out;
  for (const char c : one_line(text, text.size())) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return out;
}

std::string plot_css() {
  std::string dark;
  for (size_t i = 0; i < std::size(kHues); ++i)
    dark += fmt::format(".mp .s{0}{{stroke:{1}}}.mp .f{0}{{fill:{1}}}", i, kHues[i].dark);
  return ".mp text{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif}"
         ".mp .h{font-weight:600}.mp .n{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
         "@media (prefers-color-scheme:dark){.mp .bg{fill:#14181f}.mp .n{stroke:#14181f}.mp "
         "text{fill:#cbd5e1}.mp "
         ".g{stroke:#2b3340}.mp .a{stroke:#64748b}"
         ".mp .m{stroke:#94a3b8}" +
         dark + "}";
}

std::string plot_svg(const Plot& plot, bool standalone) {
  check(plot);
  Interval xs, ys;
  const auto add = [&](const std::vector<double>& x, const std::vector<double>& y) {
    for (size_t i = 0; i < x.size(); ++i) {
      if (!std::isfinite(x[i]) || !std::isfinite(y[i]) || (plot.log_y && y[i] <= 0)) continue;
      xs.add(x[i]);
      ys.add(y[i]);
    }
  };
  for (const auto& s : plot.series) add(s.x, s.y);
  for (const auto& b : plot.bands) {
    add(b.x, b.low);
    add(b.x, b.high);
  }
  const bool no_data = ys.empty();
  Axis ax = make_axis(xs, false, 0), ay = make_axis(ys, plot.log_y && !no_data, 0.04);

  const double width = plot.width, height = plot.height;
  std::string head;
  double top = 10;
  if (!plot.title.empty()) {
    for (const auto& line : lines_of(plot.title, width - 24, kTitleFont)) {
      head += text_at(12, top + 14, "t h", "start", line, kTitleFont);
      top += 20;
    }
    top += 6;
  }
  top += legend(plot, 12, width - 12, top, head) + 8;
  const double bottom = height - (plot.x_label.empty() ? 30 : 50);
  const Ticks y_ticks = ay.log ? log_ticks(ay, std::max(2, int((bottom - top) / 34)))
                               : linear_ticks(ay, std::max(2, int((bottom - top) / 34)));
  double widest = 0;
  for (const auto& [v, text] : y_ticks) widest = std::max(widest, text_width(text, kFont));
  const double left = (plot.y_label.empty() ? 14 : 36) + widest + 8, right = width - 18;
  require(right - left >= 40 && bottom - top >= 20, "plot: {} x {} pixels are too few for its labels",
          plot.width, plot.height);
  ax.first = left, ax.last = right;
  ay.first = bottom, ay.last = top;

  std::string svg = "<svg class=\"mp\"";
  if (standalone) svg += " xmlns=\"http://www.w3.org/2000/svg\"";
  svg += fmt::format(
      " viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" style=\"max-width:100%;height:auto\" role=\"img\" "
      "aria-label=\"{2}\" "
      "font-family=\"sans-serif\">\n",
      plot.width, plot.height, xml_escape(plot.title.empty() ? "chart" : plot.title));
  if (standalone) svg += "<style>" + plot_css() + "</style>\n";
  svg += fmt::format("<rect class=\"bg\" width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>\n", plot.width,
                     plot.height) +
         head;

  for (const auto& [v, text] : y_ticks) {
    const double y = ay.pixel(v);
    svg += line_at(left, y, right, y, "g", "#e5e7eb") + text_at(left - 8, y + 4.5, "t ty", "end", text);
  }
  Ticks x_ticks = plot.x_ticks;
  if (x_ticks.empty()) {
    const double each = text_width(tick_text(ax.high, std::abs(ax.high - ax.low) / 10), kFont) + 45;
    x_ticks = linear_ticks(ax, std::clamp(int((right - left) / each), 2, 12));
  }
  double free_from = 0;
  for (const auto& [v, text] : x_ticks) {
    const double x = ax.pixel(v), half = text_width(text, kFont) / 2;
    if (!(x >= left - 0.5 && x <= right + 0.5)) continue;
    svg += line_at(x, bottom, x, bottom + 5, "a", "#9ca3af");
    // A label keeps inside the picture and off its neighbour.
    const double at = std::clamp(x, half + 2, width - half - 2);
    if (at - half < free_from) continue;
    free_from = at + half + 8;
    svg += text_at(at, bottom + 20, "t tx", "middle", text);
  }
  svg += line_at(left, bottom, right, bottom, "a", "#9ca3af");
  if (!plot.x_label.empty()) svg += text_at((left + right) / 2, height - 10, "t", "middle", plot.x_label);
  if (!plot.y_label.empty()) {
    const double x = 20, y = (top + bottom) / 2;
    svg += fmt::format(
        "<text class=\"t\" transform=\"translate({:.1f} {:.1f}) rotate(-90)\" font-size=\"{}\" "
        "text-anchor=\"middle\" fill=\"#374151\">{}</text>\n",
        x, y, kFont, xml_escape(plot.y_label));
  }

  for (const auto& b : plot.bands) {
    // Pieces without gaps; the way back runs along the low edge.
    std::vector<double> high = b.high, low = b.low;
    for (size_t i = 0; i < high.size(); ++i)
      if (!ay.shows(high[i]) || !ay.shows(low[i])) high[i] = low[i] = NAN;
    const auto upper = runs_of(b.x, high, ax, ay), lower = runs_of(b.x, low, ax, ay);
    std::string path;
    for (size_t r = 0; r < upper.size(); ++r) {
      const Run up = thinned_if_long(upper[r], right - left);
      Run down = thinned_if_long(lower[r], right - left);
      std::reverse(down.begin(), down.end());
      for (size_t i = 0; i < up.size(); ++i)
        path += fmt::format("{}{:.1f},{:.1f}", i == 0 ? 'M' : 'L', up[i].x, up[i].y);
      for (const Point& p : down) path += fmt::format("L{:.1f},{:.1f}", p.x, p.y);
      path += "Z";
    }
    if (!path.empty() && !no_data) svg += fmt::format("<path {} d=\"{}\"/>\n", fill_of(b), path);
  }
  for (const auto& m : plot.markers) {
    const double x = ax.pixel(m.x);
    if (!(x >= left - 0.5 && x <= right + 0.5)) continue;
    svg += line_at(x, top, x, bottom, "m", "#6b7280", " stroke-dasharray=\"3 3\"");
    const bool room = x + 6 + text_width(m.label, kFont) <= right;
    if (!m.label.empty())
      svg += text_at(room ? x + 6 : x - 6, top + 11, "t n", room ? "start" : "end", m.label);
  }
  for (const auto& s : plot.series) {
    const std::string path = path_of(runs_of(s.x, s.y, ax, ay), right - left);
    if (!path.empty() && !no_data) svg += fmt::format("<path {} d=\"{}\"/>\n", stroke_of(s), path);
  }
  if (no_data) svg += text_at((left + right) / 2, (top + bottom) / 2, "t", "middle", "no data");
  return svg + "</svg>\n";
}

}  // namespace modrwkv
