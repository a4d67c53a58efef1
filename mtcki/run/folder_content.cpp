#include "mtcki/run/folder_content.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

// As of fnmatch(3); a '*' matches no '/'. What a stage writes stands below each of its folders.
constexpr const char* kStageFolders[] = {"teachers/*/", "students/*/", "metrics/classifier/"};
constexpr const char* kOfAStage[] = {"done.json", "model.safetensors", "best.safetensors",
                                     "confusion.json"};
constexpr const char* kImageFolders[] = {"synth/", "students/*/synth/"};
constexpr const char* kOfImages[] = {"done.json", "manifest.json", "shard-[0-9]*.safetensors"};
constexpr const char* kCheckpointFolders[] = {"teachers/*/ckpt/", "students/*/ckpt/",
                                              "metrics/classifier/ckpt/", "synth/ckpt/",
                                              "synth/final/"};
constexpr const char* kOfACheckpoint[] = {"latest", "step-[0-9]*/state.json",
                                          "step-[0-9]*/state.safetensors", ".tmp-*"};
constexpr const char* kOthers[] = {"config.toml",
                                   "manifest.json",
                                   "metrics.jsonl",
                                   "log.txt",
                                   "report.html",
                                   "result.json",
                                   "lock",
                                   "samples/*-[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]*.png",
                                   "events/*/events.out.tfevents.*",
                                   "profile/teacher-*.json",
                                   "profile/student-*.json",
                                   "profile/synthesis*.json",
                                   "profile/metrics-*.json",
                                   "metrics/neighbours.safetensors",
                                   "bank/shard-[0-9]*.safetensors",
                                   "students/*/bank/shard-[0-9]*.safetensors"};
constexpr const char* kFolders[] = {"teachers", "students", "synth",   "bank",
                                    "samples",  "events",   "profile", "metrics"};

bool matches(const std::string& pattern, const std::string& path) {
  return fnmatch(pattern.c_str(), path.c_str(), FNM_PATHNAME) == 0;
}

// "x" of "x.tmp-4711-0", which is how a file that is being written is called.
std::string without_temporary_ending(const std::string& path) {
  const size_t at = path.rfind(".tmp-");
  if (at == std::string::npos || at + 5 == path.size()) return path;
  const bool numbers = path.find_first_not_of("0123456789-", at + 5) == std::string::npos;
  return numbers && path.find('/', at) == std::string::npos ? path.substr(0, at) : path;
}

bool is_temporary(const std::string& path) { return without_temporary_ending(path) != path; }

// Links are never followed.
bool is_folder(const fs::path& path) {
  struct stat info {};
  return ::lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// A folder below that is the folder of another run.
bool is_other_run(const fs::path& folder) {
  std::error_code ec;
  return fs::exists(folder / "lock", ec) ||
         (fs::exists(folder / "manifest.json", ec) && fs::exists(folder / "config.toml", ec));
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::error_code ec;
  std::vector<fs::path> out;
  for (fs::directory_iterator at(folder, ec), end; !ec && at != end; at.increment(ec))
    out.push_back(at->path());
  std::ranges::sort(out);
  return out;
}

// One that holds the number of a process, or nothing yet.
bool is_our_lock(const std::string& path) {
  try {
    const data::MappedFile file(path);
    const std::string_view text = data::as_text(file.bytes());
    return text.size() <= 32 && text.find_first_not_of("0123456789\n") == std::string_view::npos;
  } catch (const DataError&) {
    return false;
  }
}

bool holds_only_what_a_run_writes(const fs::path& folder, const fs::path& root) {
  for (const fs::path& entry : entries_of(folder))
    if (is_folder(entry) ? is_other_run(entry) || !holds_only_what_a_run_writes(entry, root)
                         : !is_written_by_run(entry.lexically_relative(root).string()))
      return false;
  return true;
}

// A folder in which nothing was found is removed where a run may have made it.
bool is_of_a_run(const fs::path& folder, const fs::path& root) {
  const std::string first = folder.lexically_relative(root).begin()->string();
  return std::ranges::find(kFolders, first) != std::end(kFolders);
}

void empty(const fs::path& folder, const fs::path& root, std::vector<std::string>* left) {
  std::error_code ec;
  for (const fs::path& entry : entries_of(folder)) {
    const std::string name = entry.lexically_relative(root).string();
    // The manifest is written anew at once; until then the folder stays recognisable.
    if (name == "lock" || name == "manifest.json") continue;
    if (is_folder(entry)) {
      const size_t before = left->size();
      if (!is_other_run(entry)) empty(entry, root, left);
      if (is_other_run(entry) || (left->size() == before && !is_of_a_run(entry, root)))
        left->push_back(name + "/");
      if (left->size() == before) fs::remove(entry, ec);
    } else if (is_written_by_run(name)) {
      fs::remove(entry, ec);
    } else {
      left->push_back(name);
    }
    if (ec) throw DiskError("cannot remove \"" + entry.string() + "\": " + ec.message());
  }
}

}  // namespace

bool is_written_by_run(const std::string& relative_path) {
  const std::string path = without_temporary_ending(relative_path);
  const auto below = [&path](const auto& folders, const auto& names) {
    return std::ranges::any_of(folders, [&](const char* folder) {
      return std::ranges::any_of(
          names, [&](const char* name) { return matches(std::string(folder) + name, path); });
    });
  };
  // What is below the folder of a checkpoint that was being written.
  const auto half_saved = [&path](const char* folder) {
    return matches(std::string(folder) + ".tmp-*/*", path);
  };
  return below(kStageFolders, kOfAStage) || below(kImageFolders, kOfImages) ||
         below(kCheckpointFolders, kOfACheckpoint) ||
         std::ranges::any_of(kCheckpointFolders, half_saved) ||
         std::ranges::any_of(kOthers, [&path](const char* name) { return matches(name, path); });
}

void require_run_folder(const std::string& path) {
  const std::string manifest = path + "/manifest.json";
  const bool locked_by_us = is_our_lock(path + "/lock");
  std::error_code ec;
  if (data::file_exists(manifest)) {
    const nlohmann::json m = data::read_sealed_json(manifest);
    if (m.is_object() && m.contains("attempts") && m["attempts"].is_array()) return;
    if (locked_by_us && holds_only_what_a_run_writes(path, path))
      throw DataError(str(manifest, ": damaged; delete it and run again (only the record of ",
                          "earlier attempts is lost)"));
  }
  // A run that has written no manifest yet, or whose manifest was deleted.
  const bool ours =
      locked_by_us && !fs::exists(manifest, ec) && holds_only_what_a_run_writes(path, path);
  if (!ours && !entries_of(path).empty())
    throw UsageError(str("\"", path, "\" is neither empty nor the folder of a run; give this run ",
                         "another name=... or out=... (nothing there was touched)"));
}

std::vector<std::string> empty_run_folder(const std::string& path) {
  std::vector<std::string> left;
  empty(path, path, &left);
  return left;
}

void remove_temporaries(const std::string& path) {
  std::error_code ec;
  std::vector<fs::path> stale;
  for (fs::recursive_directory_iterator at(path, ec), end; !ec && at != end; at.increment(ec)) {
    if (is_folder(at->path()) && is_other_run(at->path()))
      at.disable_recursion_pending();
    else if (const std::string name = at->path().lexically_relative(path).string();
             is_temporary(name) && is_written_by_run(name) && !is_folder(at->path()))
      stale.push_back(at->path());
  }
  for (const fs::path& file : stale) fs::remove(file, ec);
}

}  // namespace mtcki
