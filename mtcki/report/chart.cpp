#include "mtcki/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace mtcki {

namespace {

constexpr double kWidth = 520, kHeight = 240;
constexpr double kLeft = 66, kRight = 14, kTop = 10, kBottom = 42;
constexpr int kColumns = 400;

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
    for (double e = std::ceil(std::log10(low) - 1e-9); e <= std::log10(high) + 1e-9; e += 1)
      out.push_back(std::pow(10.0, e));
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

std::string html_escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    // Invalid in HTML, and in nobody's name for a good reason.
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
      out += "\xef\xbf\xbd";
      continue;
    }
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // Control characters are not allowed in HTML.
        out += static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
    }
  }
  return out;
}

std::string base64(const std::string& bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const auto at = [&](size_t k) -> uint32_t {
      return k < bytes.size() ? static_cast<uint8_t>(bytes[k]) : 0;
    };
    const uint32_t v = at(i) << 16 | at(i + 1) << 8 | at(i + 2);
    out += digits[v >> 18];
    out += digits[v >> 12 & 63];
    out += i + 1 < bytes.size() ? digits[v >> 6 & 63] : '=';
    out += i + 2 < bytes.size() ? digits[v & 63] : '=';
  }
  return out;
}

std::vector<std::pair<double, double>> downsample(
    const std::vector<std::pair<double, double>>& points, int columns) {
  if (static_cast<int64_t>(points.size()) <= 2 * static_cast<int64_t>(columns)) return points;
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

std::string line_chart(const std::vector<Series>& series, const ChartOptions& options) {
  const double inf = std::numeric_limits<double>::infinity();
  Axis x{inf, -inf, false}, y{inf, -inf, false};
  for (const Series& s : series) {
    for (const auto& [px, py] : s.points) {
      if (!std::isfinite(py) || !std::isfinite(px)) continue;
      x.low = std::min(x.low, px), x.high = std::max(x.high, px);
      y.low = std::min(y.low, py), y.high = std::max(y.high, py);
    }
  }
  if (!std::isfinite(y.low)) return "";
  y.log = options.allow_log && y.low > 0 && y.high / y.low > 100;
  widen(&x);
  widen(&y);
  const double w = kWidth - kLeft - kRight, h = kHeight - kTop - kBottom;
  const auto px = [&](double v) { return kLeft + w * x.place(v); };
  const auto py = [&](double v) { return kTop + h * (1 - y.place(v)); };
  std::string svg = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">",
                                kWidth, kHeight, html_escape(options.title));
  for (const double t : y.ticks())
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.0f}\" x2=\"{1:.0f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text class=\"tick\" x=\"{3:.0f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>",
        kLeft, kWidth - kRight, py(t), kLeft - 6, py(t) + 5, short_number(t));
  for (const double t : nice_ticks(x.low, x.high, 6))
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.0f}\" y2=\"{2:.0f}\"/>"
        "<text class=\"tick\" x=\"{0:.1f}\" y=\"{3:.0f}\" text-anchor=\"middle\">{4}</text>",
        px(t), kTop, kTop + h, kTop + h + 18, short_number(t));
  svg +=
      fmt::format("<text class=\"tick\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\">{}</text>",
                  kLeft + w / 2, kHeight - 4, html_escape(options.x_label));
  std::string legend;
  for (size_t i = 0; i < series.size(); ++i) {
    const auto points = downsample(series[i].points, kColumns);
    std::string path;
    bool pen_down = false;
    double last = std::numeric_limits<double>::quiet_NaN();
    for (const auto& [vx, vy] : points) {
      if (!std::isfinite(vy)) {
        pen_down = false;
        continue;
      }
      path += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", px(vx), py(vy));
      pen_down = true;
      last = vy;
    }
    if (path.empty()) continue;
    svg += fmt::format("<path class=\"line s{}{}\" d=\"{}\"/>", i % 8,
                       series[i].level ? " level" : "", path);
    if (options.markers && points.size() <= 60)
      for (const auto& [vx, vy] : points)
        if (std::isfinite(vy))
          svg += fmt::format("<circle class=\"dot s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"/>",
                             i % 8, px(vx), py(vy));
    legend += fmt::format("<span class=\"key\"><i class=\"s{}\"></i>{} <b>{:.4g}</b></span>", i % 8,
                          html_escape(series[i].name), last);
  }
  svg += "</svg>";
  return fmt::format(
      "<figure><figcaption>{}{}</figcaption>{}<div class=\"legend\">{}</div></figure>\n",
      html_escape(options.title), y.log ? " <small>(log)</small>" : "", svg, legend);
}

}  // namespace mtcki
