// Replay: what a student is shown. It gets the batches that are synthesised while the student trains,
// and makes the batch of every step of distillation. Which replay: distill.replay.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "data/loader.h"
#include "mtcki/config/config.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/synthesis/synthesizer.h"

namespace mtcki {

// What a replay is made from.
struct ReplayContext {
  data::ImageSet set;  // made before the student; it may hold no images
  DistillConfig config;
  int64_t loader_threads = 1;
  uint64_t seed = 0;
  Device device = {};
  // Where images are made while the student trains:
  Teachers* teachers = nullptr;
  ImageSource* source = nullptr;
  SynthesisConfig synthesis = {};
  std::string dir = {};  // for images that are kept
  PoolInfo info = {};    // of these
};

class Replay {
 public:
  virtual ~Replay() = default;

  // Finished batch number `number` of those that are made while the student trains.
  virtual void add(int64_t number, const Synthesizer::Batch& batch) = 0;
  // Steps of a pass over all images that there are now; 0: there are no passes.
  virtual int64_t batches_per_pass() = 0;

  // The host's part of step `step` of the student: chooses this process's rows. Then the device's,
  // which a captured step may contain: images [n,C,H,W] in [0,1] and, where they have any, labels.
  virtual void prepare(int64_t step) = 0;
  virtual data::Batch batch() = 0;
  virtual int64_t rows() const = 0;
  // What the student's loss on each row of batch() was, f32 [n], where the replay draws by it. Part of
  // a captured step.
  virtual bool draws_by_loss() const { return false; }
  virtual void learned(const Tensor& /*losses*/) {}
  // All images that there are now, where they have labels.
  virtual data::ImageSet images() { return {}; }
  // Names what the operations of batch() depend on beside the number of rows.
  virtual std::string variant() const { return ""; }

  virtual void visit(State& state) = 0;
};

// What replays of kept images share: where those that a student's rounds make lie, and that new
// passes begin, in an order of their own, when there are more of them.
class KeptReplay : public Replay {
 public:
  explicit KeptReplay(const ReplayContext& context);
  void add(int64_t number, const Synthesizer::Batch& batch) override;
  void prepare(int64_t step) override;
  void visit(State& state) override;

 protected:
  // Step `step` since the images are these.
  virtual void choose(int64_t step) = 0;
  // Images have come, or a checkpoint has been loaded.
  virtual void forget() = 0;
  const ReplayContext& context() const { return context_; }
  const ImagePool* own() const { return own_ ? &*own_ : nullptr; }  // null: there are no rounds
  uint64_t order() const;                                           // seed of the present passes

 private:
  int64_t own_batches() const { return own_ ? own_->batches() : 0; }

  ReplayContext context_;
  std::optional<ImagePool> own_;
  int64_t shown_ = 0, first_ = 0;  // own batches in the present order, and the step it began with
};

// The replay that the configuration names.
std::unique_ptr<Replay> make_replay(const ReplayContext& context);
// One row each of the table in replays.cpp.
std::unique_ptr<Replay> make_pool_replay(const ReplayContext& context);
std::unique_ptr<Replay> make_fresh_replay(const ReplayContext& context);
std::unique_ptr<Replay> make_maps_replay(const ReplayContext& context);

// Loader options of a pool of images: crop and flip, no normalisation (every network has its own).
data::LoaderOptions pool_loader(const DistillConfig& config, int64_t threads, uint64_t seed);

}  // namespace mtcki
