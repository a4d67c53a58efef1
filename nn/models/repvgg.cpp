#include <utility>

#include "nn/models/families.h"

namespace mtcki::nn {

namespace {

// relu(bn(conv3x3 x) + bn(conv1x1 x) [+ bn x]). A linear map of x before the ReLU: exported with
// folded batch norms it is one 3x3 convolution.
class RepVggBlock : public Module {
 public:
  RepVggBlock(int64_t in, int64_t out, int64_t stride, Init& init) {
    if (stride == 1 && in == out) identity_ = &add("rbr_identity", make_norm(in, init));
    dense_ = &add("rbr_dense", branch(in, out, 3, stride, init));
    pointwise_ = &add("rbr_1x1", branch(in, out, 1, stride, init));
  }

 protected:
  Variable forward(const Variable& x) override {
    Chain h = (Chain(x) | *dense_) + (Chain(x) | *pointwise_);
    if (identity_ != nullptr) h = std::move(h) + (Chain(x) | *identity_);
    return std::move(h) | relu;
  }

 private:
  static std::unique_ptr<Sequential> branch(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                            Init& init) {
    auto part = std::make_unique<Sequential>();
    part->add("conv", make_conv(in, out, kernel, stride, Weights::kaiming_uniform, init));
    part->add("bn", make_norm(out, init));
    return part;
  }

  BatchNorm2d* identity_ = nullptr;
  Sequential *dense_ = nullptr, *pointwise_ = nullptr;
};

class RepVgg : public RowClassifier {
 public:
  RepVgg(const RepVggConfig& config, const ModelSpec& spec, Init& init)
      : RowClassifier(spec.num_classes) {
    const int64_t first = config.stem == Stem::imagenet ? 2 : 1;
    const std::array<int64_t, 4> blocks{2, 4, 14, 1};
    const auto& widths = config.widths;
    then("stage0", std::make_unique<RepVggBlock>(spec.in_channels, widths[0], first, init));
    for (size_t s = 1; s <= blocks.size(); ++s) {
      auto& stage = then("stage" + std::to_string(s), std::make_unique<Sequential>());
      add_stage(stage);
      for (int64_t b = 0; b < blocks[s - 1]; ++b)
        stage.add<RepVggBlock>(std::to_string(b), widths[b == 0 ? s - 1 : s], widths[s],
                               b > 0    ? 1
                               : s == 1 ? first
                                        : 2,
                               init);
    }
    then(global_avg_pool);
    auto& linear = add<Linear>("linear", widths.back(), spec.num_classes, true, init);
    end(linear, linear);
  }
};

}  // namespace

std::unique_ptr<Classifier> make_repvgg(const RepVggConfig& config, const ModelSpec& spec,
                                        Init& init) {
  return std::make_unique<RepVgg>(config, spec, init);
}

}  // namespace mtcki::nn
