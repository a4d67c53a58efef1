#include "mtcki/profile/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

[[noreturn]] void refuse(const std::string& text) {
  throw UsageError(str("--sweep \"", text,
                       "\": batch=8..1024 (doubled), batch=8,24,100, width=1..8 or threads=1..16"));
}

int64_t whole(const std::string& word, const std::string& text) {
  int64_t value = 0;
  const char* const end = word.data() + word.size();
  const auto [rest, error] = std::from_chars(word.data(), end, value);
  if (error != std::errc() || rest != end || value < 1 || value > 65536) refuse(text);
  return value;
}

// Least squares of (us - fixed - slope x) / us.
void fit(const std::vector<double>& x, OpCurve* c) {
  double n = 0, sx = 0, sxx = 0, sy = 0, sxy = 0;
  int points = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!(c->us[i] > 0)) continue;
    const double w = 1 / (c->us[i] * c->us[i]);
    n += w, sx += w * x[i], sxx += w * x[i] * x[i];
    sy += w * c->us[i], sxy += w * x[i] * c->us[i];
    ++points;
  }
  const double det = n * sxx - sx * sx;
  if (points < 2 || det <= 0) return;
  c->slope_us = (n * sxy - sx * sy) / det;
  c->fixed_us = (sxx * sy - sx * sxy) / det;
  if (c->fixed_us < 0) c->fixed_us = 0, c->slope_us = sxy / sxx;
}

std::vector<double> values_of(const Sweep& s) {
  std::vector<double> x;
  for (const SweepPoint& p : s.points)
    if (p.failed.empty()) x.push_back(static_cast<double>(p.value));
  return x;
}

}  // namespace

SweepRange parse_sweep(const std::string& text) {
  SweepRange r;
  const size_t is = text.find('=');
  r.what = text.substr(0, is);
  if (is == std::string::npos || (r.what != "batch" && r.what != "width" && r.what != "threads"))
    refuse(text);
  const std::string rest = text.substr(is + 1);
  if (const size_t to = rest.find(".."); to != std::string::npos) {
    const int64_t first = whole(rest.substr(0, to), text), last = whole(rest.substr(to + 2), text);
    if (first > last) refuse(text);
    for (int64_t v = first; v < last; v *= 2) r.values.push_back(v);
    r.values.push_back(last);
  } else {
    for (size_t at = 0; at <= rest.size();) {
      const size_t comma = std::min(rest.find(',', at), rest.size());
      r.values.push_back(whole(rest.substr(at, comma - at), text));
      at = comma + 1;
    }
  }
  if (r.what == "batch" && *std::ranges::min_element(r.values) < 2)
    throw UsageError("--sweep batch: at least 2");
  return r;
}

std::vector<OpCurve> Sweep::curves() const {
  const std::vector<double> x = values_of(*this);
  std::map<std::pair<std::string, std::string>, OpCurve> all;
  size_t at = 0;
  for (const SweepPoint& p : points) {
    if (!p.failed.empty()) continue;
    for (const OpCost& r : grouped(p.profile.rows, ProfileBy::op)) {
      OpCurve& c = all[{r.op, r.pass}];
      c.op = r.op, c.pass = r.pass;
      c.us.resize(x.size(), kNone);
      c.us[at] = r.us;
    }
    ++at;
  }
  std::vector<OpCurve> out;
  for (auto& [name, c] : all) {
    fit(x, &c);
    out.push_back(std::move(c));
  }
  const auto last = [](const OpCurve& c) { return c.us.back() > 0 ? c.us.back() : 0; };
  std::ranges::stable_sort(out, std::greater(), last);
  return out;
}

OpCurve Sweep::step() const {
  OpCurve c{"step", "", {}, 0, 0};
  for (const SweepPoint& p : points)
    if (p.failed.empty()) c.us.push_back(p.profile.step_us);
  fit(values_of(*this), &c);
  return c;
}

std::string sweep_text(const Sweep& s, int64_t most) {
  std::string out = fmt::format(
      "{:>8} {:>11} {:>9} {:>9} {:>11} {:>11} {:>10} {:>8} {:>9} {:>11}\n", s.what, "step ms",
      "p10", "p90", "us/image", "images/s", "floor ms", "latency", "GHz", "memory");
  for (const SweepPoint& point : s.points) {
    const Profile& p = point.profile;
    if (!point.failed.empty()) {
      out += fmt::format("{:>8} {}\n", point.value, point.failed);
      continue;
    }
    const auto batch = static_cast<double>(p.batch);
    out += fmt::format(
        "{:>8} {:>11.3f} {:>9.3f} {:>9.3f} {:>11.2f} {:>11.0f} {:>10} {:>8} {:>9.2f} {:>11}\n",
        point.value, p.step_us * 1e-3, p.step_p10_us * 1e-3, p.step_p90_us * 1e-3,
        p.step_us / batch, 1e6 * batch / p.step_us,
        p.roof ? fmt::format("{:.3f}", p.floor_us() * 1e-3) : "-",
        p.roof ? fmt::format("{:.1f} %", 100 * p.launch_bound_us() / p.profiled_us) : "-",
        p.clocks.mhz * 1e-3, human_bytes(p.peak_memory));
  }
  const std::vector<double> x = values_of(s);
  if (x.empty()) return out;
  out += fmt::format("\n{:<30} {:<4}", "us per step", "pass");
  for (const double v : x) out += fmt::format(" {:>10}", fmt::format("{} {:g}", s.what[0], v));
  out += fmt::format(" {:>10} {:>10}\n", "fixed", "per " + s.what);
  const auto line = [&](const OpCurve& c) {
    out += fmt::format("{:<30} {:<4}", c.op, c.pass);
    for (const double us : c.us)
      out += fmt::format(" {:>10}", us > 0 ? fmt::format("{:.1f}", us) : std::string("-"));
    out += fmt::format(" {:>10.1f} {:>10.3f}\n", c.fixed_us, c.slope_us);
  };
  const std::vector<OpCurve> all = s.curves();
  for (size_t i = 0; i < all.size() && (most == 0 || i < static_cast<size_t>(most)); ++i)
    line(all[i]);
  if (most > 0 && all.size() > static_cast<size_t>(most))
    out += fmt::format("({} more)\n", all.size() - static_cast<size_t>(most));
  line(s.step());
  return out;
}

nlohmann::json to_json(const Sweep& s) {
  using nlohmann::json;
  json points = json::array(), ops = json::array();
  for (const SweepPoint& p : s.points) {
    json point{{"value", p.value}};
    if (p.failed.empty())
      point["profile"] = to_json(p.profile);
    else
      point["failed"] = p.failed;
    points.push_back(std::move(point));
  }
  const auto curve = [](const OpCurve& c) {
    json us = json::array();
    for (const double v : c.us) us.push_back(std::isfinite(v) ? json(v) : json());
    return json{{"op", c.op},
                {"pass", c.pass},
                {"us", us},
                {"fixed_us", c.fixed_us},
                {"slope_us", c.slope_us}};
  };
  for (const OpCurve& c : s.curves()) ops.push_back(curve(c));
  return {{"schema", "mtcki-profile-sweep/1"},
          {"what", s.what},
          {"values", values_of(s)},
          {"points", points},
          {"step", curve(s.step())},
          {"ops", ops}};
}

}  // namespace mtcki
