#include "mtcki/report/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/host/progress.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/log/metrics_file.h"
#include "mtcki/report/chart.h"
#include "mtcki/report/confusion.h"
#include "mtcki/report/neighbours.h"
#include "mtcki/report/page.h"
#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t kMostText = uint64_t{16} << 20;  // of a configuration or a picture

struct Sample {
  std::string file, stage;
  int64_t step = 0;
};

struct Run {
  std::string folder, name;
  json result, manifest, synth;
  std::string config;
  std::vector<metrics_file::Line> lines;
  int64_t skipped = 0;
  std::vector<Sample> samples;
};

// Empty when there is no such file.
std::string text_in(const std::string& path) {
  try {
    return data::read_text(path, kMostText);
  } catch (const DataError&) {
    return "";
  }
}

// A picture of the run, and nothing that a link or another content puts in its place.
bool is_picture(const std::string& path) {
  std::error_code ec;
  if (!fs::is_regular_file(fs::symlink_status(path, ec))) return false;
  try {
    const data::MappedFile file(path);
    return data::as_text(file.bytes()).starts_with("\x89PNG\r\n\x1a\n") &&
           file.bytes().size() <= kMostText;
  } catch (const DataError&) {
    return false;
  }
}

json read_object(const std::string& path) {
  const json j = data::read_json(path);
  return j.is_object() ? j : json::object();
}

std::string text_of(const json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
}

const json& child(const json& j, const char* key) {
  static const json none = json::object();
  const auto it = j.find(key);
  return it != j.end() && (it->is_object() || it->is_array()) ? *it : none;
}

std::string number_of(const json& j, const char* key, const char* format) {
  const auto it = j.find(key);
  if (it == j.end() || !it->is_number()) return "–";
  return fmt::format(fmt::runtime(format), it->get<double>());
}

Run read_run(const std::string& folder) {
  std::error_code ec;
  if (!fs::is_directory(folder, ec)) throw UsageError("report: \"" + folder + "\" is not a folder");
  if (!fs::exists(folder + "/manifest.json", ec) && !fs::exists(folder + "/metrics.jsonl", ec))
    throw UsageError("report: \"" + folder +
                     "\" is not the folder of a run (no manifest.json, no metrics.jsonl)");
  Run r;
  r.folder = folder;
  r.name = fs::path(folder).filename().string();
  if (r.name.empty()) r.name = fs::path(folder).parent_path().filename().string();
  r.result = read_object(folder + "/result.json");
  r.manifest = read_object(folder + "/manifest.json");
  r.synth = read_object(folder + "/synth/manifest.json");
  r.config = text_in(folder + "/config.toml");
  r.lines = metrics_file::read(folder + "/metrics.jsonl", &r.skipped);
  for (const auto& entry : fs::directory_iterator(folder + "/samples", ec)) {
    // <stage>-<8 digits>.png
    const std::string stem = entry.path().stem().string();
    const size_t dash = stem.rfind('-');
    if (entry.path().extension() != ".png" || dash == std::string::npos) continue;
    if (!is_picture(entry.path().string())) continue;
    r.samples.push_back({entry.path().string(), stem.substr(0, dash),
                         std::strtoll(stem.c_str() + dash + 1, nullptr, 10)});
  }
  std::sort(r.samples.begin(), r.samples.end(), [](const Sample& a, const Sample& b) {
    return a.stage != b.stage ? a.stage < b.stage : a.step < b.step;
  });
  return r;
}

std::string row(const std::vector<std::string>& cells, const char* tag, size_t text_columns) {
  std::string out = "<tr>";
  for (size_t i = 0; i < cells.size(); ++i)
    out += fmt::format("<{0}{1}>{2}</{0}>", tag, i >= text_columns ? " class=\"n\"" : "", cells[i]);
  return out + "</tr>\n";
}

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

