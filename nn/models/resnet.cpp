#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

constexpr int64_t kExpansion = 4;  // of bottleneck blocks

// The shortcut of a block, which it registers last.
class ResidualBlock : public Module {
 protected:
  void add_shortcut(int64_t in, int64_t out, int64_t stride, const ResNetConfig& config,
                    Init& init) {
    if (stride == 1 && in == out) return;
    if (config.shortcut == ResNetConfig::Shortcut::padded) {
      // Widths double at every change, so (out - in)/2 = out/4 on either side.
      padded_ = true;
      pad_ = {stride, (out - in) / 2, (out - in) / 2};
      return;
    }
    projection_ = &add(config.shortcut_name, std::make_unique<Sequential>());
    projection_->add("0", make_conv(in, out, 1, stride, config.weights, init));
    projection_->add("1", make_norm(out, init));
  }
  Chain shortcut(Variable x) {
    if (padded_) return Chain(std::move(x)) | pad_;
    return Chain(std::move(x)) | projection_;
  }

 private:
  Sequential* projection_ = nullptr;
  PadShortcut pad_{};
  bool padded_ = false;
};

// relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut x)
class BasicBlock : public ResidualBlock {
 public:
  BasicBlock(int64_t in, int64_t out, int64_t stride, const ResNetConfig& config, Init& init)
      : conv1_(add("conv1", make_conv(in, out, 3, stride, config.weights, init))),
        bn1_(add("bn1", make_norm(out, init))),
        conv2_(add("conv2", make_conv(out, out, 3, 1, config.weights, init))),
        bn2_(add("bn2", make_norm(out, init))) {
    add_shortcut(in, out, stride, config, init);
  }

 protected:
  Variable forward(const Variable& x) override { return consume(x); }
  Variable consume(Variable x) override {
    Chain h = Chain(x) | conv1_ | bn1_ | relu | conv2_ | bn2_;
    return (std::move(h) + shortcut(std::move(x))) | relu;
  }

 private:
  Conv2d& conv1_;
  BatchNorm2d& bn1_;
  Conv2d& conv2_;
  BatchNorm2d& bn2_;
};

// relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1 x))))))) + shortcut x)
class Bottleneck : public ResidualBlock {
 public:
  Bottleneck(int64_t in, int64_t width, int64_t stride, const ResNetConfig& config, Init& init)
      : conv1_(add("conv1", make_conv(in, width, 1, 1, config.weights, init))),
        bn1_(add("bn1", make_norm(width, init))),
        conv2_(add("conv2", make_conv(width, width, 3, stride, config.weights, init))),
        bn2_(add("bn2", make_norm(width, init))),
        conv3_(add("conv3", make_conv(width, kExpansion * width, 1, 1, config.weights, init))),
        bn3_(add("bn3", make_norm(kExpansion * width, init))) {
    add_shortcut(in, kExpansion * width, stride, config, init);
  }

 protected:
  Variable forward(const Variable& x) override { return consume(x); }
  Variable consume(Variable x) override {
    Chain h = Chain(x) | conv1_ | bn1_ | relu | conv2_ | bn2_ | relu | conv3_ | bn3_;
    return (std::move(h) + shortcut(std::move(x))) | relu;
  }

 private:
  Conv2d& conv1_;
  BatchNorm2d& bn1_;
  Conv2d& conv2_;
  BatchNorm2d& bn2_;
  Conv2d& conv3_;
  BatchNorm2d& bn3_;
};

class ResNet : public RowClassifier {
 public:
  ResNet(const ResNetConfig& config, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    const bool large = config.stem == Stem::imagenet;
    then("conv1", make_conv(spec.in_channels, config.stem_width, large ? 7 : 3, large ? 2 : 1,
                            config.weights, init));
    then("bn1", make_norm(config.stem_width, init));
    then(relu);
    if (config.stem != Stem::small) then(MaxPool2d{Pool2dOptions(3, 2, 1)});
    int64_t in = config.stem_width;
    for (size_t s = 0; s < config.widths.size(); ++s) {
      auto& layer = then("layer" + std::to_string(s + 1), std::make_unique<Sequential>());
      add_stage(layer);
      for (int64_t b = 0; b < config.blocks[s]; ++b) {
        const int64_t stride = s > 0 && b == 0 ? 2 : 1, width = config.widths[s];
        const std::string name = std::to_string(b);
        if (config.bottleneck)
          layer.add<Bottleneck>(name, in, width, stride, config, init);
        else
          layer.add<BasicBlock>(name, in, width, stride, config, init);
        in = config.bottleneck ? kExpansion * width : width;
      }
    }
    then(global_avg_pool);
    auto& linear = add<Linear>(config.head_name, in, spec.num_classes, true, init);
    if (init.draw && config.weights == Weights::kaiming_normal_fan_in)
      kaiming_normal_fan_in_(linear.weight, init.next());
    end(linear, linear);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_resnet(const ResNetConfig& config, const ModelSpec& spec,
                                        Init& init) {
  return std::make_unique<ResNet>(config, spec, init);
}

}  // namespace mtcki::nn
