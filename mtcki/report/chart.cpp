#include "mtcki/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace mtcki {

namespace {

constexpr double kWidth = 520, kHeight = 240;
constexpr double kLeft = 66, kRight = 14, kTop = 10, kBottom = 42;
constexpr int kPlotColumns = 400;

std::string short_number(double v) {
  const double a = std::abs(v);
  if (a >= 1e6) return fmt::format("{:g}M", v / 1e6);
  if (a >= 1e4) return fmt::format("{:g}k", v / 1e3);
  return fmt::format("{:.6g}", v);
}

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  double place(double v) const {  // 0..1
    if (log) return (std::log10(v) - std::log10(low)) / (std::log10(high) - std::log10(low));
    return (v - low) / (high - low);
  }
  std::vector<double> ticks() const {
    if (!log) return nice_ticks(low, high, 5);
    std::vector<double> out;
    for (double e = std::floor(std::log10(low)); e <= std::log10(high); e += 1)
      for (const double m : {1.0, 2.0, 5.0})
        if (const double t = m * std::pow(10.0, e);
            (m == 1 || high / low < 200) && t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9))
          out.push_back(t);
    const size_t every = out.size() / 6 + 1;
    std::vector<double> few;
    for (size_t i = 0; i < out.size(); i += every) few.push_back(out[i]);
    return few;
  }
};

void widen(Axis* a) {
  if (a->log) {
    if (a->high / a->low < 1.2) a->low *= 0.9, a->high *= 1.1;
    return;
  }
  if (a->high - a->low < 1e-12 * std::max(1.0, std::abs(a->high))) {
    const double pad = std::max(std::abs(a->high) * 0.1, 0.5);
    a->low -= pad;
    a->high += pad;
  }
}

}  // namespace

std::vector<std::pair<double, double>> downsample(
    const std::vector<std::pair<double, double>>& points, int columns) {
  if (std::ssize(points) <= 2 * static_cast<int64_t>(columns)) return points;
  const double x0 = points.front().first, x1 = points.back().first;
  const auto column = [&](double x) {
    return x1 > x0 ? std::min(columns - 1, static_cast<int>((x - x0) / (x1 - x0) * columns)) : 0;
  };
  std::vector<std::pair<double, double>> out;
  for (size_t i = 0; i < points.size();) {
    const int c = column(points[i].first);
    size_t least = i, largest = i, end = i;
    bool gap = false;
    for (; end < points.size() && column(points[end].first) == c; ++end) {
      const double y = points[end].second;
      if (!std::isfinite(y)) {
        gap = true;
        continue;
      }
      if (!(points[least].second <= y)) least = end;  // also leaves a NaN start
      if (!(points[largest].second >= y)) largest = end;
    }
    if (i == 0 && least != 0 && largest != 0) out.push_back(points[0]);
    out.push_back(points[std::min(least, largest)]);
    if (least != largest) out.push_back(points[std::max(least, largest)]);
    if (gap) out.emplace_back(points[end - 1].first, std::numeric_limits<double>::quiet_NaN());
    i = end;
  }
  if (out.back() != points.back() && std::isfinite(points.back().second))
    out.push_back(points.back());
  return out;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  const double raw = (high - low) / std::max(1, count);
  if (!(raw > 0) || !std::isfinite(raw)) return {low};
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double m : {1.0, 2.0, 5.0}) {
    if (m * power >= raw) {
      step = m * power;
      break;
    }
  }
  std::vector<double> out;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + step * 1e-9; ++k)
    out.push_back(k == 0 ? 0.0 : k * step);
  return out;
}

std::string legend_key(const std::string& color, const std::string& name,
                       const std::string& value) {
  return fmt::format("<span class=\"key\"><i class=\"{}\"></i>{} <b>{}</b></span>", color,
                     html_escape(name), html_escape(value));
}

namespace {

// Eight colours; what comes after the eighth has them again, broken.
std::string nth_color(size_t i) { return fmt::format("s{}{}", i % 8, i < 8 ? "" : " more"); }

constexpr double kPlotWidth = kWidth - kLeft - kRight;

// A chart without its marks: axes with grid and numbers.
struct Frame {
  Axis x, y;
  double height = kHeight;
  double plot_height() const { return height - kTop - kBottom; }
  double px(double v) const { return kLeft + kPlotWidth * x.place(v); }
  double py(double v) const { return kTop + plot_height() * (1 - y.place(v)); }

