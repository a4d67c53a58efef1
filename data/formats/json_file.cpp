#include "data/formats/json_file.h"

#include "data/formats/file_bytes.h"

namespace mtcki::data {

nlohmann::json read_json(const std::string& path) {
  try {
    const MappedFile file(path);
    const Bytes content = file.bytes();
    return nlohmann::json::parse(content.begin(), content.end(), nullptr, false);
  } catch (const DataError&) {
    return nlohmann::json(nlohmann::json::value_t::discarded);
  }
}

}  // namespace mtcki::data
