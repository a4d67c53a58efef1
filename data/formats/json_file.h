// JSON files that may be anything.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace mtcki::data {

// The value of a text; discarded (`is_discarded()`) when it is not JSON, nests deeper than 64
// levels (values are printed and compared recursively), or would need more than 64 MiB beyond the
// text itself. Throws nothing.
nlohmann::json parse_json(std::string_view text);
// The value in a file; discarded likewise, and when the file is missing, not a regular file or
// unreadable. Throws nothing.
nlohmann::json read_json(const std::string& path);

// Objects that carry a checksum: "crc32c", the CRC-32C of the other fields as compact JSON. What a
// run reads again is sealed, so that damage is noticed.
uint32_t crc32c_of(const nlohmann::json& value);
void write_sealed_json(const std::string& path, nlohmann::json object);
// Without the checksum; discarded when that is missing or does not fit.
nlohmann::json read_sealed_json(const std::string& path);

}  // namespace mtcki::data
