// The images themselves are optimised (DeepInversion, Yin et al. 2020): no generator. A pixel lives
// in the normalised space of the real set, x = (X − mean)/std.
//
//   per batch  x ~ N(0,1); Adam(lr_g, beta1, beta2) as before its first step
//   step       x, then with `clip` into where X lies in [0,1]
#include "autograd/functions.h"
#include "mtcki/synthesis/sources/source.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "tensor/context.h"
#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

class PixelSource : public ImageSource {
 public:
  PixelSource(const SynthesisConfig& c, const SourceOptions& o)
      : shape_{c.batch_size, o.channels, o.image_size, o.image_size},
        seed_(o.seed),
        clip_(c.clip),
        pixels_(Tensor::zeros(shape_, DType::f32, o.compute.device), true) {
    const Tensor mean = o.normalization.mean_tensor(), std = o.normalization.std_tensor();
    const auto place = [&](const Tensor& t) { return t.to(o.compute.device); };
    black_ = place(neg(div(mean, std)));
    unit_ = place(div(Tensor::full(std.shape(), 1.0), std));
    const Shape per_channel{1, o.channels, 1, 1};
    low_ = black_.reshape(per_channel);
    minus_high_ = neg(add(black_, unit_)).reshape(per_channel);
    optim::ParameterGroup group;
    group.parameters.emplace_back("pixels", pixels_);
    adam_ = optim::make_adam({group}, {.lr = c.lr_g, .beta1 = c.beta1, .beta2 = c.beta2});
  }

  void begin_batch(int64_t batch) override {
    Tensor(pixels_.data())
        .copy_(
            randn(shape_, {seed_, rng_stream("synthesis/pixels"), static_cast<uint64_t>(batch)}));
    adam_->reset();
  }

  Variable images(const RowRange& rows) override {
    const StageScope scope("synthesis/pixels");
    const Variable own =
        rows.size() == shape_[0] ? pixels_ : narrow(pixels_, 0, rows.begin, rows.end);
    return normalize_channels(own, black_, unit_);  // (x − black)/unit = x std + mean
  }

  void zero_grad() override { adam_->zero_grad(); }

  void update() override {
    optim::all_reduce_gradients({pixels_}, communicator());
    adam_->step();
    if (!clip_) return;
    const Tensor x = pixels_.data();
    x.copy_(neg(maximum(neg(maximum(x, low_)), minus_high_)));
  }

  void visit(State& s, bool in_batch) override {
    if (!in_batch) return;
    Tensor x = pixels_.data();
    s("pixels", x);
    s("adam", *adam_);
  }

 private:
  Shape shape_;
  uint64_t seed_;
  bool clip_;
  Variable pixels_;
  Tensor black_, unit_;      // [C]: x of black, and the x between black and white
  Tensor low_, minus_high_;  // [1,C,1,1]: x of black, minus x of white
  std::unique_ptr<optim::Optimizer> adam_;
};

}  // namespace

std::unique_ptr<ImageSource> make_pixel_source(const SynthesisConfig& config,
                                               const SourceOptions& options) {
  return std::make_unique<PixelSource>(config, options);
}

}  // namespace mtcki
