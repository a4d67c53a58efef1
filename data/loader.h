// Batches of an ImageSet with prefetch threads. What a batch holds is a pure function of (seed, epoch,
// batch index): it does not depend on the number of threads, and any position can be resumed.
#pragma once

#include <memory>

#include "data/dataset.h"
#include "tensor/rng.h"

namespace mtcki::data {

struct LoaderOptions {
  int64_t batch_size = 128;
  bool shuffle = true;
  bool drop_last = true;
  int64_t pad = 0;       // random crop after padding by this many zeros (train: 4); 0: none
  bool flip = false;     // random horizontal mirror
  int threads = 1;       // prefetch threads; 0: in the calling thread
  uint64_t seed = 0;
  Normalization normalization;  // applied after augmentation; empty: images stay in [0,1]
};

struct Batch {
  Tensor images;  // f32 [B,C,H,W], augmented and normalised
  Tensor labels;  // i64 [B]
  Tensor index;   // i64 [B], rows of the set
  bool defined() const { return images.defined(); }
};

class Loader {
 public:
  Loader(const ImageSet& set, const LoaderOptions& options);
  ~Loader();
  int64_t batches_per_epoch() const;
  // Begins `epoch` at `first_batch` (resume).
  void start_epoch(int64_t epoch, int64_t first_batch = 0);
  // Next batch; undefined at the end of the epoch.
  Batch next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mtcki::data
