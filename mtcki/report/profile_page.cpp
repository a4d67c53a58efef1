#include "mtcki/report/profile_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "mtcki/report/chart.h"
#include "mtcki/report/page.h"
#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

std::string ms(double us) { return fmt::format("{:.3f}", us * 1e-3); }

std::string percent(double part, double whole) {
  return whole > 0 ? fmt::format("{:.1f}", 100 * part / whole) : std::string("-");
}

std::string tile(const std::string& value, const std::string& text) {
  return "<div><b>" + html_escape(value) + "</b>" + html_escape(text) + "</div>\n";
}

double images_per_second(const Profile& p) {
  return p.step_us > 0 ? 1e6 * static_cast<double>(p.batch) / p.step_us : 0;
}

std::string headline(const Profile& p) {
  double flops = 0;
  for (const OpCost& r : p.rows) flops += r.flops;
  std::string out = "<div class=\"tiles\">\n";
  std::string spread = fmt::format("a step, {} after {} of warm-up", p.steps, p.warmup);
  if (p.step_p90_us > 0)
    spread = fmt::format("a step; p10 {:.4g}, p90 {:.4g}, of {} after {} of warm-up",
                         p.step_p10_us * 1e-3, p.step_p90_us * 1e-3, p.steps, p.warmup);
  out += tile(fmt::format("{:.4g} ms", p.step_us * 1e-3), spread);
  if (p.clocks.readings > 0)
    out += tile(fmt::format("{:.2f} GHz", p.clocks.mhz * 1e-3), "clock: " + p.clocks.text());
  if (p.batch > 0)
    out += tile(fmt::format("{:.0f}", images_per_second(p)),
                fmt::format("images per second at batch {}", p.batch));
  out += tile(fmt::format("{:.4g}", p.step_us > 0 ? flops / p.step_us * 1e-3 : 0.0),
              "GFLOP/s of the whole step");
  if (p.roof) {
    out += tile(fmt::format("{:.4g} ms", p.floor_us() * 1e-3),
                fmt::format("floor, {} % of the step", percent(p.floor_us(), p.step_us)));
    out += tile(percent(p.launch_bound_us(), p.profiled_us) + " %",
                p.device == "cpu" ? "in ops shorter than a parallel loop's start"
                                  : "launch-bound: in kernels that could not be shorter");
  }
  out += tile(percent(p.idle_us(), p.profiled_us) + " %",
              p.device == "cpu" || p.level != "kernels" ? "outside any op" : "the GPU is idle");
  if (p.overlap_us() > 0.001 * p.profiled_us)
    out += tile(percent(p.overlap_us(), p.profiled_us) + " %", "of work beside other work");
  out += tile(human_bytes(p.peak_memory), "memory at the peak");
  return out + "</div>\n";
}

std::string circumstances(const Profile& p) {
  std::string out =
      fmt::format("<p class=\"soft\">{}, {}, ", html_escape(p.machine), html_escape(p.math));
  if (p.device == "cpu") out += fmt::format("{} thread{}, ", p.threads, p.threads == 1 ? "" : "s");
  out += fmt::format("mtcki {}, {}. While it is profiled a step takes {} ms, {:+.1f} %.",
                     html_escape(p.version), html_escape(p.date), ms(p.profiled_us),
                     100 * p.overhead());
  if (!p.roof)
    out += " The roof of this machine was not measured (mtcki roof): there are no floors.";
  else
    out += fmt::format(" Roof of {}{}.", html_escape(p.roof->date),
                       p.roof->clocks.readings ? " at " + html_escape(p.roof->clocks.text()) : "");
  out += "</p>\n";
  for (const std::string& line : p.doubts())
    out += "<p class=\"bad\">" + html_escape(line) + "</p>\n";
  return out;
}

