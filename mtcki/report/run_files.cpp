#include "mtcki/report/run_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <tuple>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "mtcki/evaluation/confusion.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t kMostText = uint64_t{16} << 20;  // of a configuration or a picture

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

std::string unquoted(std::string text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"')
    text = text.substr(1, text.size() - 2);
  return text;
}

// A run that is under way or was stopped: the last test of every network of the configuration.
json result_so_far(const Run& r) {
  std::map<std::string, const metrics_file::Line*> tests;
  for (const auto& l : r.lines)
    if (l.kind == "eval") tests[l.stage] = &l;
  json out = json::object();
  for (const std::string kind : {"teacher", "student"})
    for (size_t i = 0;; ++i) {
      const std::string key = fmt::format("{}s.{}.", kind, i);
      const std::string model = unquoted(config_value(r.values, key + "model"));
      if (model.empty()) break;
      std::string name = unquoted(config_value(r.values, key + "name"));
      if (name.empty()) name = model;
      const auto test = tests.find(kind + "/" + name);
      if (test == tests.end()) continue;
      json row{{"name", name}, {"model", model}};
      for (const auto& [value, number] : test->second->values)
        if (std::isfinite(number)) row[value] = number;
      out[kind + "s"].push_back(row);
    }
  return out;
}

}  // namespace

ConfigValues config_values(const std::string& toml) {
  ConfigValues out;
  std::map<std::string, int> tables;  // of a list
  std::string prefix;
  for (size_t begin = 0; begin < toml.size();) {
    const size_t end = std::min(toml.find('\n', begin), toml.size());
    const std::string line = toml.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with("[[") && line.ends_with("]]")) {
      const std::string list = line.substr(2, line.size() - 4);
      prefix = fmt::format("{}.{}.", list, tables[list]++);
    } else if (line.starts_with("[") && line.ends_with("]")) {
      prefix = line.substr(1, line.size() - 2) + ".";
    } else if (const size_t equals = line.find(" = "); equals != std::string::npos) {
      out.emplace_back(prefix + line.substr(0, equals), line.substr(equals + 3));
    }
  }
  return out;
}

std::string config_value(const ConfigValues& values, const std::string& key) {
  for (const auto& [k, v] : values)
    if (k == key) return v;
  return "";
}

std::string file_text(const std::string& path) {
  try {
    return data::read_text(path, kMostText);
  } catch (const DataError&) {
    return "";
  }
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

double number_of(const json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number() ? it->get<double>()
                                          : std::numeric_limits<double>::quiet_NaN();
}

std::string number_text(const json& j, const char* key, const char* format) {
  const double v = number_of(j, key);
  return std::isnan(v) ? "–" : fmt::format(fmt::runtime(format), v);
}

const json& list_of(const json& j, const char* key) {
  static const json none = json::array();
  const json& found = child(j, key);
  return found.is_array() ? found : none;
}

int64_t Run::classes() const {
  if (const json& counts = list_of(synth, "per_class"); !counts.empty())
    return static_cast<int64_t>(counts.size());
  for (const char* kind : {"teachers", "students"})  // no set: images are never shown twice
    for (const json& j : list_of(result, kind))
      if (const std::string net = text_of(j, "name"); net.find('/') == std::string::npos)
        if (const auto confusion = read_confusion(folder + "/" + kind + "/" + net))
          return confusion->classes();
  return 0;
}

double Run::best_teacher() const {
  double best = -1;
  for (const json& t : child(result, "teachers"))
    if (t.is_object()) best = std::fmax(best, number_of(t, "top1"));
  return best;
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
  r.manifest = read_object(folder + "/manifest.json");
  const json& attempts = child(r.manifest, "attempts");
  r.last_attempt = attempts.is_array() && !attempts.empty() && attempts.back().is_object()
                       ? attempts.back()
                       : json::object();
  r.synth = read_object(folder + "/synth/manifest.json");
  r.config = file_text(folder + "/config.toml");
  r.values = config_values(r.config);
  r.lines = metrics_file::read(folder + "/metrics.jsonl", &r.skipped);
  r.result = read_object(folder + "/result.json");
  if (r.result.empty()) r.result = result_so_far(r);
  for (const auto& [stage, s] : child(r.result, "seconds").items())
    if (s.is_number() && !stage.starts_with("student/")) r.seconds += s.get<double>();
  // Without a result, the time between lines; a longer pause is one between two attempts.
  for (size_t i = 1; r.result.find("seconds") == r.result.end() && i < r.lines.size(); ++i)
    if (const double gap = r.lines[i].t - r.lines[i - 1].t; gap > 0 && gap < 600) r.seconds += gap;
  for (const auto& entry : fs::directory_iterator(folder + "/samples", ec)) {
    // <stage>-<8 digits>.png
    const std::string stem = entry.path().stem().string();
    const size_t dash = stem.rfind('-');
    if (entry.path().extension() != ".png" || dash == std::string::npos) continue;
    if (!is_picture(entry.path().string())) continue;
    r.samples.push_back({entry.path().string(), stem.substr(0, dash),
                         std::strtoll(stem.c_str() + dash + 1, nullptr, 10)});
  }
  std::ranges::sort(r.samples, {}, [](const Sample& s) { return std::tie(s.stage, s.step); });
  return r;
}

}  // namespace mtcki
