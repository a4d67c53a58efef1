// BatchPlanner: which rows, crops and mirrors make a batch.
#include <algorithm>

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
  if (options.batch_size < 1)
    throw UsageError(str("Loader: batch_size ", options.batch_size, " < 1"));
  if (options.pad < 0) throw UsageError(str("Loader: pad ", options.pad, " < 0"));
  if (options.views < 0) throw UsageError(str("Loader: views ", options.views, " < 0"));
  if (options.threads < 0) throw UsageError(str("Loader: threads ", options.threads, " < 0"));
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
  if (options_.shuffle)
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
  const int64_t pad = options_.pad;
  BatchPlan plan{Tensor::empty({rows}, DType::i64), Tensor::empty({rows}, DType::i64), {}, {}, {}};
  if (pad > 0) plan.offset = Tensor::empty({rows, 2}, DType::i32);
  if (options_.flip) plan.flip = Tensor::empty({rows}, DType::boolean);
  const int64_t view = options_.views > 0 ? epoch_ % options_.views : epoch_;
  if (options_.views > 0) plan.view_row = Tensor::empty({rows}, DType::i64);
  const int64_t* labels = labels_.data<int64_t>();
  const Rng augment{options_.seed, rng_stream("loader/augment"), static_cast<uint64_t>(view)};
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = order_.empty() ? begin + i : order_[static_cast<size_t>(begin + i)];
    plan.index.data<int64_t>()[i] = row;
    plan.labels.data<int64_t>()[i] = labels[row];
    if (plan.view_row.defined()) plan.view_row.data<int64_t>()[i] = view * size_ + row;
    if (pad == 0 && !options_.flip) continue;
    // Keyed by the image, not by its place in a batch: any batch size sees the same draw.
    const auto bits = augment.bits(static_cast<uint64_t>(row));
    const auto range = static_cast<uint64_t>(2 * pad + 1);
    if (pad > 0)
      for (size_t k = 0; k < 2; ++k)
        plan.offset.data<int32_t>()[2 * i + static_cast<int64_t>(k)] =
            static_cast<int32_t>(bits[k] * range >> 32);
    if (options_.flip) plan.flip.data<bool>()[i] = (bits[2] >> 31) != 0;
  }
  return plan;
}

}  // namespace mtcki::data
