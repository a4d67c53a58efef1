// Line charts as inline SVG.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace mtcki {

std::string html_escape(const std::string& text);
std::string base64(const std::string& bytes);

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending; y may be NaN: a gap
  bool level = false;  // dashed: something that the others are compared with
};

// At most 2 points per column of x: the least and the largest y, in their order. First and last
// stay.
std::vector<std::pair<double, double>> downsample(
    const std::vector<std::pair<double, double>>& points, int columns);

struct ChartOptions {
  std::string title, x_label = "step";
  bool allow_log = true;  // log y axis when all values are positive and span more than two decades
  bool markers = false;
};
// <figure> with the SVG and a legend with each series' last value. Colours are Okabe and Ito's,
// through the page's CSS classes s0..s7. Empty string when no series has a finite point.
std::string line_chart(const std::vector<Series>& series, const ChartOptions& options);

// Round values for about `count` ticks in [low, high].
std::vector<double> nice_ticks(double low, double high, int count);

}  // namespace mtcki
