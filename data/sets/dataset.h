// Labelled image sets in memory, as bytes: what the field's files hold and what pools store.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki::data {

// Per-channel mean and standard deviation of images in [0,1].
struct Normalization {
  std::vector<double> mean, std;
  Tensor mean_tensor() const;  // f32 [C]
  Tensor std_tensor() const;
  // For images in 0..255: no mean of images in [0,1] is above 1, no deviation above 1/2.
  bool is_of_bytes() const;
};

struct ImageSet {
  std::string name, split;  // "cifar10", "test"
  Tensor images;            // u8 [N,C,H,W], plain
  Tensor labels;            // i64 [N]
  std::vector<std::string> class_names;
  std::vector<std::string> class_ids;   // distinct names of the classes, in their order
  std::vector<std::string> listed_ids;  // tiny-imagenet: the same in the order of wnids.txt
  Normalization normalization;          // the field's default for this set
  std::string note;                     // what was done to the images on loading; mostly empty
  int64_t size() const { return images.defined() ? images.size(0) : 0; }
  int64_t num_classes() const { return static_cast<int64_t>(class_names.size()); }
};

struct DatasetSpec {
  std::string name;          // see dataset_names()
  std::string dir;           // folder of the files; empty: the default place (dataset_default_dir)
  std::string split;         // "train" | "test"
  int64_t limit = 0;         // first n images only (image folders: spread over the classes); 0: all
  uint64_t seed = 0;         // synth10
  int64_t size = 0;          // sets of image files: every image becomes size x size; 0: as it is
  std::string fit = "crop";  // crop | pad: how (data/resize.h)
  int64_t channels = 0;      // imagefolder: 3 (RGB, also for 0) or 1 (grey)
  int64_t skip_bad = 0;      // image files that may be left out because they cannot be read
  std::string class_order = "sorted";  // file: lines of wnids.txt; number: as numbers in the names
};
// cifar10 cifar100 mnist fashion-mnist tiny-imagenet imagefolder synth10 synth10-gray. DataError
// (exit 3): which file, expected, found, what to do. UsageError for an unknown name, with the
// nearest, and for a size where there are no image files.
ImageSet load_dataset(const DatasetSpec& spec);
// The UsageErrors among these, before any file is read.
void check_dataset_spec(const DatasetSpec& spec);
std::vector<std::string> dataset_names();
// The first that exists of $MTCKI_DATA_DIR/<name>, ./data/<name>, data/<name> of the sources, also
// spelt otherwise ("cifar-10", "cifar-10-batches-bin"); else where the set would be put.
std::string dataset_default_dir(const std::string& name);
// What a set looks like without reading it: for checks before the data.
struct DatasetInfo {
  std::string name, description, source;  // source: where the files come from, in clear text
  int64_t channels = 3, image_size = 32, num_classes = 10;  // 0: depends on the files
  Normalization normalization;
  bool image_files = false;  // imagefolder, tiny-imagenet: DatasetSpec::size
  bool procedural = false;   // made in memory: there are no files
};
DatasetInfo dataset_info(const std::string& name);
// Mean and standard deviation of the training images' pixels, which are not always what the field
// normalises with; empty: depends on the files.
Normalization dataset_pixels(const std::string& name);

}  // namespace mtcki::data
