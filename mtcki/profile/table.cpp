#include "mtcki/profile/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace mtcki {

namespace {

std::string number(double v, int digits) {
  return v > 0 ? fmt::format("{:.{}f}", v, digits) : std::string("-");
}

// "[128, 64, 32, 32]", "f32", "blocked" -> "128x64x32x32 f32 blocked"
std::string operand(const OpCost& r) {
  if (r.shape.empty() || r.shape == kMixed) return r.shape;
  std::string out;
  for (const char c : r.shape) {
    if (c == ',')
      out += 'x';
    else if (c != '[' && c != ']' && c != ' ')
      out += c;
  }
  if (!r.dtype.empty()) out += " " + r.dtype;
  if (!r.layout.empty() && r.layout != "plain" && r.layout != kMixed) out += " " + r.layout;
  return out;
}

std::string csv_text(const std::string& s) {
  if (s.find_first_of(",\"\n") == std::string::npos) return s;
  std::string out = "\"";
  for (const char c : s) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

struct Column {
  std::string title;
  bool left;
  size_t most;  // characters; the beginning of longer texts is cut
  std::function<std::string(const OpCost&)> text;
  int rank = 0;  // where there is no room the highest is left out first; 0: never
};

// Texts to the left, numbers to the right; columns in which no row says anything are dropped, and
// so are, by their rank, those for which `room` characters are too few (0: none).
std::string table(const std::vector<Column>& columns, const std::vector<OpCost>& rows,
                  size_t room) {
  struct Shown {
    const Column* column;
    std::vector<std::string> cells;
    size_t width;
  };
  std::vector<Shown> shown;
  size_t total = 0;
  for (const Column& c : columns) {
    std::vector<std::string> cells{c.title};
    bool says = false;
    for (const OpCost& r : rows) {
      std::string cell = c.text(r);
      says |= !cell.empty() && cell != "-" && cell != kMixed;
      if (cell.size() > c.most) cell = ".." + cell.substr(cell.size() - c.most + 2);
      cells.push_back(std::move(cell));
    }
    if (!says) continue;
    size_t width = 0;
    for (const std::string& cell : cells) width = std::max(width, cell.size());
    total += width + 2;
    shown.push_back({&c, std::move(cells), width});
  }
  std::string dropped;
  const auto rank = [](const Shown& s) { return s.column->rank; };
  while (room > 0 && total > room + 2) {
    const auto least = std::ranges::max_element(shown, {}, rank);
    if (least == shown.end() || rank(*least) == 0) break;
    total -= least->width + 2;
    dropped += (dropped.empty() ? "" : ", ") + least->column->title;
    shown.erase(least);
  }
  std::string out;
  for (size_t i = 0; i <= rows.size(); ++i) {
    std::string line;
    for (const Shown& s : shown)
      line += (line.empty() ? "" : "  ") + (s.column->left
                                                ? fmt::format("{:<{}}", s.cells[i], s.width)
                                                : fmt::format("{:>{}}", s.cells[i], s.width));
    out += line.erase(line.find_last_not_of(' ') + 1) + "\n";
  }
  return dropped.empty() ? out : out + "--wide shows also: " + dropped + "\n";
}

std::string name_of_group(const OpCost& r, ProfileBy by) {
  const std::string name = by == ProfileBy::op       ? r.op
                           : by == ProfileBy::module ? r.module
                           : by == ProfileBy::stage  ? r.stage
                                                     : r.op;
  return name.empty() ? "(none)" : name;
}

}  // namespace

std::string profile_text(const Profile& p, ProfileBy by, int64_t most, size_t room, int64_t depth) {
  std::vector<OpCost> rows = grouped(p.rows, by, depth);
  const size_t shown = most > 0 ? std::min(rows.size(), static_cast<size_t>(most)) : rows.size();
  if (shown < rows.size()) {
    OpCost rest;
    const std::string label = fmt::format("({} more)", rows.size() - shown);
    (by == ProfileBy::module ? rest.module : by == ProfileBy::stage ? rest.stage : rest.op) = label;
    for (size_t i = shown; i < rows.size(); ++i) {
      rest.calls += rows[i].calls;
      rest.us += rows[i].us;
      rest.host_us += rows[i].host_us;
      rest.flops += rows[i].flops;
      rest.bytes += rows[i].bytes;
      rest.floor_us += rows[i].floor_us;
    }
    rows.resize(shown);
    rows.push_back(std::move(rest));
  }
  const double step = p.profiled_us;
  const bool device = p.device != "cpu", roof = !p.roof_date.empty();
  const auto with_roof = [roof](const OpCost& r, double v, int digits) {
    return roof && r.floor_us > 0 ? fmt::format("{:.{}f}", v, digits) : std::string("-");
  };
  std::vector<Column> columns{{by == ProfileBy::module  ? "module"
                               : by == ProfileBy::stage ? "stage"
                                                        : "op",
                               true, 40, [by](const OpCost& r) { return name_of_group(r, by); }}};
  if (by != ProfileBy::stage)
    columns.push_back({"pass", true, 4, [](const OpCost& r) { return r.pass; }, 2});
  if (by != ProfileBy::module)
    columns.push_back({"module", true, 28, [](const OpCost& r) { return r.module; }, 1});
  columns.push_back({"operand", true, 34, operand, 10});
  columns.push_back(
      {"calls", false, 9, [](const OpCost& r) { return fmt::format("{:.4g}", r.calls); }, 5});
  // Below a few µs a pair of events measures itself.
  columns.push_back({"us", false, 12, [device](const OpCost& r) {
                       const bool limited = device && r.calls > 0 && r.us / r.calls < 5;
                       return fmt::format("{}{:.1f}", limited ? "~" : "", r.us);
                     }});
  columns.push_back({"%", false, 6, [step](const OpCost& r) {
                       return step > 0 ? fmt::format("{:.1f}", 100 * r.us / step) : std::string();
                     }});
  columns.push_back({"sum %", false, 6,
                     [step, sum = 0.0](const OpCost& r) mutable {  // called row by row
                       sum += r.us;
                       return step > 0 ? fmt::format("{:.1f}", 100 * sum / step) : std::string();
                     },
                     12});
  if (device)
    columns.push_back(
        {"host us", false, 12, [](const OpCost& r) { return number(r.host_us, 1); }, 7});
  columns.push_back(
      {"GFLOP/s", false, 10, [](const OpCost& r) { return number(r.gflops(), 1); }, 4});
  columns.push_back({"GB/s", false, 8, [](const OpCost& r) { return number(r.gbytes(), 1); }, 6});
  columns.push_back({"floor us", false, 12,
                     [with_roof](const OpCost& r) { return with_roof(r, r.floor_us, 1); }, 8});
  columns.push_back({"% roof", false, 7,
                     [with_roof](const OpCost& r) { return with_roof(r, r.roof_percent(), 0); },
                     3});
  columns.push_back({"bound", true, 8, [](const OpCost& r) { return r.bound; }, 4});
  columns.push_back({"headroom us", false, 12,
                     [with_roof](const OpCost& r) { return with_roof(r, r.headroom_us(), 1); }, 9});
  columns.push_back({"kernel", true, 60, [](const OpCost& r) { return r.note; }, 11});
  std::string out = table(columns, rows, room);
  const double floors = p.floor_us(), latency = p.launch_bound_us();
  out += fmt::format("sum of ops {:.1f} us{}, outside any op {:.1f} us\n", p.ops_us(),
                     p.overlap_us() > 0.05
                         ? fmt::format(", {:.1f} us of it beside other work", p.overlap_us())
                         : std::string(),
                     p.idle_us());
  if (roof)
    out += fmt::format(
        "sum of floors {:.1f} us = {:.1f} % of the measured step; bound by latency: {:.1f} us = "
        "{:.1f} %\n",
        floors, p.step_us > 0 ? 100 * floors / p.step_us : 0.0, latency,
        step > 0 ? 100 * latency / step : 0.0);
  out += fmt::format("step {:.1f} us ({}), while profiling {:.1f} us: profile_overhead {:+.1f} %\n",
                     p.step_us, p.noise_text(), p.profiled_us, 100 * p.overhead());
  return out;
}

std::string profile_csv(const Profile& p) {
  std::string out =
      "op,pass,module,stage,shape,dtype,layout,device,calls,us,host_us,share,flops,bytes,"
      "gflops_per_s,gbytes_per_s,floor_us,roof_percent,bound,headroom_us,p10_us,p90_us,"
      "exclusive_us,launches,kernel\n";
  for (const OpCost& r : p.rows)
    out += fmt::format(
        "{},{},{},{},{},{},{},{},{:.6g},{:.3f},{:.3f},{:.6f},{:.0f},{:.0f},{:.3f},{:.3f},{:.3f},"
        "{:.2f},{},{:.3f},{:.3f},{:.3f},{:.3f},{:.6g},{}\n",
        csv_text(r.op), r.pass, csv_text(r.module), csv_text(r.stage), csv_text(r.shape), r.dtype,
        r.layout, r.device, r.calls, r.us, r.host_us,
        p.profiled_us > 0 ? r.us / p.profiled_us : 0.0, r.flops, r.bytes, r.gflops(), r.gbytes(),
        r.floor_us, r.roof_percent(), r.bound, r.headroom_us(), r.p10_us, r.p90_us, r.exclusive_us,
        r.launches, csv_text(r.note));
  return out;
}

std::string profile_diff(const Profile& a, const Profile& b, ProfileBy by, int64_t most) {
  const std::vector<OpChange> rows = changes(a, b, by);
  const size_t shown = most > 0 ? std::min(rows.size(), static_cast<size_t>(most)) : rows.size();
  std::string out = fmt::format("{:<30} {:<4} {:>12} {:>12} {:>12} {:>8}  {}\n", "op", "pass",
                                "before us", "after us", "change us", "ratio", "where");
  const auto line = [&](const std::string& name, const std::string& pass, double before,
                        double after, const std::string& ratio, const std::string& where) {
    out += fmt::format("{:<30} {:<4} {:>12.1f} {:>12.1f} {:>+12.1f} {:>8}  {}\n", name, pass,
                       before, after, after - before, ratio, where);
  };
  const auto ratio = [](double before, double after) {
    return before > 0 ? fmt::format("{:.2f}", after / before) : std::string("-");
  };
  OpChange rest;
  for (size_t i = 0; i < rows.size(); ++i) {
    const OpChange& r = rows[i];
    if (i >= shown) {
      rest.before_us += r.before_us, rest.after_us += r.after_us;
      continue;
    }
    std::string where;
    if (by == ProfileBy::layer) where = fmt::format("{} {}", r.row.module, operand(r.row));
    if (r.noise) where += where.empty() ? "(noise)" : " (noise)";
    line(name_of_group(r.row, by), by == ProfileBy::stage ? "" : r.row.pass, r.before_us,
         r.after_us,
         !r.in_before  ? "new"
         : !r.in_after ? "gone"
                       : ratio(r.before_us, r.after_us),
         where);
  }
  if (shown < rows.size())
    line(fmt::format("({} more)", rows.size() - shown), "", rest.before_us, rest.after_us,
         ratio(rest.before_us, rest.after_us), "");
  line("sum of ops", "", a.ops_us(), b.ops_us(), ratio(a.ops_us(), b.ops_us()), "");
  const bool noise = a.step_p90_us > 0 && b.step_p90_us > 0 && a.step_p10_us <= b.step_p90_us &&
                     b.step_p10_us <= a.step_p90_us;
  line("step, not profiled", "", a.step_us, b.step_us, ratio(a.step_us, b.step_us),
       noise ? "(noise)" : "");
  return out;
}

}  // namespace mtcki
