#include <algorithm>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

std::unique_ptr<Conv2d> conv(int64_t in, int64_t out, Init& init) {
  return make_conv(in, out, 3, 1, Weights::kaiming_normal_fan_out, init, 1, true);
}

void init_head(Linear& linear, Init& init) {
  if (init.draw) normal_(linear.weight, 0.0, 0.01, init.next());
  constant_(*linear.bias, 0.0);
}

// (conv3x3 with bias - BN - ReLU) per width. In the checkpoints a ReLU takes an index too: 0 conv,
// 1 BN, 3 conv, 4 BN, ...
class VggBlock : public Module {
 public:
  VggBlock(int64_t in, const std::vector<int64_t>& widths, Init& init) {
    for (size_t i = 0; i < widths.size(); ++i) {
      Layer layer;
      layer.conv = &add(std::to_string(3 * i), conv(in, widths[i], init));
      layer.bn = &add(std::to_string(3 * i + 1), make_norm(widths[i], init));
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
    init_head(classifier_, init);
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
    return pooled(std::move(h));
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

class FlatVgg : public RowClassifier {
 public:
  FlatVgg(const VggConfig& config, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    auto& features = then("features", std::make_unique<Sequential>());
    int64_t in = spec.in_channels, size = spec.image_size;
    int n = 0;  // ReLUs and pools take a number, too
    for (const std::vector<int64_t>& widths : config.widths) {
      for (size_t i = 0; i < widths.size(); ++i, n += 3, in = widths[i - 1]) {
        auto& first = features.add(std::to_string(n), conv(in, widths[i], init));
        if (i == 0 && n > 0) add_stage(first);
        features.add(std::to_string(n + 1), make_norm(widths[i], init));
        features.then(relu);
      }
      ++n;
      if (size > 1) features.then(MaxPool2d{Pool2dOptions(2)});
      size = std::max<int64_t>(1, size / 2);
    }
    then(config.keeps_7x7 ? Link(pool_7x7) : Link(global_avg_pool));
    if (config.keeps_7x7) in *= 49;
    if (config.hidden == 0) {
      auto& linear = add<Linear>("classifier", in, spec.num_classes, true, init);
      init_head(linear, init);
      end(linear, linear);
      return;
    }
    auto& names = add<Sequential>("classifier");  // never runs as a whole
    for (const char* name : {"0", "3", "6"}) {
      const bool last = name[0] == '6';
      const int64_t out = last ? spec.num_classes : config.hidden;
      auto& linear = names.add<Linear>(name, in, out, true, init);
      in = out;
      init_head(linear, init);
      if (last) {
        end(linear, linear);
      } else {
        then(linear);
        then(relu);
      }
    }
  }
  std::string kind() const override { return "VGG"; }
};

}  // namespace

std::unique_ptr<Classifier> make_vgg(const VggConfig& config, const ModelSpec& spec, Init& init) {
  if (config.flat) return std::make_unique<FlatVgg>(config, spec, init);
  return std::make_unique<Vgg>(config, spec, init);
}

}  // namespace mtcki::nn
