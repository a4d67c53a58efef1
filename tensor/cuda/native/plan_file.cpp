#include "tensor/cuda/native/plan_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace mtcki::cuda {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;

// Nothing when there is no file; throws when it is another kind of file.
std::map<std::string, StoredPlan> read(const std::string& path) {
  std::map<std::string, StoredPlan> plans;
  std::ifstream in(path);
  if (!in) return plans;
  const json file = json::parse(in);
  if (file.at("format").get<int>() != kFormat) throw Error("another format");
  for (const auto& [key, value] : file.at("plans").items()) {
    StoredPlan p;
    p.choice.engine = value.at("engine").get<int64_t>();
    p.choice.knobs = value.at("knobs").get<std::vector<std::pair<int64_t, int64_t>>>();
    p.workspace = value.at("workspace").get<int64_t>();
    p.microseconds = value.at("us").get<double>();
    plans[key] = p;
  }
  return plans;
}

void write(const std::string& path, const std::map<std::string, StoredPlan>& plans) {
  json file{{"format", kFormat}, {"plans", json::object()}};
  for (const auto& [key, p] : plans)
    file["plans"][key] = {{"engine", p.choice.engine},
                          {"knobs", p.choice.knobs},
                          {"workspace", p.workspace},
                          {"us", p.microseconds}};
  const std::string fresh = str(path, ".", getpid());
  std::ofstream out(fresh);
  out << file.dump(1) << "\n";
  out.close();
  if (!out) throw Error("the disk refuses it");
  fs::rename(fresh, path);
}

// Held while the file is read and written again: other processes add to it too.
class Lock {
 public:
  explicit Lock(const std::string& path)
      : fd_(open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (fd_ >= 0) flock(fd_, LOCK_EX);
  }
  ~Lock() {
    if (fd_ >= 0) close(fd_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int fd_;  // -1: a file system without locks, or a folder that write() will complain about
};

void warn(const std::string& path, const char* what, const std::exception& e) {
  std::fprintf(stderr, "warning: cuDNN plans in %s are not %s: %s\n", path.c_str(), what, e.what());
}

}  // namespace

std::string plan_key(const Convolution& c, const Gpu& gpu) {
  const ConvProblem& d = c.problem;
  const char* pass = c.pass == ConvPass::forward      ? "forward"
                     : c.pass == ConvPass::grad_input ? "grad_input"
                                                      : "grad_weight";
  const char* math = c.dtype == DType::bf16 ? "" : c.math == Math::tf32 ? " tf32" : " strict";
  return str("conv2d ", pass, " ", name_of(c.dtype), math, c.deterministic ? " deterministic" : "",
             c.accumulate ? " accumulate" : "", " n", d.n, " c", d.c, " h", d.h, " w", d.w, " k",
             d.k, " r", d.r, " s", d.s, " stride", d.stride_h, "x", d.stride_w, " pad", d.pad_h,
             "x", d.pad_w, " dilation", d.dil_h, "x", d.dil_w, " g", d.groups,
             " nhwc align16 workspace", kConvWorkspace, " sm", gpu.major, gpu.minor, "x",
             gpu.multiprocessors, " ", gpu.name, " driver", gpu.driver, " cudnn",
             cudnnGetVersion());
}

std::string PlanFile::default_path() {
  const auto variable = [](const char* name) {
    const char* text = std::getenv(name);
    return std::string(text ? text : "");
  };
  if (const std::string path = variable("MTCKI_PLAN_CACHE"); !path.empty())
    return path == "off" ? "" : path;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty())
    return cache + "/mtcki/cudnn_plans.json";
  if (const std::string home = variable("HOME"); !home.empty())
    return home + "/.cache/mtcki/cudnn_plans.json";
  return "";
}

PlanFile::PlanFile(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  try {
    plans_ = read(path_);
  } catch (const std::exception& e) {
    foreign_ = true;
    warn(path_, "read", e);
  }
}

std::optional<StoredPlan> PlanFile::find(const std::string& key) const {
  const auto it = plans_.find(key);
  return it == plans_.end() ? std::nullopt : std::optional<StoredPlan>(it->second);
}

void PlanFile::put(const std::string& key, const StoredPlan& plan) {
  plans_[key] = plan;
  if (path_.empty() || foreign_) return;
  try {
    if (const fs::path folder = fs::path(path_).parent_path(); !folder.empty())
      fs::create_directories(folder);
    const Lock lock(path_);
    std::map<std::string, StoredPlan> all = read(path_);
    all[key] = plan;
    write(path_, all);
  } catch (const std::exception& e) {
    foreign_ = true;  // one warning
    warn(path_, "written", e);
  }
}

}  // namespace mtcki::cuda
