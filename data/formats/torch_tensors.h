// From the pickle of a PyTorch file to named tensors: shared by the zip form and the old stream
// form.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "data/formats/pickle.h"
#include "data/formats/state_file.h"

namespace mtcki::data {

struct TorchStorage {
  char type = 0;  // f d h b l i s c B o: torch.<X>Storage
  int64_t count = 0;
  Bytes bytes;  // of the elements; count * item size
};
// Bytes per element of torch.<name>, e.g. "FloatStorage", and its letter; 0 when unknown.
int torch_item_size(std::string_view storage_name, char* type);

// ('storage', type, key, location, count[, view]) of a persistent id.
struct TorchStorageId {
  std::string_view type_name, key;
  char type = 0;
  int item = 0;
  int64_t count = 0;
  int64_t view_offset = 0;  // old form: a view begins here, in elements of the root
  int64_t view_count = -1;  // -1: not a view
};
TorchStorageId torch_storage_id(const Pickle& pickle, const PickleValue& persistent,
                                const std::string& file_name);

// Walks to the state dict (by `key`, else below the usual wrapper keys) and copies its tensors into
// dense ones. `storage` resolves a persistent id. Numbers and short texts beside the state dict
// become metadata; what is no tensor is named in StateFile::unread. file_bytes bounds what may be
// allocated (8 times, tied tensors included).
StateFile torch_state(const Pickle& pickle, const std::string& file_name, uint64_t file_bytes,
                      const std::function<TorchStorage(const TorchStorageId&)>& storage,
                      const std::string& key = "");

// The two forms. bytes must be a PyTorch file.
StateFile parse_torch_zip(Bytes content, const std::string& file_name, const std::string& key = "");
StateFile parse_torch_stream(Bytes content, const std::string& file_name,
                             const std::string& key = "");
// By content.
StateFile parse_torch(Bytes content, const std::string& file_name, const std::string& key = "");

}  // namespace mtcki::data
