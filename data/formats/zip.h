// ZIP archives (.pth, .npz): the central directory is believed, every offset and size is checked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/file_bytes.h"

namespace mtcki::data {

struct ZipEntry {
  std::string name;
  uint16_t method = 0;  // 0 stored, 8 deflated
  uint32_t crc = 0;
  uint64_t packed = 0, size = 0, header = 0;  // header: offset of the local header
};

// The bytes of a member: in the file when stored, else in `owned`.
struct ZipMember {
  std::vector<uint8_t> owned;
  Bytes bytes;
};

class ZipArchive {
 public:
  ZipArchive(Bytes content, std::string file_name);
  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* find(std::string_view name) const;  // nullptr: none
  // Content of the member with its CRC-32 verified. A claimed size that deflate cannot reach, or
  // beyond `limit`, is a DataError before memory is taken.
  ZipMember read(const ZipEntry& entry, uint64_t limit = UINT64_MAX) const;
  // Offset of the member's data in the file.
  uint64_t data_offset(const ZipEntry& entry) const;

 private:
  Bytes content_;
  std::string file_name_;
  std::vector<ZipEntry> entries_;
  mutable uint64_t
      budget_;  // bytes that may still be inflated: members may overlap in a hostile file
};

}  // namespace mtcki::data