  std::string svg(const std::string& title, const std::string& x_label) const {
    std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
                                  kWidth, height, html_escape(title));
    for (const double t : y.ticks())
      out += fmt::format(
          "<line class=\"grid\" x1=\"{0:.0f}\" x2=\"{1:.0f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
          "<text class=\"tick\" x=\"{3:.0f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>",
          kLeft, kWidth - kRight, py(t), kLeft - 6, py(t) + 5, short_number(t));
    return out + x_axis(x_label);
  }
  std::string x_axis(const std::string& x_label) const {
    std::string out;
    for (const double t : x.ticks())
      out += fmt::format(
          "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.0f}\" y2=\"{2:.0f}\"/>"
          "<text class=\"tick\" x=\"{0:.1f}\" y=\"{3:.0f}\" text-anchor=\"middle\">{4}</text>",
          px(t), kTop, kTop + plot_height(), kTop + plot_height() + 18, short_number(t));
    return out + fmt::format(
                     "<text class=\"tick\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}"
                     "</text>",
                     kLeft + kPlotWidth / 2, height - 4, html_escape(x_label));
  }
};

std::string chart_figure(const std::string& title, const std::string& note, const std::string& help,
                         const std::string& svg, const std::string& legend, bool big = false) {
  return fmt::format(
      "<figure{}><figcaption{}>{}{}</figcaption>{}<div class=\"legend\">{}</div></figure>\n",
      big ? " class=\"big\"" : "", help.empty() ? "" : " title=\"" + html_escape(help) + "\"",
      html_escape(title), note, svg, legend);
}

// Smallest and largest finite y of what is not a level of one point; then those levels that lie
// within as much again.
void fit_y(const std::vector<Series>& series, Axis* y, std::vector<bool>* drawn) {
  for (const Series& s : series)
    for (const auto& [px, py] : s.points)
      if (std::isfinite(py) && !(s.level && s.points.size() == 1))
        y->low = std::min(y->low, py), y->high = std::max(y->high, py);
  const double span = std::max(y->high - y->low, 0.02 * std::abs(y->high));
  const double low = y->low - span, high = y->high + span;
  for (const Series& s : series) {
    drawn->push_back(!s.points.empty());
    if (!s.level || s.points.size() != 1) continue;
    const double v = s.points[0].second;
    drawn->back() = v >= low && v <= high;
    if (drawn->back()) y->low = std::min(y->low, v), y->high = std::max(y->high, v);
  }
}

struct Pen {
  std::string path, dots;
  double first = 0, last = std::numeric_limits<double>::quiet_NaN(), low = last, high = last;
};

Pen draw(const Series& s, const Frame& frame, const std::string& color, bool markers,
         const std::string& x_label) {
  Pen pen;
  std::vector<std::pair<double, double>> points = downsample(s.points, kPlotColumns);
  if (s.level && points.size() == 1)
    points = {{frame.x.low, points[0].second}, {frame.x.high, points[0].second}};
  bool down = false;
  for (const auto& [vx, vy] : points) {
    if (!std::isfinite(vy)) {
      down = false;
      continue;
    }
    pen.path += fmt::format("{}{:.1f} {:.1f}", down ? "L" : "M", frame.px(vx), frame.py(vy));
    down = true;
    pen.last = vy;
    pen.low = std::fmin(pen.low, vy), pen.high = std::fmax(pen.high, vy);
    if (markers && points.size() <= 60 && !s.level)
      pen.dots += fmt::format(
          "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>{}: {:.4g} at {} "
          "{:.6g}</title></circle>",
          color, frame.px(vx), frame.py(vy), html_escape(s.name), vy, html_escape(x_label), vx);
  }
  return pen;
}

}  // namespace

