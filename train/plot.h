// Line charts as SVG text: axes, ticks, legend, bands, markers. A chart stands alone as an .svg file or inline
// in HTML, follows the viewer's dark mode, and tells series apart by colour and dash.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace modrwkv {

// Fixed roles, so that all charts of the project read alike.
enum class PlotColor { ink, blue, orange, green, purple, gray };

struct PlotSeries {
  std::string label;  // in the legend; empty: not listed
  std::vector<double> x,
      y;  // of the same length; a NaN or infinity (and 0 or less on a logarithmic axis) leaves a gap
  PlotColor color = PlotColor::blue;
  bool dashed = false;
};

struct PlotBand {  // filled between low and high
  std::string label;
  std::vector<double> x, low, high;
  PlotColor color = PlotColor::blue;
};

struct PlotMarker {  // vertical dashed line
  double x = 0;
  std::string label;
};

struct Plot {
  std::string title, x_label, y_label;
  std::vector<PlotBand> bands;     // drawn first
  std::vector<PlotSeries> series;  // later ones lie above
  std::vector<PlotMarker> markers;
  std::vector<std::pair<double, std::string>>
      x_ticks;  // instead of round numbers, such as dates; those that would overlap are left out
  bool log_y = false;
  int width = 800, height = 320;  // pixels
};

// Throws Error for lengths that differ. More points than pixels are thinned to the extremes of each pixel
// column. `standalone`: with XML namespace and style, as a file; otherwise for a page that holds plot_css()
// once.
std::string plot_svg(const Plot& plot, bool standalone = true);
std::string plot_css();

std::string xml_escape(
    const std::string& text);  // of text and attributes; control characters and broken UTF-8 are replaced

// At most about `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high].
std::vector<double> round_ticks(double low, double high, int count);

}  // namespace modrwkv
