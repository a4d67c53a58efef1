#include "mtcki/config/paths.h"

#include <cstdlib>
#include <filesystem>

#include "data/formats/onnx_file.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

std::string with_home(const std::string& path) {
  const char* home = std::getenv("HOME");
  if (!home || (path != "~" && !path.starts_with("~/"))) return path;
  return home + path.substr(1);
}

void resolve(std::string* path, const fs::path& folder) {
  if (path->empty()) return;
  *path = with_home(*path);
  std::error_code ec;
  if (folder.empty() || fs::path(*path).is_absolute() || fs::exists(*path, ec)) return;
  if (const fs::path beside = folder / *path; fs::exists(beside, ec)) *path = beside.string();
}

}  // namespace

void resolve_paths(RunConfig* config, const std::string& file) {
  const fs::path folder = fs::path(file).parent_path();
  config->out = with_home(config->out);
  resolve(&config->data.dir, folder);
  for (TeacherConfig& t : config->teachers) {
    resolve(&t.weights, folder);
    if (t.model.empty() && data::is_onnx(t.weights)) t.model = "onnx";  // the file says the rest
    resolve(&t.name_map, folder);
  }
  resolve(&config->metrics.classifier_weights, folder);
}

}  // namespace mtcki
