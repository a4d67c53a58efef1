// Named tensors from and to files, whatever their format.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki::data {

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;  // file order
struct StateFile {
  NamedTensors tensors;
  std::map<std::string, std::string> metadata;
};

// safetensors (docs/file-formats.md). Writing is atomic: temporary sibling, fsync, rename, fsync dir.
StateFile read_safetensors(const std::string& path);
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});
// PyTorch pickles: the zip form and the old stream form (docs/data.md). Finds the state dict
// below the wrapper keys state_dict | net | model; numbers beside it go to metadata.
StateFile read_torch(const std::string& path);
// By content: safetensors or either torch form.
StateFile read_state_file(const std::string& path);

}  // namespace mtcki::data
