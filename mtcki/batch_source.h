// BatchSource: the batch of any global step of a set, for loops that count steps and not epochs.
// A pass over the set is a loader epoch; step s is batch s mod B of pass s / B.
#pragma once

#include <algorithm>

#include "data/loader.h"

namespace mtcki {

class BatchSource {
 public:
  // A set smaller than a batch gives one short batch per pass.
  BatchSource(const data::ImageSet& set, data::LoaderOptions options)
      : loader_(set, fitted(set, options)),
        per_pass_(std::max<int64_t>(1, loader_.batches_per_epoch())) {}

  int64_t batches_per_pass() const { return per_pass_; }

  data::Batch at(int64_t step) {
    if (step != next_ || step % per_pass_ == 0)
      loader_.start_epoch(step / per_pass_, step % per_pass_);
    next_ = step + 1;
    data::Batch batch = loader_.next();
    if (!batch.defined()) throw Error(str("loader ended before step ", step));
    return batch;
  }

 private:
  static data::LoaderOptions fitted(const data::ImageSet& set, data::LoaderOptions options) {
    if (set.size() == 0) throw DataError(str("data set ", set.name, " is empty"));
    options.drop_last = set.size() >= options.batch_size;
    return options;
  }
  data::Loader loader_;
  int64_t per_pass_, next_ = -1;
};

}  // namespace mtcki
