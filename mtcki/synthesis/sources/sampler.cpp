// X = G(z) with z ~ N(0,I) drawn anew for every batch, as DAFL, DFQ and ZSKT are run in the CMI package
// (Fang et al. 2021): one generator, from PyTorch's initialisation, lives on with its one Adam
// (β₁ = 0.5). What a student is shown is sampled in evaluation mode, so that steps of synthesis alone
// move the running statistics.
//
// Source "maps" (SpaceshipNet; Yu et al. 2023): the same generator with an Adam that begins anew in every
// batch. The maps of its images are kept beside them, and a student is shown what it makes of maps.
//
// With g_ema a student's images come from an exponential average of the generator's weights.
#include <optional>

#include "autograd/functions.h"
#include "mtcki/synthesis/sources/source.h"
#include "nn/models/model.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "tensor/context.h"

namespace mtcki {

namespace {

class SamplerSource : public ImageSource {
 public:
  SamplerSource(const SynthesisConfig& c, const SourceOptions& o)
      : seed_(o.seed),
        keeps_maps_(c.source == "maps"),
        net_(generator_of(c, o)),
        latents_(Tensor::zeros({c.batch_size, c.nz}, DType::f32, o.compute.device)) {
    if (c.g_ema > 0) {
      average_.emplace(*net_, c.g_ema);
      averaged_ = generator_of(c, o);
    }
    adam_ = optim::make_adam({optim::group_of(*net_)},
                             {.lr = c.lr_g, .beta1 = c.beta1, .beta2 = c.beta2});
  }

  void begin_batch(int64_t batch) override {
    net_->train();
    if (keeps_maps_) adam_->reset();
    latents_.copy_(draw_samples(
        latents_.size(0), {seed_, rng_stream("synthesis/latents"), static_cast<uint64_t>(batch)}));
  }

  Variable images(const RowRange& rows) override {
    const StageScope scope("synthesis/generator");
    return generate(*net_, Variable(latents_.slice(rows.begin, rows.end)),
                    keeps_maps_ ? &maps_ : nullptr);
  }

  const std::vector<Tensor>& maps() const override { return maps_; }
  Tensor decode(int64_t level, const Tensor& maps) override {
    const StageScope scope("synthesis/generator");
    return decode_frozen(shown(), level, maps);
  }

  void zero_grad() override { adam_->zero_grad(); }

  void update() override {
    optim::all_reduce_gradients(net_->parameters(), communicator());
    adam_->step();
    if (!average_) return;
    average_->update();
    average_->copy_to(*averaged_);
  }

  Tensor draw_samples(int64_t n, const Rng& rng) const override {
    return randn({n, latents_.size(1)}, rng);
  }

  Tensor samples(const Tensor& drawn) override {
    const StageScope scope("synthesis/generator");
    const NoGradScope no_grad;
    const nn::EvalScope eval(shown());
    return shown()(Variable(drawn)).data();
  }

  void visit(State& s, bool in_batch) override {
    s("weights", *net_);
    s("adam", *adam_);
    if (in_batch) s("latents", latents_);
    if (!average_) return;
    s("average", *average_);
    if (s.loading()) average_->copy_to(*averaged_);
  }

 private:
  nn::Generator& shown() const { return averaged_ ? *averaged_ : *net_; }

  uint64_t seed_;
  bool keeps_maps_;
  std::unique_ptr<nn::Generator> net_, averaged_;
  std::optional<optim::ModuleEma> average_;
  Tensor latents_;
  std::vector<Tensor> maps_;
  std::unique_ptr<optim::Optimizer> adam_;
};

}  // namespace

std::unique_ptr<ImageSource> make_sampler_source(const SynthesisConfig& config,
                                                 const SourceOptions& options) {
  return std::make_unique<SamplerSource>(config, options);
}

}  // namespace mtcki
