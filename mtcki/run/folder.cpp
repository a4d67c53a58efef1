#include "mtcki/run/folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "data/formats/atomic_file.h"
#include "data/formats/json_file.h"
#include "mtcki/host/build_info.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/report/labels.h"
#include "mtcki/run/context.h"
#include "mtcki/run/folder_content.h"
#include "tensor/allocator.h"
#include "tensor/error.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

json map_of(const std::vector<std::pair<std::string, std::string>>& lines) {
  json out = json::object();
  for (const auto& [label, value] : lines) out[label] = value;
  return out;
}

// What differs from the last attempt, if that did not finish, in what the last bits of results
// depend on; "" for nothing.
std::string difference(const json& attempts) {
  const json last = attempts.empty() ? json() : attempts.back();
  if (!last.is_object() || last.value("status", json()) == "finished") return "";
  const json before = last.value("numerics", json());
  std::string out;
  for (const auto& [label, now] : numerics())
    if (const json was = before.is_object() ? before.value(label, json()) : json();
        was.is_string() && was != now)
      out += str(out.empty() ? "" : "; ", label, " ", now, " instead of ", was.get<std::string>());
  return out;
}

// At most five names of a list.
std::string first_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < 5; ++i) out += (i ? ", " : "") + names[i];
  return names.size() > 5 ? str(out, " and ", names.size() - 5, " more") : out;
}

}  // namespace

RunFolder::RunFolder(const RunConfig& config, const std::vector<std::string>& argv, bool fresh)
    : path_(path_of(config)) {
  require_run_folder(path_);
  data::make_directories(path_);
  const std::string lock = path_ + "/lock";
  lock_ = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (lock_ < 0) throw DiskError("cannot open \"" + lock + "\": " + std::strerror(errno));
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    char holder[32] = {};
    const ssize_t n = pread(lock_, holder, sizeof holder - 1, 0);
    close(lock_);
    lock_ = -1;
    throw UsageError(str("\"", path_, "\" is being written by another mtcki",
                         n > 0 ? str(" (process ", std::strtol(holder, nullptr, 10), ")") : "",
                         "; wait for it, stop it, or give this run another name=..."));
  }
  const std::string pid = str(getpid(), "\n");
  if (ftruncate(lock_, 0) != 0 || pwrite(lock_, pid.data(), pid.size(), 0) < 0) {
    // Only the hint about the holder is lost.
  }
  try {
    std::vector<std::string> left;
    if (fresh) left = empty_run_folder(path_);
    remove_temporaries(path_);
    // What is recorded below describes all that lies here.
    const RunContext context(config, path_);
    context.forget_replaced_weights();
    context.require_same_configuration();
    if (!fresh) manifest_ = data::read_sealed_json(path_ + "/manifest.json");
    if (!manifest_.is_object()) manifest_ = {{"attempts", json::array()}};
    const BuildInfo b = build_info();
    const MachineInfo m = machine_info();
    manifest_["format_version"] = 1;
    manifest_["project"] = {{"version", b.version}, {"git", b.git}};
    manifest_["build"] = {{"type", b.build_type},
                          {"compiler", b.compiler},
                          {"flags", b.flags},
                          {"onednn", b.onednn},
                          {"cuda", b.cuda}};
    manifest_["machine"] = {{"cpu", m.cpu},
                            {"cores", m.cores},
                            {"instructions", m.instructions},
                            {"memory_bytes", m.memory_bytes},
                            {"system", m.system}};
    manifest_["config_sha256"] = config_sha256(config);
    manifest_["seed"] = config.seed;
    manifest_["threads"] = num_threads();
    const std::string mixed = difference(manifest_["attempts"]);
    // An attempt that never ended was killed.
    for (json& a : manifest_["attempts"])
      if (a.is_object() && a.value("status", json()) == "running") a["status"] = "killed";
    manifest_["attempts"].push_back({{"argv", argv},
                                     {"start", utc_now()},
                                     {"status", "running"},
                                     {"numerics", map_of(numerics())}});
    write_manifest();  // first: it is what makes this the folder of a run
    data::write_file_atomic(path_ + "/config.toml", to_toml(config));
    console::set_log_file(path_ + "/log.txt");
    if (!mixed.empty())
      console::warn(str("continued under other conditions than before (", mixed,
                        "): what is computed from here on may differ in its last bits"));
    if (!left.empty())
      console::warn(str("--fresh: what no run wrote stays in ", path_, ": ", first_names(left)));
  } catch (...) {
    close(lock_);
    throw;
  }
}

std::string RunFolder::path_of(const RunConfig& config) {
  return (fs::path(config.out) / config.name).string();
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) close(lock_);
  console::set_log_file("");
}

void RunFolder::write_manifest() { data::write_sealed_json(path_ + "/manifest.json", manifest_); }

json RunFolder::write_result(const PipelineResult& result) {
  json out = to_json(result);
  const json before = data::read_sealed_json(path_ + "/result.json");
  // A call that found everything finished reports what making it took.
  const bool found = before.is_object() && before.contains("seconds") &&
                     before.value("teachers", json()) == out["teachers"] &&
                     before.value("students", json()) == out["students"] &&
                     before.value("synthetic", json()) == out.value("synthetic", json());
  if (found) out["seconds"] = before["seconds"];
  json& attempt = manifest_["attempts"].back();
  for (const char* key : {"peak_memory_bytes", "peak_tensor_bytes"}) {
    if (!out["metrics"].contains(key)) continue;
    attempt[key] = out["metrics"][key];
    if (found && before.value("metrics", json::object()).contains(key)) {
      out["metrics"][key] = before["metrics"][key];
      continue;
    }
    for (const json& a : manifest_["attempts"])
      if (a.is_object() && a.contains(key) && a[key].is_number())
        out["metrics"][key] = std::max(out["metrics"][key].get<double>(), a[key].get<double>());
  }
  data::write_sealed_json(path_ + "/result.json", out);
  return out;
}

