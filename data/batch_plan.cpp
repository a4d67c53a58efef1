// BatchPlanner: which rows, crops, mirrors and mixes make a batch.
#include <algorithm>
#include <cmath>

#include "data/loader.h"
#include "tensor/error.h"

namespace mtcki::data {

BatchPlanner::BatchPlanner(const ImageSet& set, const LoaderOptions& options)
    : labels_(set.labels), options_(options), size_(set.size()) {
  if (!set.images.defined() || set.images.rank() != 4 || set.images.dtype() != DType::u8 ||
      !set.images.is_plain())
    throw UsageError(str("Loader: images must be u8 [N,C,H,W], plain; got ",
                         set.images.defined() ? set.images.describe() : "none"));
  if (!set.labels.defined() || set.labels.dtype() != DType::i64 || set.labels.numel() != set.size())
    throw UsageError(str("Loader: labels must be i64 [", set.size(), "]"));
  height_ = set.images.size(2);
  width_ = set.images.size(3);
  if (options.batch_size < 1)
    throw UsageError(str("Loader: batch_size ", options.batch_size, " < 1"));
  if (options.pad < 0) throw UsageError(str("Loader: pad ", options.pad, " < 0"));
  if (options.views < 0) throw UsageError(str("Loader: views ", options.views, " < 0"));
  if (options.threads < 0) throw UsageError(str("Loader: threads ", options.threads, " < 0"));
  if (options.rank < 0 || options.rank >= options.ranks)
    throw UsageError(str("Loader: rank ", options.rank, " of ", options.ranks, " ranks"));
  const auto channels = static_cast<size_t>(set.images.size(1));
  const Normalization& n = options.normalization;
  if (n.mean.size() != n.std.size() || (!n.mean.empty() && n.mean.size() != channels))
    throw UsageError(str("Loader: images have ", channels, " channels, the normalisation has ",
                         n.mean.size(), " means and ", n.std.size(), " stds"));
  for (const double v : n.std)
    if (!(v > 0)) throw UsageError(str("Loader: std ", v, " must be positive"));
}

int64_t BatchPlanner::batches_per_epoch() const {
  const int64_t b = options_.batch_size;
  return options_.drop_last ? size_ / b : (size_ + b - 1) / b;
}

void BatchPlanner::start_epoch(int64_t epoch) {
  epoch_ = epoch;
  order_.clear();
  if (options_.order) {
    order_ = options_.order(epoch);
    if (std::ssize(order_) != size_)
      throw UsageError(str("Loader: the order of epoch ", epoch, " has ", order_.size(),
                           " rows, the set ", size_));
    for (const int64_t row : order_)
      if (row < 0 || row >= size_)
        throw UsageError(str("Loader: row ", row, " in the order of epoch ", epoch,
                             " is outside 0..", size_ - 1));
  } else if (options_.shuffle)
    order_ = randperm(size_, Rng{options_.seed, rng_stream("loader/shuffle"),
                                 static_cast<uint64_t>(epoch)})
                 .to_vector<int64_t>();
}

BatchPlan BatchPlanner::at(int64_t batch) const {
  const int64_t first = batch * options_.batch_size;
  const int64_t whole = std::min(options_.batch_size, size_ - first), rows = whole / options_.ranks;
  if (whole % options_.ranks != 0)
    throw UsageError(str("a batch of ", whole, " images cannot be shared by ", options_.ranks,
                         " ranks; change the batch size, the set's size or the number of ranks"));
  const int64_t begin = first + options_.rank * rows;
  BatchPlan plan{pick(rows), Tensor::empty({rows}, DType::i64), {}, {}, {}};
  if (options_.views > 0) plan.view_row = Tensor::empty({rows}, DType::i64);
  if (options_.mix != Mix::none) plan.second = pick(rows);
  if (options_.mix == Mix::mixup) plan.share = Tensor::empty({rows, 1, 1, 1});
  if (options_.mix == Mix::cutmix) plan.share = Tensor::empty({rows, 1, height_, width_});
  const int64_t* labels = labels_.data<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = order_.empty() ? begin + i : order_[static_cast<size_t>(begin + i)];
    augment(plan.own, i, row);
    plan.labels.data<int64_t>()[i] = labels[row];
    if (plan.view_row.defined()) plan.view_row.data<int64_t>()[i] = view() * size_ + row;
    if (plan.share.defined()) mix(plan, i, row);
  }
  return plan;
}

Pick BatchPlanner::pick(int64_t rows) const {
  Pick out{Tensor::empty({rows}, DType::i64), {}, {}};
  if (options_.pad > 0) out.offset = Tensor::empty({rows, 2}, DType::i32);
  if (options_.flip) out.flip = Tensor::empty({rows}, DType::boolean);
  return out;
}

// Draws are keyed by the image, not by its place in a batch: any batch size sees the same.
void BatchPlanner::augment(const Pick& pick, int64_t i, int64_t row) const {
  pick.index.data<int64_t>()[i] = row;
  if (!pick.offset.defined() && !pick.flip.defined()) return;
  const auto bits =
      Rng{options_.seed, rng_stream("loader/augment"), static_cast<uint64_t>(view())}.bits(
          static_cast<uint64_t>(row));
  const auto range = static_cast<uint64_t>(2 * options_.pad + 1);
  if (pick.offset.defined())
    for (size_t k = 0; k < 2; ++k)
      pick.offset.data<int32_t>()[2 * i + static_cast<int64_t>(k)] =
          static_cast<int32_t>(bits[k] * range >> 32);
  if (pick.flip.defined()) pick.flip.data<bool>()[i] = (bits[2] >> 31) != 0;
}

void BatchPlanner::mix(const BatchPlan& plan, int64_t i, int64_t row) const {
  const auto bits =
      Rng{options_.seed, rng_stream("loader/mix"), static_cast<uint64_t>(view())}.bits(
          static_cast<uint64_t>(row));
  // A whole number in [0, n) of 32 random bits.
  const auto below = [](uint32_t b, int64_t n) {
    return static_cast<int64_t>(b * static_cast<uint64_t>(n) >> 32);
  };
  augment(plan.second, i, below(bits[0], size_));
  const double other = static_cast<double>(bits[1]) * 0x1p-33;  // the second's share, in [0, 1/2)
  if (options_.mix == Mix::mixup) {
    plan.share.data<float>()[i] = static_cast<float>(1 - other);
    return;
  }
  // A box of that area and of the image's shape, anywhere about a centre in the image; what lies
  // outside is cut off.
  float* share = plan.share.data<float>() + i * height_ * width_;
  std::fill(share, share + height_ * width_, 1.0f);
  const auto side = [&](int64_t n) {
    return static_cast<int64_t>(std::lround(std::sqrt(other) * static_cast<double>(n)));
  };
  const int64_t h = side(height_), w = side(width_);
  const int64_t top = below(bits[2], height_) - h / 2, left = below(bits[3], width_) - w / 2;
  for (int64_t y = std::max<int64_t>(top, 0); y < std::min(top + h, height_); ++y)
    for (int64_t x = std::max<int64_t>(left, 0); x < std::min(left + w, width_); ++x)
      share[y * width_ + x] = 0;
}

}  // namespace mtcki::data
