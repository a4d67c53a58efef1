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
  std::map<std::string, std::string> unread;  // entries of the state dict that are no tensors
  std::vector<std::string> notes;             // what was chosen or left out, in words for the user
};

// safetensors (docs/file-formats.md). Writing is atomic: temporary sibling, fsync, rename, fsync dir.
StateFile read_safetensors(const std::string& path);
void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata = {});
// PyTorch pickles: the zip form and the old stream form (docs/data.md). Finds the state dict
// below the usual wrapper keys; numbers beside it go to metadata. key: where it is instead, as
// "state_dict_ema" or "0.model" (dotted names and list indices).
StateFile read_torch(const std::string& path, const std::string& key = "");
// The files that hold it: itself, or an index of sharded safetensors and what it names.
std::vector<std::string> state_file_parts(const std::string& path);
// By content: safetensors, the index of sharded safetensors, or either torch form.
StateFile read_state_file(const std::string& path, const std::string& key = "");

}  // namespace mtcki::data
