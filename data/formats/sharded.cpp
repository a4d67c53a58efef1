#include "data/formats/sharded.h"

#include <filesystem>
#include <map>
#include <set>

#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "data/formats/onnx_file.h"

namespace mtcki::data {

namespace {

// File name -> the tensors that the index expects in it.
std::map<std::string, std::set<std::string>> shards_of(const std::string& path) {
  const nlohmann::json index = read_json(path);
  const auto bad = [&path](const std::string& found) {
    throw_data_error(path, -1, "an index with weight_map {tensor: file}", found,
                     "fetch the index and its files again");
  };
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    bad("something else");
  std::map<std::string, std::set<std::string>> out;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || std::filesystem::path(name).filename() != name || name.starts_with("."))
      bad("\"" + name.substr(0, 80) + "\", which is no file beside it");
    out[name].insert(tensor);
  }
  if (out.empty()) bad("no tensors");
  return out;
}

std::string beside(const std::string& path, const std::string& name) {
  return (std::filesystem::path(path).parent_path() / name).string();
}

}  // namespace

bool is_sharded_index(const std::string& path) { return path.ends_with(".index.json"); }

std::vector<std::string> state_file_parts(const std::string& path) {
  std::vector<std::string> parts{path};
  if (is_onnx(path))
    for (const std::string& part : onnx_data_files(path)) parts.push_back(part);
  if (!is_sharded_index(path)) return parts;
  for (const auto& [name, tensors] : shards_of(path)) parts.push_back(beside(path, name));
  return parts;
}

StateFile read_sharded(const std::string& path) {
  StateFile all;
  const auto shards = shards_of(path);
  for (const auto& [name, wanted] : shards) {
    const std::string file = beside(path, name);
    if (!file_exists(file))
      throw_data_error(file, -1, "the file that " + path + " names", "none",
                       "put all files of the index beside it");
    StateFile shard = read_state_file(file);
    std::set<std::string> missing = wanted;
    for (auto& tensor : shard.tensors)
      if (missing.erase(tensor.first) > 0) all.tensors.push_back(std::move(tensor));
    if (!missing.empty())
      throw_data_error(file, -1, "the tensor " + *missing.begin() + " of the index", "none",
                       "the index and its files do not belong together");
    all.metadata.merge(shard.metadata);
    all.unread.merge(shard.unread);
  }
  all.notes.push_back(str("read ", all.tensors.size(), " tensors from ", shards.size(), " files"));
  return all;
}

}  // namespace mtcki::data
