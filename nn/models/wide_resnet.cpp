#include <utility>

#include "nn/init.h"
#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

// Convolution weights N(0, sqrt(2/(k*k*out))).
std::unique_ptr<Conv2d> conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, Init& init) {
  Init later = init.undrawn();
  auto c =
      std::make_unique<Conv2d>(in, out, kernel, Conv2dOptions(stride, kernel / 2), false, later);
  if (init.draw) kaiming_normal_fan_out_(c->weight, init.next());
  return c;
}

std::unique_ptr<BatchNorm2d> batch_norm(int64_t channels, const Init& init) {
  return std::make_unique<BatchNorm2d>(channels, 1e-5, 0.1, init.dtype);
}

// a = relu(bn1 x); conv2(relu(bn2(conv1 a))) + shortcut. Where the widths differ the shortcut is a
// strided 1x1 convolution of the *activated* a, else it is the raw x.
class WideBlock : public Module {
 public:
  WideBlock(int64_t in, int64_t out, int64_t stride, Init& init)
      : bn1_(add("bn1", batch_norm(in, init))),
        conv1_(add("conv1", conv(in, out, 3, stride, init))),
        bn2_(add("bn2", batch_norm(out, init))),
        conv2_(add("conv2", conv(out, out, 3, 1, init))) {
    if (in != out) shortcut_ = &add("convShortcut", conv(in, out, 1, stride, init));
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

class WideResNet : public Classifier {
 public:
  WideResNet(int64_t n, int64_t k, const ModelSpec& spec, Init& init)
      : Classifier(spec.num_classes),
        conv1_(add("conv1", conv(spec.in_channels, 16, 3, 1, init))),
        block1_(add("block1", std::make_unique<NetworkBlock>(n, 16, 16 * k, 1, init))),
        block2_(add("block2", std::make_unique<NetworkBlock>(n, 16 * k, 32 * k, 2, init))),
        block3_(add("block3", std::make_unique<NetworkBlock>(n, 32 * k, 64 * k, 2, init))),
        bn1_(add("bn1", batch_norm(64 * k, init))),
        fc_(add("fc", std::make_unique<Linear>(64 * k, spec.num_classes, true, init))) {
    fc_.keep_f32();
    constant_(*fc_.bias, 0.0);
  }
  int64_t feature_dim() const override { return fc_.weight.size(1); }
  std::vector<Module*> stages() override { return {&block1_, &block2_, &block3_, &bn1_}; }

 protected:
  Variable trunk(const Variable& x) override {
    return Chain(x) | conv1_ | block1_ | block2_ | block3_ | bn1_ | relu | global_avg_pool;
  }
  Variable head(const Variable& feature) override { return Chain(feature) | fc_; }

 private:
  Conv2d& conv1_;
  NetworkBlock &block1_, &block2_, &block3_;
  BatchNorm2d& bn1_;
  Linear& fc_;
};

}  // namespace

std::unique_ptr<Classifier> make_wide_resnet(int64_t depth, int64_t k, const ModelSpec& spec,
                                             Init& init) {
  return std::make_unique<WideResNet>((depth - 4) / 6, k, spec, init);
}

}  // namespace mtcki::nn
