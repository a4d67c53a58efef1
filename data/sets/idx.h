// The idx format of MNIST and its relatives: 00 00 type ndim, ndim big-endian u32 sizes, big-endian
// elements; plain or gzip. Types 08 u8, 09 i8, 0B i16, 0C i32, 0D f32, 0E f64.
#pragma once

#include <string>

#include "data/formats/file_bytes.h"
#include "tensor/tensor.h"

namespace mtcki::data {

// u8, i32 (from i8, i16, i32), f32 or f64. DataError unless the payload is exactly the product of
// the sizes, and before anything is unpacked when the sizes come to more than `most` bytes.
constexpr int64_t kMostOfAny = int64_t{1} << 60;
Tensor parse_idx(Bytes content, const std::string& file_name, int64_t most = kMostOfAny);
Tensor read_idx(const std::string& path, int64_t most = kMostOfAny);

}  // namespace mtcki::data
