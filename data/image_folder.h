// Labelled images in folders, PNG or JPEG.
#pragma once

#include <cstdint>
#include <string>

#include "data/dataset.h"

namespace mtcki::data {

// DIR/<split>/<class>/**: classes are the sorted names of the folders, files are taken recursively
// in sorted order, as RGB. "test" may also be called "val". DataError: an empty class, images of
// different sizes, classes of train and test that differ, a file that cannot be decoded (named).
// limit > 0: no more than that many images, spread evenly over the classes.
ImageSet load_image_folder(const std::string& dir, const std::string& split, int64_t limit = 0);

// tiny-imagenet-200: train/<wnid>/images/*.JPEG, and for "test" val/images/* with the classes in
// val/val_annotations.txt (the set's own test part has no labels). Classes in the order of
// wnids.txt.
ImageSet load_tiny_imagenet(const std::string& dir, const std::string& split, int64_t limit = 0);

}  // namespace mtcki::data