std::string about_roofline(const Profile& p) {
  double us = 0;
  bool winograd = false;
  for (const OpCost& r : p.rows) {
    if (!(r.flops > 0 && r.bytes > 0)) us += r.us;
    winograd |= r.note.find("winograd") != std::string::npos;
  }
  std::string out;
  if (us > 0)
    out += fmt::format(
        "Ops that compute nothing or move nothing have no place here: {} % of the ops' time. ",
        percent(us, p.ops_us()));
  if (winograd)
    out +=
        "Winograd convolutions count the FLOPs of the definition, do a quarter of the products, "
        "and may lie above the line.";
  return out.empty() ? "" : "<p class=\"soft\">" + out + "</p>\n";
}

// Modules as a tree, in the order in which they run.
std::string module_table(const Profile& p, size_t depth) {
  struct Sum {
    double forward = 0, backward = 0, floor = 0, flops = 0;
  };
  std::map<std::string, Sum> sums;
  std::vector<std::string> order;
  const auto each_prefix = [](const std::string& module, const auto& f) {
    for (size_t end = module.find('.');; end = module.find('.', end + 1)) {
      f(module.substr(0, end));
      if (end == std::string::npos) return;
    }
  };
  const auto appear = [&](const std::string& prefix) {
    if (sums.emplace(prefix, Sum{}).second) order.push_back(prefix);
  };
  for (const TimelineOp& t : p.timeline) each_prefix(t.module, appear);
  for (const OpCost& r : p.rows)
    each_prefix(r.module, [&](const std::string& prefix) {
      appear(prefix);
      Sum& s = sums[prefix];
      (r.pass == "bwd" ? s.backward : s.forward) += r.us;
      s.floor += r.floor_us;
      s.flops += r.flops;
    });
  const double all = p.ops_us();
  std::string rows = html_row({"module", "forward ms", "backward ms", "both", "% of the ops",
                               "GFLOP/s", "floor ms", "% roof"},
                              "th", 1);
  for (const std::string& name : order) {
    const auto level = static_cast<size_t>(std::ranges::count(name, '.'));
    const Sum& s = sums.at(name);
    const double us = s.forward + s.backward;
    if (level >= depth || us <= 0) continue;
    const std::string own = level ? name.substr(name.rfind('.') + 1) : name;
    rows += html_row({fmt::format("<span style=\"padding-left:{}em\">{}</span>",
                                  1.2 * static_cast<double>(level),
                                  name.empty() ? "(outside modules)" : html_escape(own)),
                      ms(s.forward), ms(s.backward), ms(us), percent(us, all),
                      fmt::format("{:.1f}", s.flops / us * 1e-3), s.floor > 0 ? ms(s.floor) : "-",
                      s.floor > 0 ? percent(s.floor, us) : "-"},
                     "td", 1);
  }
  return html_table(rows);
}

std::string op_table(const std::vector<OpCost>& ops, const Profile& p) {
  std::string rows =
      html_row({"op", "module", "operand", "kernel", "pass", "calls", "ms", "p10", "p90", "%",
                "GFLOP/s", "GB/s", "FLOP/B", "floor ms", "% roof", "bound"},
               "th", 4);
  const auto number = [](double v) { return v > 0 ? fmt::format("{:.4g}", v) : std::string("-"); };
  for (const OpCost& r : ops)
    rows +=
        html_row({html_escape(r.op), html_escape(r.module),
                  html_escape(r.shape == kMixed ? r.shape : str(r.shape, " ", r.dtype)),
                  html_escape(r.note), r.pass, fmt::format("{:.4g}", r.calls), ms(r.us),
                  ms(r.p10_us), ms(r.p90_us), percent(r.us, p.profiled_us), number(r.gflops()),
                  number(r.gbytes()), number(r.intensity()), r.floor_us > 0 ? ms(r.floor_us) : "-",
                  r.floor_us > 0 ? fmt::format("{:.0f}", r.roof_percent()) : "-", r.bound},
                 "td", 4);
  return html_table(rows);
}

std::string title_of(const Profile& p) {
  return str(p.model, ", ", p.step, p.step == p.model ? "" : " step");
}

