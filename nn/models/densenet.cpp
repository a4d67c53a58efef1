#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"
#include "tensor/op_error.h"

namespace mtcki::nn {

namespace {

constexpr Weights kDenseNetWeights = Weights::kaiming_normal_fan_in;

// cat(x, conv2(relu(norm2(conv1(relu(norm1 x))))))
class DenseLayer : public Module {
 public:
  DenseLayer(int64_t in, int64_t growth, Init& init)
      : norm1_(add("norm1", make_norm(in, init))),
        conv1_(add("conv1", make_conv(in, 4 * growth, 1, 1, kDenseNetWeights, init))),
        norm2_(add("norm2", make_norm(4 * growth, init))),
        conv2_(add("conv2", make_conv(4 * growth, growth, 3, 1, kDenseNetWeights, init))) {}

 protected:
  Variable forward(const Variable& x) override {
    return cat(Chain(x), Chain(x) | norm1_ | relu | conv1_ | norm2_ | relu | conv2_);
  }

 private:
  BatchNorm2d& norm1_;
  Conv2d& conv1_;
  BatchNorm2d& norm2_;
  Conv2d& conv2_;
};

class DenseNet : public RowClassifier {
 public:
  DenseNet(const DenseNetConfig& config, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    const bool large = config.stem == Stem::imagenet;
    int64_t width = config.stem_width;
    auto& features = then("features", std::make_unique<Sequential>());
    features.add("conv0", make_conv(spec.in_channels, width, large ? 7 : 3, large ? 2 : 1,
                                    kDenseNetWeights, init));
    features.add("norm0", make_norm(width, init));
    features.then(relu);
    if (config.stem != Stem::small) features.then(MaxPool2d{Pool2dOptions(3, 2, 1)});
    for (size_t b = 0; b < config.layers.size(); ++b) {
      const std::string number = std::to_string(b + 1);
      auto& block = features.add<Sequential>("denseblock" + number);
      add_stage(block);
      for (int64_t i = 0; i < config.layers[b]; ++i, width += config.growth)
        block.add<DenseLayer>("denselayer" + std::to_string(i + 1), width, config.growth, init);
      if (b + 1 == config.layers.size()) break;
      auto& transition = features.add<Sequential>("transition" + number);
      transition.add("norm", make_norm(width, init));
      transition.then(relu);
      transition.add("conv", make_conv(width, width / 2, 1, 1, kDenseNetWeights, init));
      transition.then(AvgPool2d{Pool2dOptions(2)});
      width /= 2;
    }
    features.add("norm5", make_norm(width, init));
    features.then(relu);
    then(global_avg_pool);
    auto& linear = add<Linear>("classifier", width, spec.num_classes, true, init);
    constant_(*linear.bias, 0.0);
    end(linear, linear);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_densenet(const DenseNetConfig& config, const ModelSpec& spec,
                                          Init& init) {
  // A transition halves the pixels rounding down, the stem's strides rounding up.
  const int64_t behind_stem = int64_t{1} << (config.layers.size() - 1),
                strides = config.stem == Stem::imagenet ? 4
                          : config.stem == Stem::pool   ? 2
                                                        : 1,
                least = (behind_stem - 1) * strides + 1;
  if (spec.image_size < least)
    throw UsageError(str("model ", spec.name, ": needs images of at least ", least, " pixels, got ",
                         spec.image_size));
  return std::make_unique<DenseNet>(config, spec, init);
}

}  // namespace mtcki::nn
