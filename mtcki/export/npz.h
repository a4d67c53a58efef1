// Tensors as NumPy's .npz: a ZIP of stored .npy members, which numpy.load() reads without pickle.
#pragma once

#include <string>

#include "data/formats/state_file.h"

namespace mtcki {

// f32 f64 i64 i32 u8 bool, C order; bf16 as f32. Atomic. UsageError for more than 65,535 tensors or
// 4 GiB: the format without its 64-bit extension ends there.
void write_npz(const std::string& path, const data::NamedTensors& tensors);

}  // namespace mtcki