// Two of the same kind beside each other.
std::string beside(const std::string& left, const std::string& right) {
  return "<div class=\"grid2 two\">\n<div><h3>before</h3>\n" + left +
         "</div>\n<div><h3>after</h3>\n" + right + "</div>\n</div>\n";
}

std::string change_table(const Profile& a, const Profile& b, ProfileBy by) {
  std::string rows = html_row({by == ProfileBy::module ? "module" : "op",
                               by == ProfileBy::layer ? "module and operand" : "pass", "before ms",
                               "after ms", "change ms", "ratio", ""},
                              "th", 2);
  for (const OpChange& c : changes(a, b, by)) {
    const double change = c.after_us - c.before_us;
    const std::string name = by == ProfileBy::module ? c.row.module : c.row.op;
    rows += html_row({html_escape(name.empty() ? "(outside modules)" : name),
                      html_escape(by == ProfileBy::layer ? str(c.row.pass, " ", c.row.module, " ",
                                                               c.row.shape, " ", c.row.dtype)
                                                         : c.row.pass),
                      c.in_before ? ms(c.before_us) : "-", c.in_after ? ms(c.after_us) : "-",
                      fmt::format("<span class=\"{}\">{:+.3f}</span>",
                                  c.noise      ? "soft"
                                  : change < 0 ? "good"
                                               : "bad",
                                  change * 1e-3),
                      c.in_before && c.in_after && c.before_us > 0
                          ? fmt::format("{:.2f}", c.after_us / c.before_us)
                      : c.in_after ? "new"
                                   : "gone",
                      c.noise ? "<span class=\"soft\">within the spread</span>" : ""},
                     "td", 2);
  }
  return html_table(rows);
}

}  // namespace

std::string profile_page(const Profile& p) {
  std::string body = headline(p) + circumstances(p);
  body += "<h2>Roofline</h2>\n" + roofline_figure(p) + about_roofline(p);
  body += "<h2>One step</h2>\n" + timeline_figure(p) + "<div class=\"grid2 two\">\n" + op_bars(p) +
          memory_figure(p) + "</div>\n";
  body += "<h2>Ops</h2>\n" + op_table(grouped(p.rows, ProfileBy::op), p) +
          html_details("By layer, most headroom first", op_table(p.rows, p));
  body +=
      "<h2>Modules</h2>\n" + module_table(p, 2) + html_details("All modules", module_table(p, 100));
  return html_page(title_of(p), body);
}

std::string profile_diff_page(const Profile& a, const Profile& b) {
  const auto side = [](const Profile& p) {
    return "<p>" + html_escape(title_of(p)) + "</p>\n" + headline(p) + circumstances(p);
  };
  std::string body = fmt::format(
      "<p class=\"lead\">A step takes <b>{:.2f} times</b> as long: {} ms before, {} ms "
      "after.</p>\n",
      a.step_us > 0 ? b.step_us / a.step_us : 0.0, ms(a.step_us), ms(b.step_us));
  body += beside(side(a), side(b));
  body += "<h2>What changed</h2>\n" + change_table(a, b, ProfileBy::op) +
          html_details("By module", change_table(a, b, ProfileBy::module)) +
          html_details("By layer", change_table(a, b, ProfileBy::layer));
  body += "<h2>Rooflines</h2>\n" + beside(roofline_figure(a, &b), roofline_figure(b, &a));
  body += "<h2>One step</h2>\n" + beside(timeline_figure(a) + memory_figure(a) + op_bars(a),
                                         timeline_figure(b) + memory_figure(b) + op_bars(b));
  return html_page("Two profiles", body);
}

