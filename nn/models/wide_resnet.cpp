#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

constexpr Weights kWideResNetWeights = Weights::kaiming_normal_fan_out;

// a = relu(bn1 x); conv2(relu(bn2(conv1 a))) + shortcut. Where the widths differ the shortcut is a
// strided 1x1 convolution of the *activated* a, else it is the raw x.
class WideBlock : public Module {
 public:
  WideBlock(int64_t in, int64_t out, int64_t stride, Init& init)
      : bn1_(add("bn1", make_norm(in, init))),
        conv1_(add("conv1", make_conv(in, out, 3, stride, kWideResNetWeights, init))),
        bn2_(add("bn2", make_norm(out, init))),
        conv2_(add("conv2", make_conv(out, out, 3, 1, kWideResNetWeights, init))) {
    if (in != out)
      shortcut_ = &add("convShortcut", make_conv(in, out, 1, stride, kWideResNetWeights, init));
  }

 protected:
  Variable forward(const Variable& x) override { return consume(x); }
  Variable consume(Variable x) override {
    Chain a = Chain(x) | bn1_ | relu;
    if (shortcut_ != nullptr) x = a.value();
    Chain h = std::move(a) | conv1_ | bn2_ | relu | conv2_;
    return std::move(h) + (Chain(std::move(x)) | shortcut_);
  }

 private:
  BatchNorm2d& bn1_;
  Conv2d& conv1_;
  BatchNorm2d& bn2_;
  Conv2d& conv2_;
  Conv2d* shortcut_ = nullptr;
};

// The field's checkpoints have one more level: block1.layer.0.conv1.
class NetworkBlock : public Module {
 public:
  NetworkBlock(int64_t blocks, int64_t in, int64_t out, int64_t stride, Init& init)
      : layer_(add("layer", std::make_unique<Sequential>())) {
    for (int64_t b = 0; b < blocks; ++b)
      layer_.add(std::to_string(b),
                 std::make_unique<WideBlock>(b == 0 ? in : out, out, b == 0 ? stride : 1, init));
  }

 protected:
  Variable forward(const Variable& x) override { return layer_(x); }
  Variable consume(Variable x) override { return layer_(std::move(x)); }

 private:
  Sequential& layer_;
};

class WideResNet : public RowClassifier {
 public:
  WideResNet(int64_t n, int64_t k, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    then("conv1", make_conv(spec.in_channels, 16, 3, 1, kWideResNetWeights, init));
    for (int64_t b = 1, in = 16, out = 16 * k; b <= 3; ++b, in = out, out *= 2)
      add_stage(then("block" + std::to_string(b),
                     std::make_unique<NetworkBlock>(n, in, out, b == 1 ? 1 : 2, init)));
    add_stage(then("bn1", make_norm(64 * k, init)));
    then(relu);
    then(global_avg_pool);
    auto& fc = add<Linear>("fc", 64 * k, spec.num_classes, true, init);
    constant_(*fc.bias, 0.0);
    end(fc, fc);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_wide_resnet(int64_t depth, int64_t k, const ModelSpec& spec,
                                             Init& init) {
  return std::make_unique<WideResNet>((depth - 4) / 6, k, spec, init);
}

}  // namespace mtcki::nn
