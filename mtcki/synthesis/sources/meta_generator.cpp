// X = G_θ'(Z): a generator that is good to start from (Fast; Fang et al. 2022). Every batch starts at a
// copy θ' of θ and at new latents, and takes g_steps of an Adam of its own (β₁ = 0.5); then θ itself
// takes one step, of an Adam that lives on, at the rate lr_g · g_steps:
//
//   fomaml   along Σ_i ∂L/∂θ' over the inner steps i (Finn et al. 2017, first order)
//   reptile  along 67 (θ − θ'_k) (Nichol et al. 2018)
#include <algorithm>

#include "autograd/functions.h"
#include "mtcki/synthesis/sources/source.h"
#include "nn/init.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/update.h"

namespace mtcki {

namespace {

constexpr double kReptile = 67;  // of the authors' code

class MetaGeneratorSource : public ImageSource {
 public:
  MetaGeneratorSource(const SynthesisConfig& c, const SourceOptions& o)
      : config_(c),
        seed_(o.seed),
        net_(generator_of(c, o)),
        inner_(generator_of(c, o)),
        latents_(Tensor::zeros({c.batch_size, c.nz}, DType::f32, o.compute.device), true),
        adam_(generator_adam(c, *inner_, latents_)) {
    const optim::AdamOptions outer{
        .lr = c.lr_g * static_cast<double>(c.g_steps), .beta1 = c.beta1, .beta2 = c.beta2};
    outer_ = optim::make_adam({optim::group_of(*net_)}, outer);
    for (const Variable& p : net_->parameters()) sums_.push_back(Tensor::zeros_like(p.data()));
    const auto named = net_->named_parameters();
    if (c.reset_first > 0 &&
        std::ranges::none_of(named, [](const auto& p) { return is_first(p.first); }))
      throw UsageError(str("synthesis.reset_first: the generator \"", c.generator,
                           "\" has no layers l1.0 and conv_blocks.0 to redraw; set it to 0, or "
                           "take the generator cmi or large"));
  }

  void begin_batch(int64_t batch) override {
    if (batch > 0 && batch == config_.reset_first) reset_first();
    inner_->load_state_dict(net_->state_dict());
    inner_->train();
    latents_.data().copy_(randn(latents_.data().shape(), rng("synthesis/latents", batch)));
    adam_->reset();
    for (const Tensor& sum : sums_) sum.fill_(0.0);
  }

  Variable images(const RowRange& rows) override {
    const StageScope scope("synthesis/generator");
    return (*inner_)(rows.size() == config_.batch_size ? latents_
                                                       : narrow(latents_, 0, rows.begin, rows.end));
  }

  void zero_grad() override { adam_->zero_grad(); }

  void update() override {
    std::vector<Variable> trained = inner_->parameters();
    trained.push_back(latents_);
    optim::all_reduce_gradients(trained, communicator());
    for (size_t i = 0; i < sums_.size(); ++i) add_(sums_[i], trained[i].grad());
    adam_->step();
  }

  void end_batch() override {
    std::vector<Variable> theta = net_->parameters(), copy = inner_->parameters();
    for (size_t i = 0; i < theta.size(); ++i)
      theta[i].set_grad(config_.meta == Meta::fomaml
                            ? sums_[i]
                            : mul(sub(theta[i].data(), copy[i].data()), kReptile));
    outer_->step();
    outer_->zero_grad();
  }

  void visit(State& s, bool in_batch) override {
    s("weights", *net_);
    s("outer", *outer_);
    if (!in_batch) return;
    s("inner", *inner_);
    s("adam", *adam_);
    Tensor z = latents_.data();
    s("latents", z);
    for (size_t i = 0; i < sums_.size(); ++i) s(str("sum.", i), sums_[i]);
  }

 private:
  Rng rng(const char* stream, int64_t batch) const {
    return {seed_, rng_stream(stream), static_cast<uint64_t>(batch)};
  }

  static bool is_first(const std::string& name) {
    return name.starts_with("l1.0.") || name.starts_with("conv_blocks.0.");
  }

  // The first layers anew: by then they only know the images that were easy to make.
  void reset_first() {
    int64_t draw = 0;
    for (auto& [name, p] : net_->named_parameters()) {
      if (!is_first(name)) continue;
      if (name.ends_with(".weight"))
        nn::normal_(*p, 0.0, 0.02, rng("synthesis/reset", draw++));
      else
        nn::constant_(*p, 0.0);
    }
  }

  SynthesisConfig config_;
  uint64_t seed_;
  std::unique_ptr<nn::Generator> net_, inner_;
  Variable latents_;
  std::unique_ptr<optim::Optimizer> adam_, outer_;
  std::vector<Tensor> sums_;  // of the inner gradients of this batch
};

}  // namespace

std::unique_ptr<ImageSource> make_meta_generator_source(const SynthesisConfig& config,
                                                        const SourceOptions& options) {
  return std::make_unique<MetaGeneratorSource>(config, options);
}

}  // namespace mtcki