std::string head_section(const Run& r) {
  const json& attempts = child(r.manifest, "attempts");
  const json last = attempts.is_array() && !attempts.empty() ? attempts.back() : json::object();
  const std::string status = text_of(last, "status");
  std::string command;
  for (const json& a : child(last, "argv"))
    if (a.is_string()) command += (command.empty() ? "" : " ") + a.get<std::string>();
  const json& machine = child(r.manifest, "machine");
  const json& project = child(r.manifest, "project");
  const json& build = child(r.manifest, "build");
  std::string out = "<table>\n";
  const auto line = [&out](const char* label, const std::string& value) {
    if (!value.empty())
      out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", label, html_escape(value));
  };
  if (!status.empty())
    out += fmt::format("<tr><th>status</th><td class=\"{}\">{}</td></tr>\n",
                       status == "finished"  ? "good"
                       : status == "running" ? ""
                                             : "bad",
                       html_escape(status));
  line("command", command);
  line("started", text_of(last, "start"));
  line("ended", text_of(last, "end"));
  if (attempts.is_array() && attempts.size() > 1)
    line("attempts", fmt::format("{} (resumed)", attempts.size()));
  line("mixed", mixed_numerics(attempts));
  line("version", text_of(project, "version") + " " + text_of(project, "git"));
  line("build", text_of(build, "type") + " " + text_of(build, "compiler") + ", oneDNN " +
                    text_of(build, "onednn"));
  line("machine", fmt::format("{}, {} cores, {}", text_of(machine, "cpu"),
                              number_of(machine, "cores", "{:.0f}"), text_of(machine, "system")));
  line("threads", number_of(r.manifest, "threads", "{:.0f}"));
  line("seed", number_of(r.manifest, "seed", "{:.0f}"));
  return out + "</table>\n";
}

// 7.2e9 -> "7.2 G", bytes as MiB; what is read at a glance.
std::string fact(const std::string& name, double v) {
  if (name.find("bytes") != std::string::npos && v >= 0 && v < 1e18)
    return human_bytes(static_cast<size_t>(v));
  const std::pair<double, const char*> units[] = {{1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}};
  for (const auto& [unit, letter] : units)
    if (std::abs(v) >= unit) return fmt::format("{:.4g} {}", v / unit, letter);
  return fmt::format("{:.6g}", v);
}

const char* const kKeys[] = {"top1", "top1_best", "top5", "agreement", "agreement_best"};
const char* const kTitles[] = {"top-1 %", "best %", "top-5 %", "agreement %", "best agreement %"};

std::string result_section(const std::vector<Run>& runs) {
  const bool several = runs.size() > 1;
  std::string out;
  std::vector<std::string> head = {"", "name", "model"};
  if (several) head.insert(head.begin(), "run");
  const size_t text_columns = head.size();
  std::set<std::string> known;
  for (const Run& r : runs)
    for (const char* kind : {"teachers", "students"})
      for (const json& j : child(r.result, kind))
        for (const auto& entry : j.items()) known.insert(entry.key());
  head.emplace_back("parameters");
  for (size_t i = 0; i < std::size(kKeys); ++i)
    if (known.count(kKeys[i])) head.emplace_back(kTitles[i]);
  std::string rows;
  for (const Run& r : runs) {
    for (const char* kind : {"teachers", "students"}) {
      for (const json& j : child(r.result, kind)) {
        if (!j.is_object()) continue;
        std::vector<std::string> cells = {kind == std::string("teachers") ? "teacher" : "student",
                                          html_escape(text_of(j, "name")),
                                          html_escape(text_of(j, "model"))};
        if (several) cells.insert(cells.begin(), html_escape(r.name));
        const std::string main = known.count("top1") ? "top1" : "agreement";
        cells.push_back(number_of(j, "parameters", "{:.0f}"));
        for (const char* key : kKeys)
          if (const bool bold = *kind == 's' && key == main; known.count(key))
            cells.push_back(number_of(j, key, bold ? "<b>{:.2f}</b>" : "{:.2f}"));
        rows += row(cells, "td", text_columns);
      }
    }
  }
  if (!rows.empty()) out += "<table>\n" + row(head, "th", text_columns) + rows + "</table>\n";
  for (const Run& r : runs) {
    if (const std::string note = html_escape(text_of(r.result, "note")); !note.empty())
      out += fmt::format("<p class=\"soft\">{} {}</p>\n", html_escape(several ? r.name : ""), note);
    std::string facts;
    const json& synthetic = child(r.result, "synthetic");
    if (synthetic.contains("images"))
      facts += fmt::format("<tr><th>synthetic images</th><td class=\"n\">{}</td></tr>",
                           number_of(synthetic, "images", "{:.0f}"));
    for (const auto& [name, value] : child(r.result, "metrics").items())
      if (value.is_number())
        facts += fmt::format("<tr><th>{}</th><td class=\"n\">{}</td></tr>\n", html_escape(name),
                             fact(name, value.get<double>()));
    std::string times;
    for (const auto& [name, value] : child(r.result, "seconds").items())
      if (value.is_number())
        times += fmt::format("<tr><th>time: {}</th><td class=\"n\">{}</td></tr>\n",
                             html_escape(name), duration_text(value.get<double>()));
    if (facts.empty() && times.empty()) continue;
    if (several) out += "<h3>" + html_escape(r.name) + "</h3>\n";
    out += "<div class=\"grid2\">\n";
    for (const std::string& table : {facts, times})
      if (!table.empty()) out += "<table>\n" + table + "</table>\n";
    out += "</div>\n";
  }
  if (out.empty()) out = "<p class=\"soft\">No results yet.</p>\n";
  return out;
}

