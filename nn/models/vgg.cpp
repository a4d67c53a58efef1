#include <algorithm>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

// (conv3x3 with bias - BN - ReLU) per width. In the checkpoints a ReLU takes an index too: 0 conv,
// 1 BN, 3 conv, 4 BN, ...
class VggBlock : public Module {
 public:
  VggBlock(int64_t in, const std::vector<int64_t>& widths, Init& init) {
    Init later = init.undrawn();  // zeros, which the biases keep
    for (size_t i = 0; i < widths.size(); ++i) {
      Layer layer;
      layer.conv =
          &add(std::to_string(3 * i),
               std::make_unique<Conv2d>(in, widths[i], 3, Conv2dOptions(1, 1), true, later));
      if (init.draw) kaiming_normal_fan_out_(layer.conv->weight, init.next());
      layer.bn = &add(std::to_string(3 * i + 1),
                      std::make_unique<BatchNorm2d>(widths[i], 1e-5, 0.1, init.dtype));
      layers_.push_back(layer);
      in = widths[i];
    }
  }

 protected:
  Variable forward(const Variable& x) override {
    Variable h = x;
    for (const Layer& layer : layers_) h = Chain(std::move(h)) | *layer.conv | *layer.bn | relu;
    return h;
  }

 private:
  struct Layer {
    Conv2d* conv = nullptr;
    BatchNorm2d* bn = nullptr;
  };
  std::vector<Layer> layers_;
};

class Vgg : public Classifier {
 public:
  Vgg(const VggConfig& config, const ModelSpec& spec, Init& init)
      : Classifier(spec.num_classes),
        blocks_(make_blocks(config, spec.in_channels, init)),
        classifier_(add("classifier", std::make_unique<Linear>(config.widths.back().back(),
                                                               spec.num_classes, true, init))),
        five_pools_(config.five_pools) {
    classifier_.keep_f32();
    if (init.draw) normal_(classifier_.weight, 0.0, 0.01, init.next());
    constant_(*classifier_.bias, 0.0);
  }
  std::string kind() const override { return "VGG"; }
  int64_t feature_dim() const override { return classifier_.weight.size(1); }
  // The input of block 0 is the image itself.
  std::vector<Module*> stages() override { return {blocks_.begin() + 1, blocks_.end()}; }

 protected:
  Variable trunk(const Variable& x) override {
    Chain h(x);
    int64_t size = x.size(2);
    for (size_t b = 0; b < blocks_.size(); ++b) {
      h |= *blocks_[b];
      const bool pools = b < 3 || five_pools_ || (b == 3 && x.size(2) == 64);
      if (!pools || size == 1) continue;
      h |= MaxPool2d{Pool2dOptions(2)};
      size /= 2;
    }
    return std::move(h) | global_avg_pool;
  }
  Variable head(const Variable& feature) override { return Chain(feature) | classifier_; }

 private:
  std::vector<VggBlock*> make_blocks(const VggConfig& config, int64_t in, Init& init) {
    std::vector<VggBlock*> blocks;
    for (size_t b = 0; b < config.widths.size(); ++b) {
      blocks.push_back(&add("block" + std::to_string(b),
                            std::make_unique<VggBlock>(in, config.widths[b], init)));
      in = config.widths[b].back();
    }
    return blocks;
  }

  std::vector<VggBlock*> blocks_;
  Linear& classifier_;
  bool five_pools_;
};

}  // namespace

std::unique_ptr<Classifier> make_vgg(const VggConfig& config, const ModelSpec& spec, Init& init) {
  return std::make_unique<Vgg>(config, spec, init);
}

}  // namespace mtcki::nn
