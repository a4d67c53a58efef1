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
  std::vector<std::string> classes;  // data::ImageSet::class_ids of its set; empty: not known
};

// In a job of several ranks: collective, the first one writes.
void write_model_file(const std::string& path, nn::Classifier& net, const ModelCard& card);
// Names of classes as JSON; empty where one is no UTF-8: readers then do not know the order.
std::string class_list(const std::vector<std::string>& names);
// What the metadata of the file `path` says of it; entries that are missing stay at their defaults.
// DataError for a number of classes, an input or a normalisation that cannot be.
ModelCard read_model_card(const std::string& path,
                          const std::map<std::string, std::string>& metadata);

// Of the file, or of all files that an index of sharded safetensors names.
std::string weights_sha256(const std::string& path);

// Renames keys before loading. preset: "" (none), the name of a zoo or of a tool (docs/teachers.md):
// torchvision, timm, datafree, kuangliu, weiaicunzai, mmpretrain; or a file of lines: "old new"
// renames what is called old or lies below it (whole dotted parts), "old" takes the part away,
// "old -" leaves these tensors out. A prefix that all names have (module., model., _orig_mod., ...)
// is removed, counters of training tools and what stands beside a network that has a prefix of its
// own are left out, factors of pruning and of weight norm multiplied, all with a note.
data::NamedTensors rename_keys(const data::NamedTensors& tensors, const std::string& preset,
                               nn::Classifier& net, std::vector<std::string>* notes = nullptr);

const std::vector<std::string>& name_presets();

// DataError that begins with `who`: no such file, or a folder.
void require_weights_file(const std::string& who, const std::string& path);

// Builds spec.name and loads the file strictly. DataError: missing, unexpected and mis-shaped
// names; other class counts and input channels are named as such; a value that is not finite, a
// negative variance. `key`: where in the file the weights are (data::read_state_file).
std::unique_ptr<nn::Classifier> load_model(const std::string& path, const nn::ModelSpec& spec,
                                           const std::string& name_map, ModelCard* card = nullptr,
                                           std::vector<std::string>* notes = nullptr,
                                           const std::string& key = "");

}  // namespace mtcki