// "student/vgg8" -> "student"
std::string family(const std::string& stage) { return stage.substr(0, stage.find('/')); }

std::string curves_section(const std::vector<Run>& runs) {
  // Charts in the order in which they first appear; one line per run and stage.
  struct Chart {
    std::string family, kind, value;
    std::vector<Series> series;
  };
  std::vector<Chart> charts;
  for (const Run& r : runs) {
    std::map<std::string, std::pair<size_t, size_t>> known;  // chart and series of this run
    for (const auto& l : r.lines) {
      if (l.kind != "train" && l.kind != "eval") continue;
      for (const auto& [value, y] : l.values) {
        const std::string key = l.stage + "\n" + l.kind + "\n" + value;
        auto at = known.find(key);
        if (at == known.end()) {
          const std::string f = family(l.stage);
          // What a loss is at chance belongs into its chart.
          const bool level = value.ends_with(kChanceSuffix);
          const std::string shown =
              level ? value.substr(0, value.size() - std::string(kChanceSuffix).size()) : value;
          auto c = std::find_if(charts.begin(), charts.end(), [&](const Chart& x) {
            return x.family == f && x.kind == l.kind && x.value == shown;
          });
          if (c == charts.end()) c = charts.insert(charts.end(), {f, l.kind, shown, {}});
          std::string name = l.stage + (level ? " at chance" : "");
          if (runs.size() > 1) name = r.name + ": " + name;
          c->series.push_back({name, {}, level});
          at = known
                   .emplace(key, std::pair{static_cast<size_t>(c - charts.begin()),
                                           c->series.size() - 1})
                   .first;
        }
        charts[at->second.first].series[at->second.second].points.emplace_back(l.step, y);
      }
    }
  }
  std::vector<std::string> families;
  for (const Chart& c : charts)
    if (std::find(families.begin(), families.end(), c.family) == families.end())
      families.push_back(c.family);
  std::string out;
  for (const std::string& f : families) {
    std::string figures;
    // Tests first: they are what the reader looks for.
    for (const char* kind : {"eval", "train"}) {
      for (Chart& c : charts) {
        if (c.family != f || c.kind != kind) continue;
        double first = std::numeric_limits<double>::infinity(), last = -first;
        for (Series& s : c.series) {
          std::stable_sort(s.points.begin(), s.points.end(),
                           [](const auto& a, const auto& b) { return a.first < b.first; });
        }
        for (const Series& s : c.series) {
          first = std::min(first, s.points.front().first);
          last = std::max(last, s.points.back().first);
        }
        if (!(first < last)) continue;  // a single number is in the tables
        const bool accuracy = c.value.rfind("top", 0) == 0 || c.value == "agreement";
        figures += line_chart(c.series, {(c.kind == std::string("eval") ? "test " : "") + c.value +
                                             (accuracy ? " %" : ""),
                                         "step", !accuracy, c.kind == std::string("eval")});
      }
    }
    if (!figures.empty())
      out += "<h3>" + html_escape(f) + "</h3>\n<div class=\"grid2\">\n" + figures + "</div>\n";
  }
  return out;
}

// At most `most` evenly spaced, the last one included.
std::vector<Sample> spread(const std::vector<Sample>& all, size_t most) {
  if (all.size() <= most) return all;
  std::vector<Sample> out;
  for (size_t i = 0; i < most; ++i) out.push_back(all[(i + 1) * all.size() / most - 1]);
  return out;
}

