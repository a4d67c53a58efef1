#include "data/sets/holdout.h"

#include "tensor/ops/index.h"

namespace mtcki::data {

ImageSet rows_of(const ImageSet& set, const std::vector<int64_t>& rows) {
  const Tensor index = Tensor::from(rows, {static_cast<int64_t>(rows.size())});
  ImageSet out = set;
  out.images = index_select(set.images, index);
  out.labels = index_select(set.labels, index);
  return out;
}

ImageSet holdout_part(const ImageSet& set, int64_t n, bool spread, bool held) {
  const int64_t all = set.size();
  if (n <= 0 || n >= all)
    throw UsageError(str("data.holdout: ", n, " of ", all, " training images of ", set.name,
                         "; at least one must be held out and one left"));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < all; ++i) {
    const bool out = spread ? (i + 1) * n / all > i * n / all : i >= all - n;
    if (out == held) rows.push_back(i);
  }
  return rows_of(set, rows);
}

}  // namespace mtcki::data
