// Charts as inline SVG. Colours are Okabe and Ito's, through the page's CSS classes s0..s7; every
// mark has a tooltip.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "mtcki/report/html.h"

namespace mtcki {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending; y may be NaN: a gap
  // Dashed: what the others are compared with. A level of one point is a line across the chart, and
  // left out where it would squeeze the others.
  bool level = false;
};

// At most 2 points per column of x: the least and the largest y, in their order. First and last
// stay.
std::vector<std::pair<double, double>> downsample(
    const std::vector<std::pair<double, double>>& points, int columns);

struct ChartOptions {
  std::string title, x_label = "step";
  bool allow_log = true;  // log y axis when all values are positive and span a factor of 20
  bool markers = false;
  std::string help = {};   // tooltip of the title
  bool log_x = false;      // all x are positive
  bool from_zero = false;  // the y axis
};
// <figure> with the SVG and a legend with each series' last value. Empty string when no series has
// a finite point.
std::string line_chart(const std::vector<Series>& series, const ChartOptions& options);

// One horizontal bar of parts that add up, with a legend: (name, size, size as text).
struct Part {
  std::string name;
  double size = 0;
  std::string text;
};
std::string stacked_bar(const std::vector<Part>& parts, const std::string& title);

// Roofline: work at `flops_per_byte` reaches `gflops`; a circle's area is its share of the time
// (0..1). Both axes are logarithmic.
struct RooflinePoint {
  std::string text;   // of the tooltip
  std::string color;  // CSS class
  double flops_per_byte = 0, gflops = 0, share = 0;
};
// Arithmetic (a level) or bandwidth (a slope of so many GFLOP/s at 1 FLOP per byte).
struct RooflineLimit {
  std::string name;
  double gflops = 0, gbs = 0;  // one of them
};
// axes: points that the axes have room for, too, so that two charts have the same. legend: HTML.
std::string roofline(const std::vector<RooflinePoint>& points,
                     const std::vector<RooflineLimit>& limits, const std::string& title,
                     const std::vector<RooflinePoint>& axes = {}, const std::string& legend = {});

// Bars along one axis of time in lanes, in the order in which lanes appear; bars of a lane that
// overlap are below each other. Empty string for no bars.
struct TimelineBar {
  std::string lane, text, color;  // text: of the tooltip; color: CSS class
  double start = 0, length = 0;
};
std::string timeline_chart(const std::vector<TimelineBar>& bars, const std::string& title,
                           const std::string& x_label, const std::string& legend = {});

// A line of a legend: the colour's CSS class, name and value.
std::string legend_key(const std::string& color, const std::string& name, const std::string& value);

// Round values for about `count` ticks in [low, high].
std::vector<double> nice_ticks(double low, double high, int count);

}  // namespace mtcki
