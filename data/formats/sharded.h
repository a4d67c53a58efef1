// Weights in several files: an index "NAME.index.json" whose weight_map says which file beside it
// holds which tensor (Hugging Face's layout, of safetensors or of PyTorch files).
#pragma once

#include <string>

#include "data/formats/state_file.h"

namespace mtcki::data {

bool is_sharded_index(const std::string& path);
// All tensors, in the order of the files. DataError: an index that is none, a file that is missing
// or lies elsewhere, a tensor that its file does not hold.
StateFile read_sharded(const std::string& path);

}  // namespace mtcki::data