std::string line_chart(const std::vector<Series>& series, const ChartOptions& options) {
  const double inf = std::numeric_limits<double>::infinity();
  Frame frame{{inf, -inf, false}, {inf, -inf, false}};
  for (const Series& s : series)
    for (const auto& [px, py] : s.points)
      if (std::isfinite(py) && std::isfinite(px) && !(s.level && s.points.size() == 1))
        frame.x.low = std::min(frame.x.low, px), frame.x.high = std::max(frame.x.high, px);
  std::vector<bool> drawn;
  fit_y(series, &frame.y, &drawn);
  if (!std::isfinite(frame.y.low) || !std::isfinite(frame.x.low)) return "";
  frame.x.log = options.log_x;
  if (options.from_zero) frame.y.low = 0;
  frame.y.log = options.allow_log && frame.y.low > 0 && frame.y.high / frame.y.low > 20;
  widen(&frame.x);
  widen(&frame.y);
  std::string svg = frame.svg(options.title, options.x_label), legend;
  for (size_t i = 0; i < series.size(); ++i) {
    if (!drawn[i]) continue;
    const Series& s = series[i];
    const std::string color = s.level ? "level" : nth_color(i);
    const Pen pen = draw(s, frame, color, options.markers, options.x_label);
    if (pen.path.empty()) continue;
    svg += fmt::format(
               "<path class=\"line {}\" d=\"{}\"><title>{}: {:.4g} to {:.4g}, last {:.4g}"
               "</title></path>",
               color, pen.path, html_escape(s.name), pen.low, pen.high, pen.last) +
           pen.dots;
    legend += legend_key(color, s.name, fmt::format("{:.4g}", pen.last));
  }
  return chart_figure(options.title, frame.y.log ? " <small>(log)</small>" : "", options.help,
                      svg + "</svg>", legend);
}

std::string stacked_bar(const std::vector<Part>& parts, const std::string& title) {
  double total = 0, at = 0;
  for (const Part& p : parts) total += p.size;
  if (!(total > 0)) return "";
  constexpr double kBar = 1000, kHigh = 34;
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", kBar,
                                kHigh, html_escape(title)),
              legend;
  for (size_t i = 0; i < parts.size(); ++i) {
    const double width = kBar * parts[i].size / total;
    const std::string color = nth_color(i);
    svg += fmt::format(
        "<rect class=\"{}\" x=\"{:.1f}\" y=\"0\" width=\"{:.1f}\" height=\"{}\"><title>{}: {}, "
        "{:.0f} %</title></rect>",
        color, at, std::max(0.5, width - 1), kHigh, html_escape(parts[i].name),
        html_escape(parts[i].text), 100 * parts[i].size / total);
    legend += legend_key(color, parts[i].name, parts[i].text);
    at += width;
  }
  return chart_figure(title, "", "", svg + "</svg>", legend);
}

namespace {

// A limit inside the frame, up to the highest peak, with its name along it.
std::string draw_limit(const RooflineLimit& limit, const std::vector<RooflineLimit>& all,
                       const Frame& frame, bool first) {
  double peak = 0, bandwidth = 0;
  for (const RooflineLimit& l : all)
    peak = std::max(peak, l.gflops), bandwidth = std::max(bandwidth, l.gbs);
  const bool level = limit.gflops > 0;
  const auto at = [&](double x) { return level ? limit.gflops : x * limit.gbs; };
  const double from = std::max(
      frame.x.low, level ? bandwidth > 0 ? limit.gflops / bandwidth : 0 : frame.y.low / limit.gbs);
  const double to = level ? frame.x.high : std::min(frame.x.high, peak / limit.gbs);
  if (from >= to) return "";
  const double x1 = frame.px(from), y1 = frame.py(at(from)), x2 = frame.px(to),
               y2 = frame.py(at(to));
  const double angle = std::atan2(y2 - y1, x2 - x1) * 180 / 3.14159265358979;
  const std::string text = fmt::format("{} {:.4g} {}", limit.name, level ? limit.gflops : limit.gbs,
                                       level ? "GFLOP/s" : "GB/s");
  const double tx = level ? x2 : x1 + 4, ty = (level ? y2 : y1) - 5;
  return fmt::format(
      "<path class=\"line {}\" d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\"><title>{}</title></path>"
      "<text class=\"tick\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" "
      "transform=\"rotate({:.1f} {:.1f} {:.1f})\">{}</text>",
      first ? "level" : "level thin", x1, y1, x2, y2, html_escape(text), tx, ty,
      level ? "end" : "start", angle, tx, ty, html_escape(text));
}

}  // namespace

