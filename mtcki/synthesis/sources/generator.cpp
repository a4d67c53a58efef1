// X = G(Z): generator and latents are optimised together, by one Adam (β₁ = 0.5).
//
//   per batch  Z ~ N(0,I) [B,nz]; Adam as before its first step; G anew every g_life batches
//   step       G and Z, the latents at lr_z where that is set
#include "autograd/functions.h"
#include "mtcki/synthesis/sources/source.h"
#include "nn/models/model.h"
#include "nn/parallel.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "tensor/context.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

class GeneratorSource : public ImageSource {
 public:
  GeneratorSource(const SynthesisConfig& c, const SourceOptions& o)
      : config_(c), seed_(o.seed), device_(o.compute.device), net_(generator_of(c, o)) {}

  void begin_batch(int64_t batch) override {
    if (begins_anew(config_, batch)) net_->reset(rng("synthesis/reset", batch));
    net_->train();
    const Tensor z = randn({config_.batch_size, config_.nz}, rng("synthesis/latents", batch));
    if (latents_.defined()) {
      latents_.data().copy_(z);
      adam_->reset();
      return;
    }
    latents_ = Variable(z.to(device_), true);
    adam_ = generator_adam(config_, *net_, latents_);
  }

  Variable images(const RowRange& rows) override {
    const StageScope scope("synthesis/generator");
    return generate(
        *net_,
        rows.size() == config_.batch_size ? latents_ : narrow(latents_, 0, rows.begin, rows.end),
        config_.exchange > 0 ? &maps_ : nullptr);
  }

  const std::vector<Tensor>& maps() const override { return maps_; }
  Tensor decode(int64_t level, const Tensor& maps) override {
    return decode_frozen(*net_, level, maps);
  }

  void zero_grad() override { adam_->zero_grad(); }

  void update() override {
    std::vector<Variable> trained = net_->parameters();
    trained.push_back(latents_);
    optim::all_reduce_gradients(trained, communicator());
    adam_->step();
  }

  void visit(State& s, bool in_batch) override {
    if (config_.g_life != 1 || config_.g_life_first > 1 || in_batch) s("weights", *net_);
    if (!in_batch) return;
    Tensor z = latents_.data();
    s("latents", z);
    s("adam", *adam_);
  }

 private:
  Rng rng(const char* stream, int64_t batch) const {
    return {seed_, rng_stream(stream), static_cast<uint64_t>(batch)};
  }

  SynthesisConfig config_;
  uint64_t seed_;
  Device device_;
  std::unique_ptr<nn::Generator> net_;
  Variable latents_;
  std::unique_ptr<optim::Optimizer> adam_;
  std::vector<Tensor> maps_;
};

}  // namespace

bool begins_anew(const SynthesisConfig& c, int64_t batch) {
  const int64_t life = c.g_life_first > 0 && batch < c.batches ? c.g_life_first : c.g_life;
  return batch == 0 || (life > 0 && batch % life == 0);
}

std::unique_ptr<nn::Generator> generator_of(const SynthesisConfig& c, const SourceOptions& o,
                                            int64_t draw) {
  nn::Init init;
  // Every parameter has its own position; 4096 of them fit between two draws.
  init.rng = {o.seed, rng_stream("synthesis/generator"), static_cast<uint64_t>(draw) << 12};
  auto net = nn::make_generator({c.generator, c.nz, c.ngf, o.channels, o.image_size}, init);
  net->to(o.compute.device);
  net->set_precision(o.compute.precision);
  nn::make_parallel(*net, communicator());
  return net;
}

Variable generate(nn::Generator& net, const Variable& latents, std::vector<Tensor>* maps) {
  if (!maps) return net(latents);
  maps->clear();
  Variable x = latents;
  for (int64_t i = 0; i < net.maps(); ++i) {
    x = net.part(i, x);
    maps->push_back(x.data());
  }
  return net.part(net.maps(), x);
}

Tensor decode_frozen(nn::Generator& net, int64_t level, const Tensor& maps) {
  const NoGradScope no_grad;
  const nn::EvalScope eval(net);
  const Layout layout = preferred_layout(maps.device(), maps.dtype(), maps.size(1));
  return net.decode(level, Variable(maps.to(layout))).data();
}

std::unique_ptr<optim::Optimizer> generator_adam(const SynthesisConfig& c, nn::Generator& net,
                                                 const Variable& z) {
  optim::ParameterGroup generator, latents;
  for (auto& [name, p] : net.named_parameters()) generator.parameters.emplace_back("g." + name, *p);
  latents.parameters.emplace_back("z", z);
  latents.lr_scale = c.lr_z > 0 ? c.lr_z / c.lr_g : 1.0;
  return optim::make_adam({generator, latents}, {.lr = c.lr_g, .beta1 = c.beta1, .beta2 = c.beta2});
}

std::unique_ptr<ImageSource> make_generator_source(const SynthesisConfig& config,
                                                   const SourceOptions& options) {
  return std::make_unique<GeneratorSource>(config, options);
}

}  // namespace mtcki
