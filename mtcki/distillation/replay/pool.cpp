// All images made so far, cropped and mirrored, in shuffled passes. When the pool grows a new pass
// begins, in an order of its own.
#include <optional>

#include "mtcki/distillation/replay/replay.h"
#include "mtcki/synthesis/stage.h"
#include "mtcki/training/batch_source.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

// The images made before and this student's own batches, joined in memory.
data::ImageSet joined(const data::ImageSet& base, const ImagePool* more) {
  if (!more || more->size() == 0) return base;
  const data::ImageSet extra = more->load();
  if (base.size() == 0) return extra;
  data::ImageSet all = base;
  all.images = cat(std::vector<Tensor>{base.images, extra.images});
  all.labels = cat(std::vector<Tensor>{base.labels, extra.labels});
  return all;
}

class PoolReplay : public Replay {
 public:
  explicit PoolReplay(const ReplayContext& context) : context_(context) {
    if (!context.dir.empty()) own_.emplace(context.dir + "/synth", context.info);
  }

  void add(int64_t number, const Synthesizer::Batch& batch) override {
    store_images(batch, number, *context_.teachers, context_.synthesis, *own_);
    source_.reset();
  }

  int64_t batches_per_pass() override {
    open();
    return source_->batches_per_pass();
  }

  void prepare(int64_t step) override {
    if (shown_ != own_batches()) {
      shown_ = own_batches();
      first_ = step;
    }
    open();
    source_->prepare(step - first_);
  }
  data::Batch batch() override { return source_->batch(); }
  int64_t rows() const override { return source_->rows(); }

  void visit(State& s) override {
    int64_t batches = own_batches();
    uint32_t digest = own_ && !s.loading() ? own_->digest(batches) : 0;
    s("batches", batches);
    s("digest", digest);
    s("shown", shown_);
    s("first", first_);
    if (!s.loading() || !own_) return;
    own_->require(batches, digest);
    own_->truncate(batches);
    source_.reset();
  }

 private:
  int64_t own_batches() const { return own_ ? own_->batches() : 0; }
  void open() {
    if (source_) return;
    const data::ImageSet set = joined(context_.set, own_ ? &*own_ : nullptr);
    const uint64_t order =
        context_.seed + static_cast<uint64_t>(own_batches()) * 0x9e3779b97f4a7c15ull;
    source_.emplace(set, pool_loader(context_.config, context_.loader_threads, order),
                    context_.device);
  }

  ReplayContext context_;
  std::optional<ImagePool> own_;
  std::optional<BatchSource> source_;
  int64_t shown_ = 0, first_ = 0;  // own batches in the present order, and the step it began with
};

}  // namespace

std::unique_ptr<Replay> make_pool_replay(const ReplayContext& context) {
  return std::make_unique<PoolReplay>(context);
}

data::LoaderOptions pool_loader(const DistillConfig& config, int64_t threads, uint64_t seed) {
  data::LoaderOptions o;
  o.batch_size = config.batch_size;
  o.pad = config.pad;
  o.flip = config.flip;
  o.views = config.views;
  o.mix = config.mix;
  o.threads = static_cast<int>(threads);
  o.seed = seed;
  return o;
}

}  // namespace mtcki
