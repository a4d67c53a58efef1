// Checksums of the formats: CRC-32 (ZIP, PNG) by zlib, CRC-32C (own files, TFRecord).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace mtcki::data {

// Reflected polynomial 0xEDB88320. `crc` continues: crc32(b, crc32(a)) is crc32 of a then b.
uint32_t crc32(const void* data, size_t bytes, uint32_t crc = 0);
// Reflected polynomial 0x82F63B78 (Castagnoli); continues likewise.
uint32_t crc32c(const void* data, size_t bytes, uint32_t crc = 0);
// TFRecord's rotated form of a CRC-32C.
inline uint32_t masked_crc32c(const void* data, size_t bytes) {
  const uint32_t c = crc32c(data, bytes);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}
// Of a file's content, read in pieces. DataError when it cannot be read.
uint32_t crc32c_file(const std::string& path);

}  // namespace mtcki::data
