// What a run cost: its stages, and the ops of those that were profiled.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "mtcki/host/progress.h"
#include "mtcki/report/chart.h"
#include "mtcki/report/profile_page.h"
#include "mtcki/report/sections.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// In the order in which they run; with their sum.
std::string stages(const Run& r) {
  std::vector<Part> parts;
  std::string rows;
  double total = 0;
  const json& seconds = child(r.result, "seconds");
  const auto add = [&](const std::string& key, const std::string& name) {
    const double s = number_of(seconds, key.c_str());
    if (!(s >= 0)) return;
    parts.push_back({name, s, duration_text(s)});
    rows += html_row({html_escape(name), duration_text(s)}, "td", 1);
    total += s;
  };
  add("teachers", "teachers");
  add("synthesis", "synthesis");
  for (const auto& [key, value] : seconds.items())
    if (key.starts_with("student/")) add(key, "student " + key.substr(8));
  add("classifier", "held-out classifier");
  add("metrics", "metrics");
  if (parts.empty()) return "";
  rows += html_row({"<b>total</b>", "<b>" + duration_text(total) + "</b>"}, "td", 1);
  return stacked_bar(parts, "Time by stage") + html_details("Times as a table", html_table(rows));
}

std::string profile_figure(const Profile& p, const std::string& trace) {
  const std::string bars = op_bars(p);
  if (bars.empty()) return "";
  return fmt::format(
             "<h3>{}</h3>\n<p class=\"soft\">{:.2f} ms per step without the profiler, on {}, {}; "
             "{} is for ui.perfetto.dev.</p>\n<div class=\"grid2\">\n",
             html_escape(p.step), p.step_us * 1e-3, html_escape(p.machine), html_escape(p.math),
             html_escape(trace)) +
         bars + roofline_figure(p) + "</div>\n";
}

}  // namespace

std::string cost_section(const Run& r) {
  std::string out = stages(r);
  std::vector<std::string> files;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(r.folder + "/profile", ec))
    if (const std::string name = entry.path().filename().string();
        name.ends_with(".json") && !name.ends_with(".trace.json"))
      files.push_back(name.substr(0, name.size() - 5));
  std::ranges::sort(files);
  for (const std::string& file : files) try {
      out += profile_figure(read_profile(r.folder + "/profile/" + file + ".json"),
                            "profile/" + file + ".trace.json");
    } catch (const Error&) {
      // What cannot be read is left out.
    }
  return out;
}

}  // namespace mtcki