std::string images_section(const Run& r, size_t budget) {
  std::map<std::string, std::vector<Sample>> stages;
  for (const Sample& s : r.samples) stages[s.stage].push_back(s);
  std::string out;
  for (const auto& [stage, all] : stages) {
    const size_t share = budget / stages.size();
    std::vector<Sample> shown;
    std::error_code ec;
    for (size_t most = 12; most > 0; --most) {
      shown = spread(all, most);
      size_t bytes = 0;
      for (const Sample& s : shown) bytes += fs::file_size(s.file, ec) / 3 * 4;
      if (bytes <= share) break;
      shown.clear();
    }
    if (shown.empty()) continue;
    out += fmt::format(
        "<h3>{}</h3>\n<p class=\"soft\">{} of {} grids; all are in samples/</p>\n"
        "<div class=\"grid2\">\n",
        html_escape(stage), shown.size(), all.size());
    for (const Sample& s : shown)
      out += fmt::format(
          "<figure class=\"shot\"><figcaption>{0} {1}</figcaption><img alt=\"Grid of images, {0} "
          "{1}\" "
          "src=\"data:image/png;base64,{2}\"></figure>\n",
          html_escape(stage), s.step, base64(text_in(s.file)));
    out += "</div>\n";
  }
  return out;
}

std::string synth_section(const Run& r) {
  const json& shards = child(r.synth, "shards");
  if (!shards.is_array() || shards.empty()) return "";
  std::string out = fmt::format("<p>{} images in {} shards, quantisation {}.</p>\n",
                                number_of(r.synth, "total", "{:.0f}"), shards.size(),
                                html_escape(text_of(r.synth, "quant")));
  const json& counts = child(r.synth, "per_class");
  const json& names = child(r.synth, "class_names");
  if (counts.is_array() && counts.size() <= 20) {
    std::string rows;
    for (size_t i = 0; i < counts.size(); ++i)
      if (counts[i].is_number())
        rows +=
            row({i < names.size() && names[i].is_string() ? html_escape(names[i].get<std::string>())
                                                          : std::to_string(i),
                 fmt::format("{:.0f}", counts[i].get<double>())},
                "td", 1);
    out += "<details><summary>images per class</summary><table>\n" + rows + "</table></details>\n";
  }
  return out;
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
  std::sort(files.begin(), files.end());
  std::string rows;
  for (size_t i = 0; i < files.size() && i < 200; ++i)
    rows += row({html_escape(files[i].first), fmt::format("{}", files[i].second)}, "td", 1);
  if (files.size() > 200)
    rows += row({fmt::format("and {} more", files.size() - 200), ""}, "td", 1);
  return fmt::format(
      "<details><summary>{} files, {:.1f} MB</summary><table>\n{}{}</table></details>\n",
      files.size(), static_cast<double>(total) / 1e6, row({"file", "bytes"}, "th", 1), rows);
}

}  // namespace

std::string report_html(const std::vector<std::string>& folders, const ReportOptions& options) {
  if (folders.empty()) throw UsageError("report: no run folder given");
  std::vector<Run> runs;
  for (const std::string& f : folders) runs.push_back(read_run(f));
  std::string title;
  for (const Run& r : runs) title += (title.empty() ? "" : ", ") + r.name;
  std::string out = "<p class=\"soft\">Multi-teacher contrastive knowledge inversion</p>\n";
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
  section("Results", result_section(runs));
  section("Curves", curves_section(runs));
  section("Images",
          each([&](const Run& r) { return images_section(r, options.image_bytes / runs.size()); }));
  const size_t share = options.image_bytes / runs.size() / 6;
  section("Confusion on the test set",
          each([share](const Run& r) { return confusion_section(r.folder, share); }));
  section("Nearest real images",
          each([share](const Run& r) { return neighbours_section(r.folder, share); }));
  section("Synthetic set", each(synth_section));
  section("Warnings", each(warnings_section));
  section("Run", each(head_section));
  section("Configuration", each([](const Run& r) {
            return r.config.empty() ? std::string()
                                    : "<details><summary>config.toml</summary><pre>" +
                                          html_escape(r.config) + "</pre></details>\n";
          }));
  section("Files", each(files_section));
  return html_page(title, out, options.refresh_seconds);
}

void write_report(const std::vector<std::string>& folders, const std::string& path,
                  const ReportOptions& options) {
  data::write_file_atomic(path, report_html(folders, options));
}

}  // namespace mtcki
