// gzip and zlib streams, inflated with a bound that is known before memory is taken.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

bool is_gzip(Bytes content);
// Deflate cannot expand more than about 1032 : 1, so a claimed size beyond this is a lie.
uint64_t most_inflated(uint64_t compressed_bytes);
// Inflates a gzip file (several members allowed). The size grows with what really comes out and may
// not pass `limit`. DataError: damaged, truncated, trailing bytes, too large.
std::vector<uint8_t> gunzip(Bytes content, const std::string& file_name, uint64_t limit);
// Only the first `size` bytes, or fewer when there are no more: enough to read a header by.
std::vector<uint8_t> gunzip_front(Bytes content, const std::string& file_name, size_t size);
// Inflates raw deflate data (a ZIP member) of exactly `size` bytes.
std::vector<uint8_t> inflate_raw(Bytes content, uint64_t size, const std::string& file_name);

}  // namespace mtcki::data