std::string roofline(const std::vector<RooflinePoint>& points,
                     const std::vector<RooflineLimit>& limits, const std::string& title,
                     const std::vector<RooflinePoint>& axes, const std::string& legend) {
  const double inf = std::numeric_limits<double>::infinity();
  Frame frame{{inf, -inf, true}, {inf, -inf, true}, 340};
  double bandwidth = 0;
  for (const auto* list : {&points, &axes})
    for (const RooflinePoint& p : *list) {
      frame.x.low = std::min(frame.x.low, p.flops_per_byte / 1.7);
      frame.x.high = std::max(frame.x.high, p.flops_per_byte * 1.7);
      frame.y.low = std::min(frame.y.low, p.gflops / 1.7);
      frame.y.high = std::max(frame.y.high, p.gflops * 1.7);
    }
  if (!(frame.x.low > 0 && frame.y.low > 0 && std::isfinite(frame.x.high * frame.y.high)))
    return "";
  for (const RooflineLimit& l : limits)
    if (l.gbs > 0 && (bandwidth <= 0 || l.gbs < bandwidth)) bandwidth = l.gbs;
  for (const RooflineLimit& l : limits) {
    frame.y.high = std::max(frame.y.high, l.gflops * 1.5);
    if (bandwidth > 0) frame.x.high = std::max(frame.x.high, 3 * l.gflops / bandwidth);
  }
  std::string svg = frame.svg(title, "FLOP per byte");
  for (size_t i = 0; i < limits.size(); ++i) {
    bool first = true;  // of its kind
    for (size_t k = 0; k < i; ++k) first &= (limits[k].gflops > 0) != (limits[i].gflops > 0);
    svg += draw_limit(limits[i], limits, frame, first);
  }
  std::vector<const RooflinePoint*> order;  // small circles on large ones
  for (const RooflinePoint& p : points) order.push_back(&p);
  std::ranges::stable_sort(order, std::greater(), &RooflinePoint::share);
  for (const RooflinePoint* p : order)
    svg += fmt::format(
        "<circle class=\"dot {}\" fill-opacity=\"0.65\" cx=\"{:.1f}\" cy=\"{:.1f}\" "
        "r=\"{:.1f}\"><title>{}</title></circle>",
        p->color, frame.px(p->flops_per_byte), frame.py(p->gflops), 1.5 + 22 * std::sqrt(p->share),
        html_escape(p->text));
  return chart_figure(title, " <small>GFLOP/s; a circle's area is its time</small>", "",
                      svg + "</svg>", legend, true);
}

std::string timeline_chart(const std::vector<TimelineBar>& bars, const std::string& title,
                           const std::string& x_label, const std::string& legend) {
  constexpr double kRow = 12, kGap = 8;
  struct Lane {
    std::string name;
    std::vector<double> ends;  // of each row
    double top = 0;
  };
  std::vector<Lane> lanes;
  std::vector<std::pair<size_t, size_t>> place;  // lane and row of each bar
  Frame frame;
  frame.x = {0, 0, false};
  for (const TimelineBar& b : bars) {
    size_t l = 0;
    while (l < lanes.size() && lanes[l].name != b.lane) ++l;
    if (l == lanes.size()) lanes.push_back({b.lane, {}, 0});
    std::vector<double>& ends = lanes[l].ends;
    size_t row = 0;
    while (row < ends.size() && ends[row] > b.start) ++row;
    if (row == ends.size()) ends.push_back(0);
    ends[row] = b.start + b.length;
    place.emplace_back(l, row);
    frame.x.high = std::max(frame.x.high, ends[row]);
  }
  if (!(frame.x.high > 0)) return "";
  double top = kTop;
  for (Lane& lane : lanes) {
    lane.top = top;
    top += kRow * static_cast<double>(lane.ends.size()) + kGap;
  }
  frame.height = top + kBottom;
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
                                kWidth, frame.height, html_escape(title)) +
                    frame.x_axis(x_label);
  for (const Lane& lane : lanes)
    svg += fmt::format(
        "<text class=\"tick lane\" x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>",
        kLeft - 6, lane.top + kRow - 2, html_escape(lane.name));
  for (size_t i = 0; i < bars.size(); ++i) {
    const double left = frame.px(bars[i].start), right = frame.px(bars[i].start + bars[i].length);
    svg += fmt::format(
        "<rect class=\"{}\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{}\"><title>{}"
        "</title></rect>",
        bars[i].color, left,
        lanes[place[i].first].top + kRow * static_cast<double>(place[i].second),
        std::max(0.15, right - left - 0.1), kRow - 1, html_escape(bars[i].text));
  }
  return chart_figure(title, "", "", svg + "</svg>", legend, true);
}

}  // namespace mtcki
