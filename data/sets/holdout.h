// Parts of a set. A validation split: choices are made on training images that no teacher has seen,
// so that the test images are used once.
#pragma once

#include "data/sets/dataset.h"

namespace mtcki::data {

// The images of these rows, with their labels.
ImageSet rows_of(const ImageSet& set, const std::vector<int64_t>& rows);

// The n held-out images of a training set (held), or all the others. They are the last ones, or,
// spread, every k-th: of sets that lie sorted by class. UsageError unless 0 < n < size.
ImageSet holdout_part(const ImageSet& set, int64_t n, bool spread, bool held);

}  // namespace mtcki::data
