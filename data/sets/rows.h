// The table of data sets: a row is all that the project knows of a set. Each reader makes its own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "data/sets/verify.h"

namespace mtcki::data {

struct DatasetRow {
  DatasetInfo info;
  Normalization pixels;              // dataset_pixels()
  std::vector<std::string> folders;  // the names under which its folder may lie
  std::function<ImageSet(const std::string& dir, const DatasetSpec& spec)> load;
  // Its files as they lie in `dir`, for a set of known files.
  std::function<std::vector<DataFile>(const std::string& dir)> files;
  std::vector<DataDownload> downloads;
};

DatasetRow cifar_row(bool cifar100);
DatasetRow mnist_row(bool fashion);
DatasetRow tiny_imagenet_row();
DatasetRow image_folder_row();
DatasetRow synth10_row(bool grey);

const DatasetRow& dataset_row(const std::string& name);  // UsageError: unknown, with the nearest
// Whether a file of a set, by its name, belongs to the training part.
bool is_training_file(const std::string& path);

}  // namespace mtcki::data
