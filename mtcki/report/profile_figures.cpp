// Figures of a profile: ops by time, roofline, timeline and memory. An op has one colour in all of
// them.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "mtcki/report/chart.h"
#include "mtcki/report/profile_page.h"
#include "tensor/allocator.h"

namespace mtcki {

namespace {

constexpr size_t kColors = 7;

// Classes of the ops that take most; the others share one.
std::map<std::string, std::string> colors_of(const Profile& p) {
  std::map<std::string, double> us;
  for (const OpCost& r : p.rows) us[r.op] += r.us;
  std::vector<std::pair<double, std::string>> order;
  for (const auto& [op, time] : us) order.emplace_back(-time, op);
  std::ranges::sort(order);
  std::map<std::string, std::string> out;
  for (size_t i = 0; i < order.size(); ++i)
    out[order[i].second] = i < kColors ? fmt::format("s{}", i) : "other";
  return out;
}

std::string color(const std::map<std::string, std::string>& colors, const std::string& op) {
  const auto it = colors.find(op);
  return it == colors.end() ? "other" : it->second;
}

std::string legend_of(const Profile& p) {
  if (!(p.ops_us() > 0)) return "";
  const auto colors = colors_of(p);
  std::map<std::string, std::string> keys;  // by colour, so in order of time
  double others = 0;
  std::map<std::string, double> us;
  for (const OpCost& r : p.rows) us[r.op] += r.us;
  const auto share = [&](double part) { return fmt::format("{:.1f} %", 100 * part / p.ops_us()); };
  for (const auto& [op, time] : us)
    if (color(colors, op) == "other")
      others += time;
    else
      keys[color(colors, op)] = legend_key(color(colors, op), op, share(time));
  std::string out;
  for (const auto& [css, key] : keys) out += key;
  return others > 0 ? out + legend_key("other", "others", share(others)) : out;
}

std::vector<RooflinePoint> points_of(const Profile& p) {
  const auto colors = colors_of(p);
  const double sum = p.ops_us();
  std::vector<RooflinePoint> out;
  for (const OpCost& r : p.rows) {
    if (!(r.us > 0 && r.flops > 0 && r.bytes > 0)) continue;
    std::string text = fmt::format(
        "{} {} {}\n{} {}\n{:.4g} ms, {:.1f} % of the ops' time\n{:.4g} GFLOP/s, {:.4g} "
        "GB/s, {:.3g} FLOP per byte\n",
        r.op, r.pass, r.module, r.shape, r.dtype, r.us * 1e-3, 100 * r.us / sum, r.gflops(),
        r.gbytes(), r.intensity());
    if (r.floor_us > 0)
      text += fmt::format("{:.0f} % of the roof ({})\n", r.roof_percent(), r.bound);
    out.push_back({text + r.note, color(colors, r.op), r.intensity(), r.gflops(), r.us / sum});
  }
  return out;
}

// Memory and its caches, and the arithmetic of each dtype in the profile.
std::vector<RooflineLimit> limits_of(const Profile& p) {
  std::vector<RooflineLimit> out;
  if (!p.roof) return out;
  const int n = static_cast<int>(p.threads);
  const double memory = p.roof->bandwidth_gbs(n);
  if (memory > 0) out.push_back({"memory", 0, memory});
  for (const std::string level : {"l3", "l2", "l1"}) {
    const double mb = p.roof->scaled(level + "_mb", n), gbs = p.roof->scaled(level + "_gbs", n);
    // One that is as fast as the larger one adds a line, but no knowledge.
    if (gbs > 1.15 * memory && (out.empty() || gbs > 1.15 * out.back().gbs))
      out.push_back({fmt::format("{} ({:.3g} MB)", level, mb), 0, gbs});
  }
  std::map<std::string, double> peaks;
  for (const OpCost& r : p.rows)
    if (r.flops > 0) {
      const std::string dtype = r.dtype == "f32" && p.math == "tf32" ? "tf32" : r.dtype;
      if (const double peak = p.roof->peak_gflops(dtype, n); peak > 0)
        if (dtype == "f32" || dtype == "bf16" || dtype == "tf32") peaks[dtype] = peak;
    }
  for (const auto& [dtype, peak] : peaks) out.push_back({dtype, peak, 0});
  return out;
}

}  // namespace

std::string op_bars(const Profile& p) {
  constexpr size_t kOps = 10;
  const std::vector<OpCost> ops = grouped(p.rows, ProfileBy::op);
  const double sum = p.ops_us();
  if (ops.empty() || !(sum > 0)) return "";
  const auto colors = colors_of(p);
  std::string rows;
  double shown = 0;
  const auto row = [&](const std::string& name, const std::string& css, double us) {
    rows += fmt::format(
        "<tr><td>{}</td><td class=\"bar\"><i class=\"{}\" style=\"width:{:.1f}%\"></i></td><td "
        "class=\"n\">{:.2f} ms</td><td class=\"n\">{:.0f} %</td></tr>\n",
        html_escape(name), css, 100 * us / sum, us * 1e-3, 100 * us / sum);
  };
  for (size_t i = 0; i < ops.size() && i < kOps; ++i) {
    const bool says = ops[i].pass != "bwd" || ops[i].op.find("grad") != std::string::npos;
    row(ops[i].op + (says ? "" : ", backward"), color(colors, ops[i].op), ops[i].us);
    shown += ops[i].us;
  }
  if (ops.size() > kOps)
    row(fmt::format("{} more", ops.size() - kOps), "other", std::max(0.0, sum - shown));
  return "<figure><figcaption>Time by op</figcaption>" + html_table(rows) + "</figure>\n";
}

std::string roofline_figure(const Profile& p, const Profile* axes) {
  return roofline(points_of(p), limits_of(p), "Roofline",
                  axes ? points_of(*axes) : std::vector<RooflinePoint>{}, legend_of(p));
}

std::string timeline_figure(const Profile& p) {
  const auto colors = colors_of(p);
  std::vector<TimelineBar> bars;
  for (const std::string phase : {"forward", "backward", "update"})
    for (const TimelineOp& t : p.timeline)
      if (t.phase == phase)
        bars.push_back({phase,
                        fmt::format("{} {}\n{:.4g} ms from {:.4g} ms on", t.op, t.module,
                                    t.us * 1e-3, t.start_us * 1e-3),
                        color(colors, t.op), t.start_us * 1e-3, t.us * 1e-3});
  return timeline_chart(bars, "Forward, backward and optimiser", "ms", legend_of(p));
}

std::string memory_figure(const Profile& p) {
  Series in_use{"in use", {}};
  const TimelineOp* peak = nullptr;
  std::vector<const TimelineOp*> by_end;
  for (const TimelineOp& t : p.timeline) by_end.push_back(&t);
  std::ranges::stable_sort(by_end, {}, [](const TimelineOp* t) { return t->start_us + t->us; });
  for (const TimelineOp* t : by_end) {
    if (t->memory == 0) continue;  // not known
    in_use.points.emplace_back((t->start_us + t->us) * 1e-3,
                               static_cast<double>(t->memory) / (1 << 20));
    if (!peak || t->memory > peak->memory) peak = t;
  }
  if (!peak) return "";
  ChartOptions options;
  options.title =
      fmt::format("Memory in MiB: most, {}, after {} {} at {:.3g} ms", human_bytes(peak->memory),
                  peak->op, peak->module, (peak->start_us + peak->us) * 1e-3);
  options.x_label = "ms";
  options.allow_log = false;
  options.from_zero = true;
  return line_chart({in_use}, options);
}

}  // namespace mtcki
