// JSON files that may be anything.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace mtcki::data {

// The value in a file; discarded (`is_discarded()`) when the file is missing, not a regular file,
// unreadable or not JSON. Throws nothing.
nlohmann::json read_json(const std::string& path);

}  // namespace mtcki::data