std::string sweep_page(const Sweep& s) {
  constexpr size_t kLines = 7;
  std::vector<double> x;
  const Profile* last = nullptr;
  Series step{"step", {}}, low{"p10", {}, true}, high{"p90", {}, true}, floor{"floor", {}, true};
  std::string rows = html_row({s.what, "step ms", "p10", "p90", "ms per image", "images/s",
                               "GFLOP/s", "floor ms", "% in latency-bound ops", "GHz", "memory"},
                              "th", 1);
  for (const SweepPoint& point : s.points) {
    const Profile& p = point.profile;
    if (!point.failed.empty()) {
      rows += html_row({str(point.value), html_escape(point.failed)}, "td", 2);
      continue;
    }
    last = &p;
    const auto v = static_cast<double>(point.value);
    x.push_back(v);
    step.points.emplace_back(v, p.step_us * 1e-3);
    low.points.emplace_back(v, p.step_p10_us * 1e-3);
    high.points.emplace_back(v, p.step_p90_us * 1e-3);
    if (p.roof) floor.points.emplace_back(v, p.floor_us() * 1e-3);
    double flops = 0;
    for (const OpCost& r : p.rows) flops += r.flops;
    rows +=
        html_row({str(point.value), ms(p.step_us), ms(p.step_p10_us), ms(p.step_p90_us),
                  fmt::format("{:.4f}", p.step_us * 1e-3 / static_cast<double>(p.batch)),
                  fmt::format("{:.0f}", images_per_second(p)),
                  fmt::format("{:.1f}", flops / p.step_us * 1e-3), p.roof ? ms(p.floor_us()) : "-",
                  p.roof ? percent(p.launch_bound_us(), p.profiled_us) : "-",
                  fmt::format("{:.2f}", p.clocks.mhz * 1e-3), human_bytes(p.peak_memory)},
                 "td", 1);
  }
  if (!last) return html_page("Sweep", html_table(rows));
  std::vector<Series> whole, each;
  std::string fits = html_row({"op", "pass", "fixed ms", "ms per " + s.what,
                               "% fixed at " + str(static_cast<int64_t>(x.back()))},
                              "th", 2);
  const std::vector<OpCurve> curves = s.curves();
  const auto fitted = [&](const OpCurve& c) {
    fits += html_row(
        {html_escape(c.op), c.pass, ms(c.fixed_us), fmt::format("{:.5f}", c.slope_us * 1e-3),
         percent(c.fixed_us, c.fixed_us + c.slope_us * x.back())},
        "td", 2);
  };
  fitted(s.step());
  for (const OpCurve& c : curves) fitted(c);
  for (size_t i = 0; i < std::min(kLines, curves.size()); ++i) {
    const std::string name = curves[i].op + (curves[i].pass == "bwd" ? ", backward" : "");
    Series w{name, {}}, e{name, {}};
    for (size_t k = 0; k < x.size(); ++k) {
      w.points.emplace_back(x[k], curves[i].us[k] * 1e-3);
      e.points.emplace_back(x[k], curves[i].us[k] / x[k]);
    }
    whole.push_back(std::move(w));
    each.push_back(std::move(e));
  }
  Series step_each{"step", {}};
  for (const auto& [v, t] : step.points) step_each.points.emplace_back(v, t * 1e3 / v);
  ChartOptions o{.x_label = s.what, .markers = true, .log_x = true};
  const auto chart = [&](const std::string& title, const std::vector<Series>& series) {
    o.title = title;
    return line_chart(series, o);
  };
  std::string body = headline(*last) + circumstances(*last) + "<div class=\"grid2 two\">\n" +
                     chart("ms per step", {step, low, high, floor}) +
                     chart(fmt::format("us per step and {}", s.what), {step_each}) +
                     chart("ms per step by op", whole) +
                     chart(fmt::format("us per step and {}, by op", s.what), each) + "</div>\n";
  body += "<h2>Points</h2>\n" + html_table(rows) +
          "<h2>Fixed and growing cost</h2>\n<p class=\"soft\">Fitted to the points as fixed + " +
          html_escape(s.what) + " times slope, by relative error.</p>\n" + html_table(fits);
  return html_page(str(title_of(*last), " against ", s.what), body);
}

}  // namespace mtcki
