// Images that the generator as it is makes of the maps that were kept with all images so far, in
// shuffled passes (SpaceshipNet): every step draws which map, and with synthesis.exchange whether half
// of the channels come from another image (synthesis/channel_exchange.h). They are cropped and
// mirrored, and have no labels.
#include <algorithm>
#include <optional>

#include "mtcki/distillation/replay/replay.h"
#include "mtcki/synthesis/channel_exchange.h"
#include "tensor/comm.h"
#include "tensor/cuda/step_inputs.h"
#include "tensor/ops/augment.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

class MapsReplay : public KeptReplay {
 public:
  explicit MapsReplay(const ReplayContext& c) : KeptReplay(c), inputs_(c.device) {}

  void add(int64_t number, const Synthesizer::Batch& batch) override {
    KeptReplay::add(number, batch);
    if (maps_.empty()) return;  // all come from the pool
    for (size_t i = 0; i < maps_.size(); ++i)
      maps_[i] = cat(std::vector<Tensor>{maps_[i], batch.maps[i].to(context().device)});
  }
  int64_t batches_per_pass() override {
    return std::max<int64_t>(1, planner().batches_per_epoch());
  }
  data::Batch batch() override {
    const Tensor own = index_select(maps_[level_], own_),
                 other = index_select(maps_[level_], other_);
    const Tensor x = context().source->decode(static_cast<int64_t>(level_),
                                              exchange_channels(own, other, mask_));
    const bool as_it_is = !offset_.defined() && !flip_.defined();
    return {as_it_is ? x : pad_crop_flip(x, context().config.pad, offset_, flip_), {}, own_, {}};
  }
  int64_t rows() const override { return own_.size(0); }
  std::string variant() const override { return str(" map ", level_); }
  void visit(State& s) override {
    KeptReplay::visit(s);
    if (s.loading()) maps_.clear();
  }

 protected:
  void choose(int64_t step) override {
    const int64_t pass = step / batches_per_pass(), number = step % batches_per_pass();
    if (number == 0 || step != next_) planner().start_epoch(pass);
    next_ = step + 1;
    const data::BatchPlan plan = planner().at(number);  // of all ranks
    if (maps_.empty())
      for (const Tensor& t : own()->load("maps.")) maps_.push_back(t.to(context().device));
    const auto n = plan.own.index.size(0);
    const Rng draw{order(), rng_stream("replay/maps"), static_cast<uint64_t>(step)};
    level_ = static_cast<size_t>(draw.below(maps_.size(), 0));
    const bool exchanged = draw.uniform(1) < context().synthesis.exchange;
    const Tensor mask =
        draw_exchange(n, maps_[level_].size(1), exchanged,
                      {order(), rng_stream("replay/channels"), static_cast<uint64_t>(step)});
    const RowRange share = rows_of_rank(n, communicator(), "distill.batch_size");
    const auto set = [&](const std::string& name, const Tensor& all) {
      return inputs_.set(name, all.defined() ? all.slice(share.begin, share.end) : all);
    };
    own_ = set("own", plan.own.index);
    other_ = set("other", index_select(plan.own.index, partners(n)));
    mask_ = set(str("mask of ", level_), mask);
    offset_ = set("offset", plan.own.offset);
    flip_ = set("flip", plan.own.flip);
  }
  void forget() override { planner_.reset(); }

 private:
  data::BatchPlanner& planner() {
    if (planner_) return *planner_;
    data::ImageSet rows;  // which is all that matters here
    rows.images = Tensor::zeros({own()->size(), 1, 1, 1}, DType::u8);
    rows.labels = Tensor::zeros({own()->size()}, DType::i64);
    data::LoaderOptions o = pool_loader(context().config, 0, order());
    o.drop_last = rows.size() >= o.batch_size;
    return planner_.emplace(rows, o);
  }

  std::optional<data::BatchPlanner> planner_;
  std::vector<Tensor> maps_;  // [images so far, C,H,W] by number, on the device
  StepInputs inputs_;
  int64_t next_ = -1;
  // Of the step:
  size_t level_ = 0;
  Tensor own_, other_, mask_, offset_, flip_;
};

}  // namespace

std::unique_ptr<Replay> make_maps_replay(const ReplayContext& context) {
  return std::make_unique<MapsReplay>(context);
}

}  // namespace mtcki
