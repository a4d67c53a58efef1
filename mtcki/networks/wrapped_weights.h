// What wrappers around a network leave in its state dict. Internal to rename_keys (model_file.h).
#pragma once

#include <string>
#include <vector>

#include "data/formats/state_file.h"
#include "nn/models/model.h"

namespace mtcki {

// Weights that a file has in two factors become one: orig * mask of torch.nn.utils.prune, and
// g v / ||v|| of weight_norm (Salimans & Kingma 2016) in both of PyTorch's spellings.
void compose_weights(data::NamedTensors* tensors, std::vector<std::string>* notes);

// Where the network's names and shapes, and no others, stand behind one prefix, what stands beside
// them is left out: losses with weights, projection heads, normalisation. DataError: several such
// prefixes with different values.
void take_nested(const nn::StateDict& wanted, data::NamedTensors* tensors,
                 std::vector<std::string>* notes);

}  // namespace mtcki
