// All images made so far, cropped and mirrored, in shuffled passes; with distill.priority = a > 0 in
// passes whose rows are drawn, each with a probability in proportion to (last loss)^a (as Schaul et al.,
// "Prioritized Experience Replay", ICLR 2016, without their correction). An image that no loss is known
// of counts as the one with the largest.
#include <algorithm>
#include <cmath>
#include <optional>

#include "mtcki/distillation/replay/replay.h"
#include "mtcki/training/batch_source.h"
#include "tensor/comm.h"
#include "tensor/ops/elementwise.h"
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

class PoolReplay : public KeptReplay {
 public:
  using KeptReplay::KeptReplay;

  int64_t batches_per_pass() override { return source().batches_per_pass(); }
  data::Batch batch() override {
    data::Batch b = source_->batch();
    rows_ = b.index;
    return b;
  }
  int64_t rows() const override { return source_->rows(); }
  data::ImageSet images() override { return joined(context().set, own()); }

  bool draws_by_loss() const override { return context().config.priority > 0; }
  void learned(const Tensor& losses) override {
    const Communicator& comm = communicator();
    const Tensor at = comm.all_gather(rows_), loss = comm.all_gather(losses);
    const auto by_image = [&](const Tensor& x) {
      return index_select_grad(x.reshape({x.numel(), 1}), at, {losses_.numel(), 1})
          .reshape(losses_.shape());
    };
    const Tensor times = by_image(Tensor::full(loss.shape(), 1.0, DType::f32, loss.device()));
    const Tensor mean =
        div(by_image(loss),
            maximum(times, Tensor::full(times.shape(), 1.0, DType::f32, times.device())));
    losses_.copy_(where(less(Tensor::zeros_like(times), times), mean, losses_));
  }
  void visit(State& s) override {
    KeptReplay::visit(s);
    if (!draws_by_loss()) return;
    s.optional("losses", losses_, context().device);
    s.optional("drawn_by", drawn_by_, Device::cpu());
    s("drawn_pass", drawn_pass_);
  }

 protected:
  void choose(int64_t step) override { source().prepare(step); }
  void forget() override { source_.reset(); }

 private:
  BatchSource& source() {
    if (source_) return *source_;
    const data::ImageSet set = images();
    data::LoaderOptions o = pool_loader(context().config, context().loader_threads, order());
    if (draws_by_loss()) {
      o.order = [this](int64_t pass) { return draw(pass); };
      grow(set.size());
    }
    return source_.emplace(set, o, context().device);
  }

  // Losses of more images; what comes is not known yet.
  void grow(int64_t size) {
    const int64_t known = losses_.defined() ? losses_.numel() : 0;
    if (known == size) return;
    const Tensor more = Tensor::full({size - known}, -1.0, DType::f32, context().device);
    losses_ = known == 0 ? more : cat(std::vector<Tensor>{losses_, more});
    drawn_pass_ = -1;
  }

  std::vector<int64_t> draw(int64_t pass) {
    if (pass != drawn_pass_) {
      drawn_by_ = losses_.to(Device::cpu()).clone();
      drawn_pass_ = pass;
    }
    const std::vector<double> loss = drawn_by_.to_vector<double>();
    const double most = std::max(*std::ranges::max_element(loss), 1e-12);
    std::vector<double> sums;
    for (const double l : loss)
      sums.push_back((sums.empty() ? 0 : sums.back()) +
                     std::pow(l < 0 ? 1 : l / most, context().config.priority));
    const Rng rng{order(), rng_stream("replay/priority"), static_cast<uint64_t>(pass)};
    std::vector<int64_t> rows;
    for (size_t i = 0; i < loss.size(); ++i)
      rows.push_back(std::min<int64_t>(
          std::ranges::upper_bound(sums, rng.uniform(i) * sums.back()) - sums.begin(),
          std::ssize(loss) - 1));
    return rows;
  }

  std::optional<BatchSource> source_;
  Tensor rows_;              // of the batch
  Tensor losses_;            // f32 [images], the last ones, on the device; −1: none yet
  Tensor drawn_by_;          // those that the pass under way was drawn by
  int64_t drawn_pass_ = -1;  // its number
};

}  // namespace

std::unique_ptr<Replay> make_pool_replay(const ReplayContext& context) {
  return std::make_unique<PoolReplay>(context);
}

data::LoaderOptions pool_loader(const DistillConfig& config, int64_t threads, uint64_t seed) {
  return {.batch_size = config.batch_size,
          .pad = config.pad,
          .flip = config.flip,
          .views = config.views,
          .mix = config.mix,
          .threads = static_cast<int>(threads),
          .seed = seed};
}

}  // namespace mtcki
