#include "data/sets/holdout.h"

#include <cstring>

namespace mtcki::data {

ImageSet holdout_part(const ImageSet& set, int64_t n, bool spread, bool held) {
  const int64_t all = set.size();
  if (n <= 0 || n >= all)
    throw UsageError(str("data.holdout: ", n, " of ", all, " training images of ", set.name,
                         "; at least one must be held out and one left"));
  ImageSet part = set;
  Shape shape = set.images.shape();
  shape.set(0, held ? n : all - n);
  part.images = Tensor::empty(shape, DType::u8);
  part.labels = Tensor::empty({shape[0]}, DType::i64);
  const size_t bytes = static_cast<size_t>(set.images.numel() / all);
  int64_t row = 0;
  for (int64_t i = 0; i < all; ++i) {
    const bool out = spread ? (i + 1) * n / all > i * n / all : i >= all - n;
    if (out != held) continue;
    std::memcpy(part.images.data<uint8_t>() + static_cast<size_t>(row) * bytes,
                set.images.data<uint8_t>() + static_cast<size_t>(i) * bytes, bytes);
    part.labels.data<int64_t>()[row++] = set.labels.data<int64_t>()[i];
  }
  return part;
}

}  // namespace mtcki::data
