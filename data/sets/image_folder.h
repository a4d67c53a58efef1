// Labelled images in folders, PNG or JPEG.
#pragma once

#include <cstdint>
#include <string>

#include "data/resize.h"
#include "data/sets/dataset.h"

namespace mtcki::data {

struct FolderOptions {
  int64_t limit = 0;        // > 0: no more than that many images, spread evenly over the classes
  int64_t size = 0;         // > 0: every image becomes size x size, and `note` says which were not
  Fit fit = Fit::crop;      // how
  int64_t channels = 3;     // 3: RGB; 1: grey (ITU-R 601 luma of colour images)
  int64_t skip_bad = 0;     // so many files that cannot be read are left out, with a note
  bool file_order = false;  // tiny-imagenet: classes in the order of wnids.txt
  bool number_order = false;  // load_image_folder: class2 before class10
};
FolderOptions folder_options(const DatasetSpec& spec);

// DIR/<split>/<class>/**: classes are the sorted names of the folders, files are taken recursively
// in sorted order: grey images get three equal channels, alpha is dropped. "test" may also be
// called val, valid, validation or testing, "train" training. What is hidden is no class and no
// image; `note` says how much was left out (data/sets/image_tree.h), and where the order of the
// names as text is not that of the numbers in them. DataError: an empty class, images of different
// sizes without `size`, classes of train and test that differ, a file that cannot be decoded
// (named).
ImageSet load_image_folder(const std::string& dir, const std::string& split,
                           const FolderOptions& options = {});

// tiny-imagenet-200: train/<wnid>/**, and for "test" val/images/* with the classes in
// val/val_annotations.txt, or val/<wnid>/** as the usual scripts sort it (the set's own test part
// has no labels). Classes are the *sorted* ids, as everybody numbers them who reads the set as
// folders; with file_order, the lines of wnids.txt, as this project did at first.
ImageSet load_tiny_imagenet(const std::string& dir, const std::string& split,
                            const FolderOptions& options = {});

}  // namespace mtcki::data
