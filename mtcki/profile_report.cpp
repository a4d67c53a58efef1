#include "mtcki/profile_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace mtcki {

using profiler::Event;

namespace {

std::string key_of(const Event& e, CostBy by) {
  std::string key = by == CostBy::op ? e.op : by == CostBy::module ? e.module : e.stage;
  if (key.empty()) key = "(none)";
  if (e.backward && by != CostBy::stage) key += " (backward)";
  return key;
}

const char* name_of(CostBy by) {
  return by == CostBy::op ? "op" : by == CostBy::module ? "module" : "stage";
}

std::string csv_text(const std::string& s) {
  if (s.find_first_of(",\"\n") == std::string::npos) return s;
  std::string out = "\"";
  for (const char c : s) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

}  // namespace

std::vector<CostRow> cost_table(const std::vector<Event>& events, CostBy by) {
  std::map<std::string, CostRow> rows;
  for (const Event& e : events) {
    CostRow& r = rows[key_of(e, by)];
    ++r.calls;
    r.self_us += e.self_us;
    r.flops += e.flops;
    r.bytes += e.bytes;
  }
  std::vector<CostRow> out;
  for (auto& [key, row] : rows) {
    row.key = key;
    out.push_back(row);
  }
  std::stable_sort(out.begin(), out.end(),
                   [](const CostRow& a, const CostRow& b) { return a.self_us > b.self_us; });
  return out;
}

std::string cost_text(const std::vector<CostRow>& table, const std::string& title, double wall_us,
                      int64_t steps, int64_t rows) {
  const double n = static_cast<double>(std::max<int64_t>(1, steps));
  size_t width = title.size();
  const size_t shown = rows > 0 ? std::min(table.size(), static_cast<size_t>(rows)) : table.size();
  for (size_t i = 0; i < shown; ++i) width = std::max(width, table[i].key.size());
  width = std::min<size_t>(std::max<size_t>(width, 24), 60);
  const auto line = [&](const CostRow& r) {
    std::string key = r.key;
    if (key.size() > width) key = "..." + key.substr(key.size() - width + 3);
    return fmt::format("{:<{}} {:>9.3f} {:>6.1f}% {:>7.4g} {:>8} {:>7}\n", key, width,
                       r.self_us / n / 1e3, wall_us > 0 ? 100 * r.self_us / wall_us : 0.0,
                       static_cast<double>(r.calls) / n,
                       r.flops > 0 ? fmt::format("{:.1f}", r.gflops()) : "-",
                       r.bytes > 0 ? fmt::format("{:.1f}", r.gbytes()) : "-");
  };
  std::string out = fmt::format("{:<{}} {:>9} {:>7} {:>7} {:>8} {:>7}\n", title, width,
                                steps > 1 ? "ms/step" : "ms", "share", "calls", "GFLOP/s", "GB/s");
  CostRow rest, total;
  rest.key = fmt::format("({} more)", table.size() - shown);
  total.key = "sum";
  for (size_t i = 0; i < table.size(); ++i) {
    if (i < shown) out += line(table[i]);
    for (CostRow* r : {&rest, &total}) {
      if (r == &rest && i < shown) continue;
      r->calls += table[i].calls;
      r->self_us += table[i].self_us;
      r->flops += table[i].flops;
      r->bytes += table[i].bytes;
    }
  }
  if (shown < table.size()) out += line(rest);
  out += line(total);
  if (wall_us > 0) {
    CostRow outside;
    outside.key = "outside any op";
    outside.self_us = std::max(0.0, wall_us - total.self_us);
    out += line(outside);
  }
  return out;
}

std::string cost_csv(const std::vector<Event>& events, double wall_us, int64_t steps) {
  std::string out = "by,key,calls,self_us,share,flops,bytes,gflops_per_s,gbytes_per_s,steps\n";
  for (const CostBy by : {CostBy::op, CostBy::module, CostBy::stage})
    for (const CostRow& r : cost_table(events, by))
      out +=
          fmt::format("{},{},{},{:.3f},{:.6f},{:.0f},{:.0f},{:.3f},{:.3f},{}\n", name_of(by),
                      csv_text(r.key), r.calls, r.self_us, wall_us > 0 ? r.self_us / wall_us : 0.0,
                      r.flops, r.bytes, r.gflops(), r.gbytes(), steps);
  return out;
}

std::string chrome_trace(const std::vector<Event>& events) {
  using nlohmann::json;
  std::string out = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  bool first = true;
  for (const Event& e : events) {
    const json j = {{"name", e.op},
                    {"cat", e.backward ? "backward" : "forward"},
                    {"ph", "X"},
                    {"pid", 1},
                    {"tid", e.thread},
                    {"ts", e.start_us},
                    {"dur", e.duration_us},
                    {"args",
                     {{"module", e.module},
                      {"stage", e.stage},
                      {"note", e.note},
                      {"GFLOP/s", e.duration_us > 0 ? e.flops / e.duration_us * 1e-3 : 0.0},
                      {"GB/s", e.duration_us > 0 ? e.bytes / e.duration_us * 1e-3 : 0.0}}}};
    out += (first ? "" : ",\n") + j.dump(-1, ' ', false, json::error_handler_t::replace);
    first = false;
  }
  return out + "\n]}\n";
}

}  // namespace mtcki
