// BatchSource: the batch of any global step of a set, for loops that count steps and not epochs.
// A pass over the set is a loader epoch; step s is batch s mod B of pass s / B. On the CPU the
// loader makes the batch; on the GPU the set lies there as bytes and one pass over the chosen rows
// crops, mirrors and normalises them. Both make the same batch. In a job of several ranks each gets
// its rows of the batch.
#pragma once

#include <memory>

#include "data/loader.h"
#include "tensor/cuda/step_inputs.h"

namespace mtcki {

class BatchSource {
 public:
  // A set smaller than a batch gives one short batch per pass.
  BatchSource(const data::ImageSet& set, data::LoaderOptions options, Device device = {});

  int64_t batches_per_pass() const { return per_pass_; }

  // The host's part: chooses the batch of a step. Then the device's, which a captured step may
  // contain: images, labels and rows, on the device.
  void prepare(int64_t step);
  data::Batch batch();
  int64_t rows() const { return rows_; }  // of the prepared batch
  data::Batch at(int64_t step) {
    prepare(step);
    return batch();
  }

 private:
  struct OnDevice;

  std::unique_ptr<data::Loader> loader_;  // on the CPU
  data::Batch loaded_;
  std::shared_ptr<OnDevice> there_;  // on the GPU
  int64_t per_pass_, rows_ = 0, next_ = -1;
};

}  // namespace mtcki
