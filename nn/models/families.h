// The families behind the registry of nn/models/model.h. Names, shapes and initialisation are those
// of the checkpoints that the field passes around.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/models/model.h"

namespace mtcki::nn {

// What stands before the first block, and how a network's name says so.
enum class Stem {
  small,     // NAME: for images of 28 to 64 pixels, a 3x3 convolution of stride 1
  pool,      // NAME_pool: a 3x3 max-pool of stride 2 behind it
  imagenet,  // NAME_in: as published for ImageNet; ResNet and DenseNet: 7x7, stride 2, and that pool
};

// How convolutions are drawn; fan_in, fan_out as PyTorch's kaiming_normal_.
enum class Weights { kaiming_uniform, kaiming_normal_fan_out, kaiming_normal_fan_in };
// kernel x kernel, padded so that stride 1 keeps the size; a bias is 0 unless `weights` are the
// layer's default, kaiming_uniform.
std::unique_ptr<Conv2d> make_conv(int64_t in, int64_t out, int64_t kernel, int64_t stride,
                                  Weights weights, Init& init, int64_t groups = 1,
                                  bool bias = false);
std::unique_ptr<BatchNorm2d> make_norm(int64_t channels, const Init& init);

// A classifier whose trunk is one row of links: the constructors of families append them.
class RowClassifier : public Classifier {
 public:
  int64_t feature_dim() const override { return linear_->weight.size(1); }
  std::vector<Module*> stages() override { return stages_; }

 protected:
  using Classifier::Classifier;
  void then(Link link) { trunk_.push_back(std::move(link)); }
  template <class M>
  M& then(const std::string& name, std::unique_ptr<M> child) {
    M& ref = add(name, std::move(child));
    then(Link(ref));
    return ref;
  }
  void add_stage(Module& module) { stages_.push_back(&module); }
  // `head`, which is the last layer or holds it, behind the trunk.
  template <class M>
  void end(M& head, Linear& last) {
    head_.push_back(Link(head));
    linear_ = &last;
    last.keep_f32();
  }
  Variable trunk(const Variable& x) override;
  Variable head(const Variable& feature) override;

 private:
  std::vector<Link> trunk_, head_;
  std::vector<Module*> stages_;
  Linear* linear_ = nullptr;
};

// Post-activation ResNets (He et al. 2016).
struct ResNetConfig {
  enum class Shortcut {
    projection,  // 1x1 convolution and batch norm where stride or width change
    padded,      // option A: subsample, zero channels planes/4 before and after; no parameters
  };

  Stem stem = Stem::small;
  int64_t stem_width = 64;
  // Bottleneck blocks, with four times the width behind them and the stride in the 3x3 convolution
  // (as torchvision, not as the paper).
  bool bottleneck = false;
  std::vector<int64_t> widths;  // per stage; the first has stride 1, the others 2
  std::vector<int64_t> blocks;
  Shortcut shortcut = Shortcut::projection;
  std::string shortcut_name = "shortcut";      // or "downsample"
  std::string head_name = "linear";            // or "fc"
  Weights weights = Weights::kaiming_uniform;  // of the convolutions (fan_in: of the head too)
};
std::unique_ptr<Classifier> make_resnet(const ResNetConfig& config, const ModelSpec& spec,
                                        Init& init);

// Pre-activation wide ResNet of depth 6n+4 (Zagoruyko & Komodakis 2016): widths 16, 16k, 32k, 64k.
std::unique_ptr<Classifier> make_wide_resnet(int64_t depth, int64_t k, const ModelSpec& spec,
                                             Init& init);

// VGG with batch norm (Simonyan & Zisserman 2015) and one linear layer, in five blocks of
// convolution widths.
struct VggConfig {
  std::array<std::vector<int64_t>, 5> widths;
  // A 2x2 max-pool behind every block (while there are two pixels). Otherwise behind the first
  // three, and the fourth for images of 64x64 (DataFree, CMI).
  bool five_pools = false;
  // One list of layers, features.N, as torchvision counts them; with five pools.
  bool flat = false;
  // Of these: the width of two hidden layers before the last one, named classifier.0, 3 and 6; 0:
  // there are none. No dropout between them.
  int64_t hidden = 0;
  bool keeps_7x7 = false;  // pool_7x7 before them, not the mean
};
std::unique_ptr<Classifier> make_vgg(const VggConfig& config, const ModelSpec& spec, Init& init);

// MobileNetV2 (Sandler et al. 2018, table 2) as torchvision names it. For small images the stem and
// the second row of the table have stride 1, not 2. No dropout before the last layer.
std::unique_ptr<Classifier> make_mobilenet_v2(double width, Stem stem, const ModelSpec& spec,
                                              Init& init);

// ShuffleNetV2 (Ma et al. 2018, table 5) as torchvision names it. For small images the stem has
// stride 1 and no max-pool behind it.
struct ShuffleNetV2Config {
  Stem stem = Stem::small;
  std::array<int64_t, 5> widths{};  // stem, three stages (even numbers), last convolution
};
std::unique_ptr<Classifier> make_shufflenet_v2(const ShuffleNetV2Config& config,
                                               const ModelSpec& spec, Init& init);

// DenseNet-BC (Huang et al. 2017) as torchvision names it.
struct DenseNetConfig {
  Stem stem = Stem::small;
  int64_t growth = 32, stem_width = 64;
  std::vector<int64_t> layers;  // per dense block
};
std::unique_ptr<Classifier> make_densenet(const DenseNetConfig& config, const ModelSpec& spec,
                                          Init& init);

// RepVGG (Ding et al. 2021, table 2) in its form for training, as its authors name it. For small
// images the stem and the first stage have stride 1, not 2.
struct RepVggConfig {
  Stem stem = Stem::small;
  std::array<int64_t, 5> widths{};  // stem, four stages
};
std::unique_ptr<Classifier> make_repvgg(const RepVggConfig& config, const ModelSpec& spec,
                                        Init& init);

}  // namespace mtcki::nn