void RunFolder::finish(const std::string& status, int exit_code,
                       const std::vector<std::string>& warnings) {
  json& attempt = manifest_["attempts"].back();
  attempt["status"] = status;
  attempt["exit_code"] = exit_code;
  attempt["end"] = utc_now();
  if (!attempt.contains("peak_memory_bytes")) {  // else write_result() has it
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    attempt["peak_memory_bytes"] = static_cast<double>(usage.ru_maxrss) * 1024.0;
    attempt["peak_tensor_bytes"] = memory_stats().peak;
  }
  if (!warnings.empty()) attempt["warnings"] = warnings;
  write_manifest();
}

json to_json(const PipelineResult& r) {
  const auto put = [](json& to, const char* key, double v) {
    if (v >= 0 && std::isfinite(v)) to[key] = std::round(v * 1e4) / 1e4;
  };
  json out;
  out["teachers"] = json::array();
  for (const TeacherResult& t : r.teachers) {
    json j = {{"name", t.name}, {"model", t.model}};
    put(j, "top1", t.top1);
    put(j, "top5", t.top5);
    put(j, "agreement", t.agreement);
    j["parameters"] = t.parameters;
    j["imported"] = t.imported;
    out["teachers"].push_back(j);
  }
  out["students"] = json::array();
  for (const StudentResult& s : r.students) {
    json j = {{"name", s.name}, {"model", s.model}};
    put(j, "top1", s.top1);
    put(j, "top5", s.top5);
    put(j, "top1_best", s.top1_best);
    put(j, "agreement", s.agreement);
    put(j, "agreement_best", s.agreement_best);
    j["parameters"] = s.parameters;
    out["students"].push_back(j);
  }
  if (r.synthetic_images >= 0) out["synthetic"] = {{"images", r.synthetic_images}};
  if (!r.note.empty()) out["note"] = r.note;
  out["metrics"] = json::object();
  for (const auto& [name, value] : r.metrics)
    if (std::isfinite(value)) out["metrics"][name] = value;
  out["seconds"] = json::object();
  for (const auto& [name, value] : r.seconds) out["seconds"][name] = std::round(value * 100) / 100;
  return out;
}

std::string result_table(const json& r) {
  std::string out;
  const auto percent = [](const json& row, const char* key) {
    const auto it = row.find(key);
    return it != row.end() && it->is_number() ? fmt::format("{:.2f}", it->get<double>())
                                              : std::string("-");
  };
  const auto text = [](const json& row, const char* key) {
    const auto it = row.find(key);
    return it != row.end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  // Without real images there is nothing but agreement.
  const std::vector<std::pair<const char*, const char*>> columns =
      r.contains("note") ? std::vector<std::pair<const char*, const char*>>{{"agreement", "agree"}}
                         : std::vector<std::pair<const char*, const char*>>{
                               {"top1", "top-1"}, {"top5", "top-5"}, {"agreement", "agree"}};
  size_t widest = 11;
  for (const char* kind : {"teachers", "students"})
    if (r.contains(kind))
      for (const json& row : r[kind]) widest = std::max(widest, text(row, "model").size());
  out += fmt::format("{:<7}  {:<15}  {:<{}}  {:>10}", "", "name", "model", widest, "parameters");
  for (const auto& [key, title] : columns) out += fmt::format("  {:>5}", title);
  out += "\n";
  for (const std::string kind : {"teacher", "student"}) {
    if (!r.contains(kind + "s")) continue;
    for (const json& row : r[kind + "s"]) {
      out += fmt::format("{:<7}  {:<15}  {:<{}}  {:>10}", kind, text(row, "name"),
                         text(row, "model"), widest, row.value("parameters", int64_t{0}));
      for (const auto& [key, title] : columns) out += fmt::format("  {:>5}", percent(row, key));
      out += "\n";
    }
  }
  if (r.contains("note")) out += text(r, "note") + "\n";
  std::string numbers;
  const auto number = [&numbers](const std::string& title, const std::string& value) {
    numbers += fmt::format("{:<32}{}\n", title, value);
  };
  if (r.contains("synthetic"))
    number("Synthetic images", str(r["synthetic"].value("images", int64_t{0})));
  if (r.contains("metrics"))
    for (const auto& [name, value] : r["metrics"].items())
      if (value.is_number()) {
        const Label label = label_of(name);
        number(label.title, label_text(label, value.get<double>()));
      }
  if (!numbers.empty()) out += "\n" + numbers;
  if (!r.contains("seconds") || r["seconds"].empty()) return out;
  std::string times;
  double total = 0;
  // In their order; those of single students are parts of "students".
  for (const std::string stage : {"teachers", "synthesis", "students", "classifier", "metrics"}) {
    const double seconds = r["seconds"].value(stage, -1.0);
    if (seconds < 0) continue;
    total += seconds;
    times += fmt::format("  {:<30}{}\n", stage, duration_text(seconds));
  }
  out += fmt::format("{:<32}{}\n", "Time", duration_text(total)) + times;
  return out;
}

}  // namespace mtcki
