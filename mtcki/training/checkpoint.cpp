#include "mtcki/training/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/json_file.h"
#include "data/formats/state_file.h"
#include "mtcki/host/console.h"
#include "tensor/allocator.h"
#include "tensor/comm.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr int kFormatVersion = 1;
const char kTensorsFile[] = "state.safetensors";
const char kJsonFile[] = "state.json";

CheckpointHook crash_hook = nullptr;
void operation(const char* name) {
  if (crash_hook) crash_hook(name);
}

// Name of a checkpoint folder; the step of such a name, or -1.
std::string folder_name(int64_t step) { return fmt::format("step-{:08}", step); }
int64_t step_of(const std::string& name) {
  if (name.size() < 6 || name.size() > 20 || name.compare(0, 5, "step-") != 0) return -1;
  if (!std::all_of(name.begin() + 5, name.end(), ::isdigit)) return -1;
  return std::stoll(name.substr(5));
}

// Steps with a folder here, newest first.
std::vector<int64_t> list_steps(const std::string& dir) {
  std::vector<int64_t> steps;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const int64_t step = step_of(entry.path().filename().string());
    if (step >= 0) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

uint64_t size_of_file(const std::string& path) {
  std::error_code ec;
  const auto bytes = fs::file_size(path, ec);
  if (ec) throw DataError(fs::path(path).filename().string() + " is missing");
  return bytes;
}

// "content" of a state.json that matches its checksum; DataError.
json read_content(const std::string& folder) {
  json file = data::read_json(folder + "/" + kJsonFile);
  if (!file.is_object() || !file.contains("content") || !file.contains("crc32c"))
    throw DataError("state.json is missing or damaged");
  if (file["crc32c"] != data::crc32c_of(file["content"]))
    throw DataError("state.json does not match its checksum");
  return std::move(file["content"]);
}

// Folders of processes that died while saving. A pid that is alive again by chance only delays it.
void remove_stale(const std::string& dir) {
  std::error_code ec;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string name = entry.path().filename().string();
    if (name.compare(0, 5, ".tmp-") != 0) continue;
    const long pid = std::strtol(name.c_str() + 5, nullptr, 10);
    if (pid == getpid() || pid <= 0 || (kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH))
      stale.push_back(entry.path());
  }
  for (const fs::path& p : stale) fs::remove_all(p, ec);
}

bool all_finite(const json& j) {
  if (j.is_number_float()) return std::isfinite(j.get<double>());
  if (j.is_structured()) return std::all_of(j.begin(), j.end(), all_finite);
  return true;
}

}  // namespace

void set_checkpoint_hook(CheckpointHook hook) { crash_hook = hook; }

void StageState::put(const nn::StateDict& more, const std::string& prefix) {
  for (const auto& [name, tensor] : more) {
    const std::string full = prefix + name;
    for (const auto& existing : tensors)
      if (existing.first == full) throw Error("checkpoint: \"" + full + "\" is there already");
    tensors.emplace_back(full, tensor);
  }
}

nn::StateDict StageState::take(const std::string& prefix) const {
  nn::StateDict out;
  for (const auto& [name, tensor] : tensors)
    if (name.compare(0, prefix.size(), prefix) == 0)
      out.emplace_back(name.substr(prefix.size()), tensor);
  return out;
}

CheckpointStore::CheckpointStore(const std::string& dir, const std::string& config_sha256, int keep)
    : dir_(dir), sha_(config_sha256), keep_(std::max(2, keep)) {}

std::string CheckpointStore::seal_of(int64_t step) { return folder_name(step) + "/" + kJsonFile; }

void CheckpointStore::warn(const std::string& text) const {
  warnings_.push_back(text);
  console::warn(text);
}

// Room first: a save that fails half way would only be cleaned up again.
void CheckpointStore::make_room(const StageState& state) {
  std::error_code ec;
  uint64_t need = 65536;
  for (const auto& t : state.tensors) need += t.second.nbytes() + 256;
  need += need / 10;
  if (data::free_bytes(dir_) >= need) return;
  const std::vector<int64_t> steps = list_steps(dir_);
  for (size_t i = steps.size(); i > 1 && data::free_bytes(dir_) < need; --i) {
    operation("remove");
    fs::remove_all(dir_ + "/" + folder_name(steps[i - 1]), ec);
  }
  if (data::free_bytes(dir_) < need)
    throw DiskError(str("checkpoint \"", dir_, "\": needs ", human_bytes(need), ", free are ",
                        human_bytes(data::free_bytes(dir_)), "; what was saved before is intact"));
  warn("the disk is nearly full: older checkpoints in \"" + dir_ + "\" were given up");
}

// Gives the finished folder its name, and `latest` to it. A folder of that step is there when it was
// damaged and rolled back, or saved twice.
void CheckpointStore::publish(const std::string& tmp, int64_t step, uint64_t bytes) {
  std::error_code ec;
  const std::string final = dir_ + "/" + folder_name(step);
  operation("rename");
  if (renameat2(AT_FDCWD, tmp.c_str(), AT_FDCWD, final.c_str(), RENAME_EXCHANGE) != 0) {
    if (errno != ENOENT) {  // a file system without exchange
      fs::remove_all(final, ec);
      operation("rename again");
    }
    if (rename(tmp.c_str(), final.c_str()) != 0)
      data::throw_disk_error("rename", final, errno, bytes);
  }
  operation("sync folder");
  data::sync_directory(dir_);
  const std::string link = str(dir_, "/.tmp-", getpid(), "-latest");
  operation("symlink");
  unlink(link.c_str());
  if (symlink(folder_name(step).c_str(), link.c_str()) == 0) {
    operation("rename link");
    if (rename(link.c_str(), (dir_ + "/latest").c_str()) != 0) unlink(link.c_str());
  }
}

