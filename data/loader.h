// Batches of an ImageSet with prefetch threads. What a batch holds is a pure function of (seed,
// epoch, batch index): it does not depend on the number of threads, and any position can be
// resumed.
#pragma once

#include <functional>
#include <iterator>
#include <memory>
#include <vector>

#include "data/mix.h"
#include "data/sets/dataset.h"
#include "tensor/rng.h"

namespace mtcki::data {

struct LoaderOptions {
  int64_t batch_size = 128;
  bool shuffle = true;
  // The rows of an epoch instead of a shuffle of all; a row may come several times. Any function of
  // the epoch that gives the same rows when an epoch is begun again.
  std::function<std::vector<int64_t>(int64_t epoch)> order = {};
  bool drop_last = true;
  int64_t pad = 0;    // random crop after padding by this many zeros (train: 4); 0: none
  bool flip = false;  // random horizontal mirror
  // Crops and mirrors of each image, in turn by epoch, so that what was computed of one can be kept;
  // 0: new ones in every epoch.
  int64_t views = 0;
  Mix mix = Mix::none;
  int threads = 1;  // prefetch threads; 0: in the calling thread
  uint64_t seed = 0;
  Normalization normalization;  // applied after augmentation; empty: images stay in [0,1]
  // Of the rows of every batch, the rank-th of `ranks` equal shares. UsageError from next() when a
  // batch cannot be shared evenly.
  int rank = 0, ranks = 1;
};

struct Batch {
  Tensor images;  // f32 [B,C,H,W], augmented and normalised
  Tensor labels;  // i64 [B]
  Tensor index;   // i64 [B], rows of the set
  // i64 [B], where what is kept of these images stands: view * size of the set + row. Undefined when
  // every epoch has new views.
  Tensor view_row;
  bool defined() const { return images.defined(); }
};

// Rows of a set, and each one's crop and mirror.
struct Pick {
  Tensor index;   // i64 [B]
  Tensor offset;  // i32 [B,2] in [0, 2 pad] (dy, dx): undefined when there is no crop
  Tensor flip;    // bool [B]: undefined when nothing is mirrored
};
// What a batch is made of. Every device makes its batches from the same plan.
struct BatchPlan {
  Pick own;
  Tensor labels;    // i64 [B]
  Tensor view_row;  // i64 [B], as in Batch
  // With a mix: y + share (x - y) of an image x and its second y. share: f32 [B,1,1,1], or
  // [B,1,H,W] in {0, 1}.
  Pick second;
  Tensor share;
};
// The plans of a set: a pure function of (seed, epoch, batch).
class BatchPlanner {
 public:
  // UsageError when images, labels or options do not fit.
  BatchPlanner(const ImageSet& set, const LoaderOptions& options);
  int64_t batches_per_epoch() const;
  void start_epoch(int64_t epoch);
  BatchPlan at(int64_t batch) const;

 private:
  Pick pick(int64_t rows) const;
  void augment(const Pick& pick, int64_t i, int64_t row) const;
  void mix(const BatchPlan& plan, int64_t i, int64_t row) const;
  // The number of the views that this epoch shows.
  int64_t view() const { return options_.views > 0 ? epoch_ % options_.views : epoch_; }

  Tensor labels_;
  LoaderOptions options_;
  int64_t size_, height_ = 0, width_ = 0, epoch_ = 0;
  std::vector<int64_t> order_;  // empty: identity
};

class Loader {
 public:
  Loader(const ImageSet& set, const LoaderOptions& options);
  ~Loader();
  int64_t batches_per_epoch() const;
  // Begins `epoch` at `first_batch` (resume).
  void start_epoch(int64_t epoch, int64_t first_batch = 0);
  // Next batch; undefined at the end of the epoch. UsageError before the first start_epoch().
  Batch next();

  // for (const Batch& batch : loader.epoch(3)): start_epoch(3), and next() until the end.
  class Epoch {
   public:
    explicit Epoch(Loader& loader) : loader_(loader) {}
    Epoch& operator++() {
      batch_ = loader_.next();
      return *this;
    }
    const Batch& operator*() const { return batch_; }
    bool operator==(std::default_sentinel_t) const { return !batch_.defined(); }
    Epoch begin() const { return ++Epoch(*this); }
    std::default_sentinel_t end() const { return {}; }

   private:
    Loader& loader_;
    Batch batch_;
  };
  Epoch epoch(int64_t number, int64_t first_batch = 0) {
    start_epoch(number, first_batch);
    return Epoch(*this);
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace mtcki::data
