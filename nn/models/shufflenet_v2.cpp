#include <utility>

#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

// The layers of a branch, counted as in torchvision's lists, in which a ReLU takes a number too.
class Branch : public Sequential {
 public:
  Branch& conv(int64_t in, int64_t out, int64_t kernel, int64_t stride, Init& init,
               int64_t groups = 1) {
    add(next(), make_conv(in, out, kernel, stride, Weights::kaiming_uniform, init, groups));
    add(next(), make_norm(out, init));
    return *this;
  }
  Branch& depthwise(int64_t channels, int64_t stride, Init& init) {
    return conv(channels, channels, 3, stride, init, channels);
  }
  Branch& relu() {
    then(mtcki::relu);
    ++count_;
    return *this;
  }

 private:
  std::string next() { return std::to_string(count_++); }
  int count_ = 0;
};

// One half of the channels passes by; with a stride both halves are made of all channels.
class ShuffleUnit : public Module {
 public:
  ShuffleUnit(int64_t in, int64_t out, int64_t stride, Init& init) : half_(out / 2) {
    if (stride > 1) {
      branch1_ = &add<Branch>("branch1");
      branch1_->depthwise(in, stride, init).conv(in, half_, 1, 1, init).relu();
    }
    branch2_ = &add<Branch>("branch2");
    branch2_->conv(stride > 1 ? in : half_, half_, 1, 1, init).relu();
    branch2_->depthwise(half_, stride, init).conv(half_, half_, 1, 1, init).relu();
  }

 protected:
  Variable forward(const Variable& x) override {
    const bool halves = branch1_ == nullptr;
    Chain first = halves ? Chain(x) | Channels{0, half_} : Chain(x) | *branch1_;
    Chain rest = halves ? Chain(x) | Channels{half_, 2 * half_} : Chain(x);
    return cat(std::move(first), std::move(rest) | *branch2_) | ChannelShuffle{2};
  }

 private:
  int64_t half_;
  Branch *branch1_ = nullptr, *branch2_ = nullptr;
};

class ShuffleNetV2 : public RowClassifier {
 public:
  ShuffleNetV2(const ShuffleNetV2Config& config, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    const bool large = config.stem == Stem::imagenet;
    const auto& widths = config.widths;
    then("conv1", std::make_unique<Branch>())
        .conv(spec.in_channels, widths[0], 3, large ? 2 : 1, init)
        .relu();
    if (large) then(MaxPool2d{Pool2dOptions(3, 2, 1)});
    for (size_t s = 1; s <= 3; ++s) {
      auto& stage = then("stage" + std::to_string(s + 1), std::make_unique<Sequential>());
      add_stage(stage);
      const int64_t units = s == 2 ? 8 : 4;
      for (int64_t u = 0; u < units; ++u)
        stage.add<ShuffleUnit>(std::to_string(u), widths[u == 0 ? s - 1 : s], widths[s],
                               u == 0 ? 2 : 1, init);
    }
    auto& last = then("conv5", std::make_unique<Branch>());
    last.conv(widths[3], widths[4], 1, 1, init).relu();
    add_stage(last);
    then(global_avg_pool);
    auto& linear = add<Linear>("fc", widths[4], spec.num_classes, true, init);
    end(linear, linear);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_shufflenet_v2(const ShuffleNetV2Config& config,
                                               const ModelSpec& spec, Init& init) {
  return std::make_unique<ShuffleNetV2>(config, spec, init);
}

}  // namespace mtcki::nn
