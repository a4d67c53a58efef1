// safetensors: u64 header length, JSON header, packed little-endian buffer. The checks of the
// reader and the byte order of the writer are those of the reference implementation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "data/formats/file_bytes.h"
#include "data/formats/state_file.h"

namespace mtcki::data {

struct SafetensorsEntry {
  std::string name, dtype;  // "F32"
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes in the buffer
};

// A checked header over bytes that outlive it.
class SafetensorsView {
 public:
  SafetensorsView(Bytes content, std::string file_name);
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }  // in offset order
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // A copy of the tensor. F16 becomes f32; I8 I16 U16 become i32, U32 becomes i64. DataError for a
  // dtype that has no counterpart here: only now, so that the others of the file stay readable.
  Tensor get(const SafetensorsEntry& entry) const;

 private:
  Bytes buffer_;
  std::string file_name_;
  std::vector<SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

StateFile parse_safetensors(Bytes content, const std::string& file_name);
// The header with its length word, padded so that the buffer begins at a multiple of 8. `order`
// receives the indices of `tensors` in the order of the buffer.
std::string safetensors_header(const NamedTensors& tensors,
                               const std::map<std::string, std::string>& metadata,
                               std::vector<size_t>* order);

}  // namespace mtcki::data
