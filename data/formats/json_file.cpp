#include "data/formats/json_file.h"

#include "data/formats/atomic_file.h"
#include "data/formats/checksum.h"
#include "data/formats/file_bytes.h"

namespace mtcki::data {

namespace {

constexpr int kDeepest = 64;
constexpr uint64_t kMostBytes = uint64_t{64} << 20;

nlohmann::json discarded() { return nlohmann::json(nlohmann::json::value_t::discarded); }

// A look at the brackets, before any value is made.
bool is_moderate(std::string_view text) {
  // Upper bounds of what an element of a list, a key and a list or object take, growth included.
  constexpr uint64_t kElement = 32, kKey = 112, kStructure = 64;
  uint64_t bytes = 0;
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else
        in_string = c != '"';
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      bytes += kStructure;
      if (++depth > kDeepest) return false;
    } else if (c == ']' || c == '}') {
      --depth;
    } else if (c == ',') {
      bytes += kElement;
    } else if (c == ':') {
      bytes += kKey;
    }
  }
  return bytes <= kMostBytes + text.size();
}

// What is not UTF-8 is replaced, so that no name of a class or a file can fail to be written.
std::string text_of(const nlohmann::json& value, int indent = -1) {
  return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

nlohmann::json parse_json(std::string_view text) {
  return is_moderate(text) ? nlohmann::json::parse(text.begin(), text.end(), nullptr, false)
                           : discarded();
}

nlohmann::json read_json(const std::string& path) {
  try {
    const MappedFile file(path);
    return parse_json(as_text(file.bytes()));
  } catch (const DataError&) {
    return discarded();
  }
}

uint32_t crc32c_of(const nlohmann::json& value) {
  const std::string text = text_of(value);
  return crc32c(text.data(), text.size());
}

void write_sealed_json(const std::string& path, nlohmann::json object) {
  object.erase("crc32c");
  object["crc32c"] = crc32c_of(object);
  write_file_atomic(path, text_of(object, 1) + "\n");
}

nlohmann::json read_sealed_json(const std::string& path) {
  nlohmann::json object = read_json(path);
  if (!object.is_object() || !object.contains("crc32c")) return discarded();
  const nlohmann::json sum = std::move(object["crc32c"]);
  object.erase("crc32c");
  return sum == crc32c_of(object) ? object : discarded();
}

}  // namespace mtcki::data
