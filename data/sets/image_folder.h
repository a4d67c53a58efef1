// Labelled images in folders, PNG or JPEG.
#pragma once

#include <cstdint>
#include <string>

#include "data/resize.h"
#include "data/sets/dataset.h"

namespace mtcki::data {

struct FolderOptions {
  int64_t limit = 0;    // > 0: no more than that many images, spread evenly over the classes
  int64_t size = 0;     // > 0: every image becomes size x size, and `note` says which were not
  Fit fit = Fit::crop;  // how
};

// DIR/<split>/<class>/**: classes are the sorted names of the folders, files are taken recursively
// in sorted order, as RGB: grey images get three equal channels, alpha is dropped. "test" may also
// be called "val". DataError: an empty class, images of different sizes without `size`, classes of
// train and test that differ, a file that cannot be decoded (named).
ImageSet load_image_folder(const std::string& dir, const std::string& split,
                           const FolderOptions& options = {});

// tiny-imagenet-200: train/<wnid>/images/*.JPEG, and for "test" val/images/* with the classes in
// val/val_annotations.txt (the set's own test part has no labels). Classes in the order of
// wnids.txt.
ImageSet load_tiny_imagenet(const std::string& dir, const std::string& split,
                            const FolderOptions& options = {});

}  // namespace mtcki::data
