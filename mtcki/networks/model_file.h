// Weights with what is needed to use them: architecture, classes, input shape, normalisation and
// test accuracy in the file's metadata (docs/file-formats.md). And import of other people's files.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

struct ModelCard {
  nn::ModelSpec spec;
  data::Normalization normalization;
  double top1 = -1, top5 = -1;  // percent on the test set; negative: unknown
  std::string config_sha256;
};

// In a job of several ranks: collective, the first one writes.
void write_model_file(const std::string& path, nn::Classifier& net, const ModelCard& card);
// What a file's metadata says of it; entries that are missing stay at their defaults.
ModelCard read_model_card(const std::map<std::string, std::string>& metadata);

// Renames keys before loading. preset: "" (none), torchvision and datafree and kuangliu (the three
// spellings of shortcut/downsample and linear/fc; the one that the network uses is the target), or
// a file of lines "old new" (prefixes of names).
data::NamedTensors rename_keys(const data::NamedTensors& tensors, const std::string& preset,
                               nn::Classifier& net);

// Builds spec.name and loads the file strictly. DataError: missing, unexpected and mis-shaped
// names; other class counts and input channels are named as such.
std::unique_ptr<nn::Classifier> load_model(const std::string& path, const nn::ModelSpec& spec,
                                           const std::string& name_map, ModelCard* card = nullptr,
                                           std::vector<std::string>* notes = nullptr);

}  // namespace mtcki
