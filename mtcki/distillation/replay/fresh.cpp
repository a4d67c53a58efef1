// Images of the source as it is, new ones in every step; nothing is kept.
#include "mtcki/distillation/replay/replay.h"
#include "tensor/comm.h"
#include "tensor/cuda/step_inputs.h"

namespace mtcki {

namespace {

class FreshReplay : public Replay {
 public:
  explicit FreshReplay(const ReplayContext& c)
      : source_(*c.source),
        all_(c.config.batch_size),
        own_(rows_of_rank(all_, communicator(), "distill.batch_size")),
        seed_(c.seed),
        inputs_(c.device) {}

  void add(int64_t, const Synthesizer::Batch&) override {}
  int64_t batches_per_pass() override { return 0; }

  void prepare(int64_t step) override {
    const Rng rng{seed_, rng_stream("replay/fresh"), static_cast<uint64_t>(step)};
    drawn_ = inputs_.set("drawn", source_.draw_samples(all_, rng).slice(own_.begin, own_.end));
  }
  data::Batch batch() override { return {source_.samples(drawn_), {}, {}, {}}; }
  int64_t rows() const override { return own_.size(); }

  void visit(State&) override {}  // every draw is a function of the seed and the step

 private:
  ImageSource& source_;
  int64_t all_;
  RowRange own_;
  uint64_t seed_;
  StepInputs inputs_;
  Tensor drawn_;
};

}  // namespace

std::unique_ptr<Replay> make_fresh_replay(const ReplayContext& context) {
  return std::make_unique<FreshReplay>(context);
}

}  // namespace mtcki
