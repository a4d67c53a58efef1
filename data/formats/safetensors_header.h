// The JSON header of a safetensors file, parsed strictly without building a document.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "data/formats/safetensors.h"

namespace mtcki::data {

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // file order
  std::map<std::string, std::string> metadata;
};
// DataError: bad JSON or UTF-8, duplicate keys, unknown or missing fields, wrong kinds, > 8
// dimensions.
SafetensorsHeader parse_safetensors_header(Bytes json, const std::string& file_name);

}  // namespace mtcki::data
