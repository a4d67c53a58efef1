#include "mtcki/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "data/formats/atomic_file.h"
#include "mtcki/config/config.h"
#include "mtcki/report/confusion.h"
#include "mtcki/report/html.h"
#include "mtcki/report/neighbours.h"
#include "mtcki/report/page.h"
#include "mtcki/report/sections.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// "threads: 1, then 2" of what the last bits depend on and what changed between attempts.
std::string mixed_numerics(const json& attempts) {
  std::map<std::string, std::vector<std::string>> values;
  for (const json& a : attempts)
    for (const auto& [label, value] : child(a, "numerics").items())
      if (value.is_string())
        if (auto& v = values[label]; v.empty() || v.back() != value.get<std::string>())
          v.push_back(value.get<std::string>());
  std::string out;
  for (const auto& [label, v] : values) {
    if (v.size() < 2) continue;
    out += (out.empty() ? "" : "; ") + label + ": " + v[0];
    for (size_t i = 1; i < v.size(); ++i) out += ", then " + v[i];
  }
  return out;
}

std::string attempt_section(const Run& r) {
  const json& attempts = child(r.manifest, "attempts");
  const json& machine = child(r.manifest, "machine");
  const json& project = child(r.manifest, "project");
  const json& build = child(r.manifest, "build");
  std::string rows;
  const auto line = [&rows](const char* label, const std::string& value) {
    if (!value.empty()) rows += html_row({label, html_escape(value)}, "td", 2);
  };
  line("started", text_of(r.last_attempt, "start"));
  line("ended", text_of(r.last_attempt, "end"));
  if (attempts.is_array() && attempts.size() > 1)
    line("attempts", fmt::format("{} (resumed)", attempts.size()));
  line("mixed", mixed_numerics(attempts));
  line("version", text_of(project, "version") + " " + text_of(project, "git"));
  line("build", text_of(build, "type") + " " + text_of(build, "compiler") + ", oneDNN " +
                    text_of(build, "onednn"));
  line("machine", fmt::format("{}, {} cores, {}", text_of(machine, "cpu"),
                              number_text(machine, "cores", "{:.0f}"), text_of(machine, "system")));
  line("seed", number_text(r.manifest, "seed", "{:.0f}"));
  return html_table(rows);
}

// Keys that are not the defaults, and the whole file.
std::string config_section(const Run& r) {
  if (r.config.empty()) return "";
  const ConfigValues defaults = config_values(to_toml(RunConfig()));
  std::string rows;
  for (const auto& [key, value] : r.values)
    if (const std::string own = config_value(defaults, key); own != value)
      rows += html_row({html_escape(key), html_escape(value), html_escape(own)}, "td", 3);
  return (rows.empty()
              ? ""
              : html_details("Keys that differ from the defaults",
                             html_table(html_row({"key", "value", "default"}, "th", 3) + rows))) +
         html_details("config.toml", "<pre>" + html_escape(r.config) + "</pre>");
}

std::string warnings_section(const Run& r) {
  std::string items;
  for (const auto& l : r.lines)
    if (l.kind == "warning") items += "<li>" + html_escape(l.text) + "</li>\n";
  if (r.skipped > 0)
    items += fmt::format("<li>{} damaged lines of metrics.jsonl were skipped</li>\n", r.skipped);
  return items.empty() ? "" : "<ul>\n" + items + "</ul>\n";
}

std::string files_section(const Run& r) {
  std::vector<std::pair<std::string, uint64_t>> files;
  std::error_code ec;
  uint64_t total = 0;
  for (auto it = fs::recursive_directory_iterator(r.folder, ec);
       it != fs::recursive_directory_iterator(); it.increment(ec)) {
    if (ec) break;
    if (!it->is_regular_file(ec)) continue;
    const uint64_t bytes = it->file_size(ec);
    total += bytes;
    files.emplace_back(fs::relative(it->path(), r.folder, ec).string(), bytes);
  }
  std::ranges::sort(files);
  std::string rows;
  for (size_t i = 0; i < files.size() && i < 200; ++i)
    rows += html_row({html_escape(files[i].first), fmt::format("{}", files[i].second)}, "td", 1);
  if (files.size() > 200)
    rows += html_row({fmt::format("and {} more", files.size() - 200), ""}, "td", 1);
  return html_details(
      fmt::format("{} files, {:.1f} MB", files.size(), static_cast<double>(total) / 1e6),
      html_table(html_row({"file", "bytes"}, "th", 1) + rows));
}

}  // namespace

std::string report_html(const std::vector<std::string>& folders, const ReportOptions& options) {
  if (folders.empty()) throw UsageError("report: no run folder given");
  std::vector<Run> runs;
  for (const std::string& f : folders) runs.push_back(read_run(f));
  std::string title, out;
  for (const Run& r : runs) title += (title.empty() ? "" : ", ") + r.name;
  const auto section = [&out](const std::string& name, const std::string& body) {
    if (!body.empty()) out += "<h2>" + name + "</h2>\n" + body;
  };
  const auto each = [&runs](const auto& f) {
    std::string body;
    for (const Run& r : runs) {
      const std::string part = f(r);
      if (part.empty()) continue;
      if (runs.size() > 1) body += "<h3>" + html_escape(r.name) + "</h3>\n";
      body += part;
    }
    return body;
  };
  const size_t share = options.image_bytes / runs.size();
  out = each(headline_section);
  section("Warnings", each(warnings_section));
  section("What differs", compare_section(runs));
  section("Results", result_section(runs));
  section("How good is that?", each(baselines_section));
  section("Images", each([&](const Run& r) { return images_section(r, share / 2); }));
  section("Curves", curves_section(runs));
  section("Confusion on the test set",
          each([&](const Run& r) { return confusion_section(r.folder, share / 6); }));
  section("Nearest real images",
          each([&](const Run& r) { return neighbours_section(r.folder, share / 6); }));
  section("Cost", each(cost_section));
  section("Run", each(attempt_section));
  section("Configuration", each(config_section));
  section("Files", each(files_section));
  return html_page(title,
                   "<p class=\"soft\">Multi-teacher contrastive knowledge inversion: students that "
                   "learn from synthetic images alone</p>\n" +
                       out,
                   options.refresh_seconds);
}

bool is_running(const std::string& folder) {
  return text_of(read_run(folder).last_attempt, "status") == "running";
}

void write_report(const std::vector<std::string>& folders, const std::string& path,
                  const ReportOptions& options) {
  data::write_file_atomic(path, report_html(folders, options));
}

}  // namespace mtcki