void CheckpointStore::save(const StageState& state) {
  warnings_.clear();
  if (!communicator().is_root()) return;
  if (state.step < 0) throw Error(str("checkpoint: step ", state.step));
  if (!all_finite(state.meta)) throw Error("checkpoint: meta holds a number that is not finite");
  operation("mkdir");
  data::make_directories(dir_);
  remove_stale(dir_);
  make_room(state);
  const std::string tmp = str(dir_, "/.tmp-", getpid(), "-", state.step);
  std::error_code ec;
  try {
    operation("mkdir tmp");
    fs::create_directory(tmp, ec);
    if (ec) throw DiskError("cannot create \"" + tmp + "\": " + ec.message());
    operation("write tensors");
    data::NamedTensors named(state.tensors.begin(), state.tensors.end());
    data::write_safetensors(tmp + "/" + kTensorsFile, named, {{"format", "pt"}});
    const uint64_t bytes = size_of_file(tmp + "/" + kTensorsFile);
    const uint32_t crc = data::crc32c_file(tmp + "/" + kTensorsFile);
    const json content = {
        {"format_version", kFormatVersion},
        {"config_sha256", sha_},
        {"step", state.step},
        {"meta", state.meta},
        {"files", json::array({{{"name", kTensorsFile}, {"bytes", bytes}, {"crc32c", crc}}})}};
    operation("write json");
    data::write_file_atomic(
        tmp + "/" + kJsonFile,
        json{{"content", content}, {"crc32c", data::crc32c_of(content)}}.dump(1) + "\n");
    operation("sync tmp");
    data::sync_directory(tmp);
    publish(tmp, state.step, bytes);
  } catch (...) {
    fs::remove_all(tmp, ec);
    throw;
  }
  operation("remove tmp");
  fs::remove_all(tmp, ec);  // after an exchange: what was there before
  int kept = 0;
  for (const int64_t step : list_steps(dir_)) {
    if (step <= state.step && kept++ < keep_) continue;
    operation("prune");
    fs::remove_all(dir_ + "/" + folder_name(step), ec);
  }
}

void CheckpointStore::require_same(const json& content) const {
  if (content.value("config_sha256", json()) != sha_)
    throw UsageError("\"" + dir_ +
                     "\" holds a checkpoint of another configuration; give the run another "
                     "name, restore the configuration, or start over with --fresh");
}

void CheckpointStore::require_same_config() const {
  for (const int64_t step : list_steps(dir_)) {
    try {
      require_same(read_content(dir_ + "/" + folder_name(step)));
    } catch (const DataError&) {
    }
  }
}

StageState CheckpointStore::read(const std::string& folder) const {
  try {
    const json content = read_content(folder);
    if (content.at("format_version").get<int64_t>() > kFormatVersion)
      throw UsageError(str("\"", folder, "\" was written by a newer version (format ",
                           content.at("format_version").get<int64_t>(), ", this reads ",
                           kFormatVersion, ")"));
    for (const json& f : content.at("files")) {
      const std::string name = f.at("name");
      if (name.find('/') != std::string::npos) throw DataError("state.json names a file elsewhere");
      const uint64_t bytes = size_of_file(folder + "/" + name);
      if (bytes != f.at("bytes").get<uint64_t>())
        throw DataError(str(name, " has ", bytes, " bytes, expected ", f.at("bytes").dump()));
      if (data::crc32c_file(folder + "/" + name) != f.at("crc32c").get<uint64_t>())
        throw DataError(name + " does not match its checksum");
    }
    StageState state;
    state.step = content.at("step").get<int64_t>();
    state.meta = content.at("meta");
    const data::StateFile tensors = data::read_safetensors(folder + "/" + kTensorsFile);
    state.tensors.assign(tensors.tensors.begin(), tensors.tensors.end());
    require_same(content);
    return state;
  } catch (const json::exception&) {
    throw DataError("state.json is damaged");
  }
}

std::optional<StageState> CheckpointStore::load() const {
  warnings_.clear();
  if (communicator().is_root()) remove_stale(dir_);
  communicator().barrier();  // what the first rank saved or removed is done
  const std::vector<int64_t> steps = list_steps(dir_);
  std::string last;
  for (const int64_t step : steps) {
    const std::string folder = dir_ + "/" + folder_name(step);
    try {
      StageState state = read(folder);
      if (state.step != step) throw DataError("state.json is of another step");
      return state;
    } catch (const DataError& e) {
      last = str("checkpoint \"", folder, "\" is damaged: ", e.what());
      if (step != steps.back()) warn(last + "; using the one before");
    }
  }
  if (steps.empty()) return std::nullopt;
  throw DataError(last + "; no older one is left; delete the folder \"" +
                  data::parent_directory(dir_) + "\" to do this stage again");
}

}  // namespace mtcki
