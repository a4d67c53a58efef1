#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

std::unique_ptr<Conv2d> conv(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                             const ResNetConfig& config, Init& init) {
  using Weights = ResNetConfig::Weights;
  const Conv2dOptions options(stride, kernel / 2);
  if (config.weights == Weights::kaiming_uniform)  // the layer's default
    return std::make_unique<Conv2d>(in, out, kernel, options, false, init);
  Init later = init.undrawn();
  auto c = std::make_unique<Conv2d>(in, out, kernel, options, false, later);
  if (!init.draw) return c;
  if (config.weights == Weights::kaiming_normal_fan_out)
    kaiming_normal_fan_out_(c->weight, init.next());
  else
    kaiming_normal_fan_in_(c->weight, init.next());
  return c;
}

std::unique_ptr<BatchNorm2d> batch_norm(int64_t channels, const Init& init) {
  return std::make_unique<BatchNorm2d>(channels, 1e-5, 0.1, init.dtype);
}

// relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut x)
class BasicBlock : public Module {
 public:
  BasicBlock(int64_t in, int64_t out, int64_t stride, const ResNetConfig& config, Init& init)
      : conv1_(add("conv1", conv(in, out, 3, stride, config, init))),
        bn1_(add("bn1", batch_norm(out, init))),
        conv2_(add("conv2", conv(out, out, 3, 1, config, init))),
        bn2_(add("bn2", batch_norm(out, init))),
        stride_(stride),
        padding_((out - in) / 2) {
    if (stride == 1 && in == out) return;
    if (config.shortcut == ResNetConfig::Shortcut::padded) {
      padded_ = true;
      return;
    }
    projection_ = &add(config.shortcut_name, std::make_unique<Sequential>());
    projection_->add("0", conv(in, out, 1, stride, config, init));
    projection_->add("1", batch_norm(out, init));
  }

 protected:
  Variable forward(const Variable& x) override { return consume(x); }
  Variable consume(Variable x) override {
    Chain h = Chain(x) | conv1_ | bn1_ | relu | conv2_ | bn2_;
    return (std::move(h) + shortcut(std::move(x))) | relu;
  }

 private:
  Chain shortcut(Variable x) {
    // Widths double at every change, so (out - in)/2 = out/4 on either side.
    if (padded_) return Chain(std::move(x)) | PadShortcut{stride_, padding_, padding_};
    return Chain(std::move(x)) | projection_;
  }

  Conv2d& conv1_;
  BatchNorm2d& bn1_;
  Conv2d& conv2_;
  BatchNorm2d& bn2_;
  Sequential* projection_ = nullptr;
  int64_t stride_, padding_;
  bool padded_ = false;
};

class ResNet : public Classifier {
 public:
  ResNet(const ResNetConfig& config, const ModelSpec& spec, Init& init)
      : Classifier(spec.num_classes),
        conv1_(add("conv1", conv(spec.in_channels, config.stem, 3, 1, config, init))),
        bn1_(add("bn1", batch_norm(config.stem, init))),
        layers_(make_layers(config, init)),
        stem_pool_(config.stem_pool),
        head_(add(config.head_name,
                  std::make_unique<Linear>(config.widths.back(), spec.num_classes, true, init))) {
    head_.keep_f32();
    if (init.draw && config.weights == ResNetConfig::Weights::kaiming_normal_fan_in)
      kaiming_normal_fan_in_(head_.weight, init.next());
  }
  int64_t feature_dim() const override { return head_.weight.size(1); }
  std::vector<Module*> stages() override { return {layers_.begin(), layers_.end()}; }

 protected:
  Variable trunk(const Variable& x) override {
    Chain h = Chain(x) | conv1_ | bn1_ | relu;
    if (stem_pool_) h |= MaxPool2d{Pool2dOptions(3, 2, 1)};
    for (Sequential* layer : layers_) h |= *layer;
    return std::move(h) | global_avg_pool;
  }
  Variable head(const Variable& feature) override { return Chain(feature) | head_; }

 private:
  std::vector<Sequential*> make_layers(const ResNetConfig& config, Init& init) {
    std::vector<Sequential*> layers;
    int64_t in = config.stem;
    for (size_t s = 0; s < config.widths.size(); ++s) {
      Sequential& layer = add("layer" + std::to_string(s + 1), std::make_unique<Sequential>());
      for (int64_t b = 0; b < config.blocks[s]; ++b) {
        const int64_t stride = s > 0 && b == 0 ? 2 : 1;
        layer.add(std::to_string(b),
                  std::make_unique<BasicBlock>(in, config.widths[s], stride, config, init));
        in = config.widths[s];
      }
      layers.push_back(&layer);
    }
    return layers;
  }

  Conv2d& conv1_;
  BatchNorm2d& bn1_;
  std::vector<Sequential*> layers_;
  bool stem_pool_;
  Linear& head_;
};

}  // namespace

std::unique_ptr<Classifier> make_resnet(const ResNetConfig& config, const ModelSpec& spec,
                                        Init& init) {
  return std::make_unique<ResNet>(config, spec, init);
}

}  // namespace mtcki::nn
