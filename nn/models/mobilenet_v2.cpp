#include <algorithm>
#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

// The paper's rounding: to a multiple of 8 that loses no more than a tenth.
int64_t rounded(double width) {
  const int64_t nearest = std::max<int64_t>(8, static_cast<int64_t>(width + 4) / 8 * 8);
  return static_cast<double>(nearest) < 0.9 * width ? nearest + 8 : nearest;
}

std::unique_ptr<Sequential> conv_norm_relu6(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                            int64_t groups, Init& init) {
  auto part = std::make_unique<Sequential>();
  part->add("0", make_conv(in, out, kernel, stride, Weights::kaiming_normal_fan_out, init, groups));
  part->add("1", make_norm(out, init));
  part->then(relu6);
  return part;
}

// Expansion by a 1x1 convolution (none for a factor of 1), depthwise 3x3, projection without a
// ReLU; + x where shapes allow.
class InvertedResidual : public Module {
 public:
  InvertedResidual(int64_t in, int64_t out, int64_t stride, int64_t factor, Init& init)
      : conv_(add("conv", std::make_unique<Sequential>())), adds_(stride == 1 && in == out) {
    const int64_t wide = in * factor;
    int n = 0;
    const auto name = [&n] { return std::to_string(n++); };
    if (factor != 1) conv_.add(name(), conv_norm_relu6(in, wide, 1, 1, 1, init));
    conv_.add(name(), conv_norm_relu6(wide, wide, 3, stride, wide, init));
    conv_.add(name(), make_conv(wide, out, 1, 1, Weights::kaiming_normal_fan_out, init));
    conv_.add(name(), make_norm(out, init));
  }

 protected:
  Variable forward(const Variable& x) override {
    Chain h = Chain(x) | conv_;
    return adds_ ? std::move(h) + Chain(x) : std::move(h);
  }

 private:
  Sequential& conv_;
  bool adds_;
};

class MobileNetV2 : public RowClassifier {
 public:
  MobileNetV2(double width, Stem stem, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    const int64_t first = stem == Stem::imagenet ? 2 : 1;
    const struct {
      int64_t factor, width, blocks, stride;
    } rows[] = {{1, 16, 1, 1}, {6, 24, 2, first}, {6, 32, 3, 2}, {6, 64, 4, 2},
                {6, 96, 3, 1}, {6, 160, 3, 2},    {6, 320, 1, 1}};
    auto& features = then("features", std::make_unique<Sequential>());
    int64_t in = rounded(32 * width), last = rounded(1280 * std::max(1.0, width));
    int n = 0;
    features.add(std::to_string(n++), conv_norm_relu6(spec.in_channels, in, 3, first, 1, init));
    for (const auto& row : rows) {
      const int64_t out = rounded(static_cast<double>(row.width) * width);
      for (int64_t b = 0; b < row.blocks; ++b, in = out) {
        auto& block = features.add<InvertedResidual>(std::to_string(n++), in, out,
                                                     b == 0 ? row.stride : 1, row.factor, init);
        if (b == 0) add_stage(block);
      }
    }
    features.add(std::to_string(n), conv_norm_relu6(in, last, 1, 1, 1, init));
    then(global_avg_pool);
    auto& classifier = add("classifier", std::make_unique<Sequential>());
    auto& linear = classifier.add<Linear>("1", last, spec.num_classes, true, init);
    if (init.draw) normal_(linear.weight, 0.0, 0.01, init.next());
    constant_(*linear.bias, 0.0);
    end(classifier, linear);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_mobilenet_v2(double width, Stem stem, const ModelSpec& spec,
                                              Init& init) {
  return std::make_unique<MobileNetV2>(width, stem, spec, init);
}

}  // namespace mtcki::nn
