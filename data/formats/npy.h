// NumPy's .npy and .npz.
#pragma once

#include <string>

#include "data/formats/file_bytes.h"
#include "data/formats/state_file.h"

namespace mtcki::data {

// Versions 1 to 3, little-endian f2 f4 f8 i4 i8 u1 i1 b1, C or Fortran order (copied to C order).
// f2 becomes f32, i1 becomes i32. DataError: anything else, object arrays (they are pickles),
// damage.
Tensor parse_npy(Bytes content, const std::string& file_name);
// Members without their ".npy"; stored or deflated.
NamedTensors parse_npz(Bytes content, const std::string& file_name);
// By content.
NamedTensors read_npz(const std::string& path);
Tensor read_npy(const std::string& path);

}  // namespace mtcki::data
