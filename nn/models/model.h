// The model registry: names, what they need, how to build them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/chain.h"

namespace mtcki::nn {

// A classifier: logits, and the penultimate (globally pooled) feature that contrast and FID use.
class Classifier : public Module {
 public:
  struct Output {
    Variable logits;             // [N, classes], f32 in every precision
    Variable feature;            // [N, feature_dim()], likewise
    std::vector<Variable> taps;  // inputs of modules, with their graph
    Variable map;                // [N, feature_dim(), H, W], which the feature is the mean of
  };
  // One pass that gives all three; operator() gives the logits only. `tapped`: modules of this
  // network, each of which runs once in a pass. A tapped layer is not fused with its neighbours.
  // with_map: also the map; it stays undefined where something else makes the feature of it.
  Output features(const Variable& x, const std::vector<Module*>& tapped = {},
                  bool with_map = false);
  // The taps alone: the pass ends as soon as the last of them is there.
  std::vector<Variable> taps(const Variable& x, const std::vector<Module*>& tapped);
  template <class M>
  Output features(const Variable& x, const std::vector<M*>& tapped) {
    return features(x, std::vector<Module*>(tapped.begin(), tapped.end()));
  }
  virtual int64_t feature_dim() const = 0;
  int64_t num_classes() const { return num_classes_; }
  // Modules whose *inputs* CMI contrasts when not all BN inputs are wanted ("stage features").
  virtual std::vector<Module*> stages() = 0;
  // Weight [K, feature_dim()] of the linear layer that makes logits of the feature; undefined where
  // something else does.
  Variable class_weights();
  // All BatchNorm2d layers in forward order.
  std::vector<BatchNorm2d*> batch_norms();

 protected:
  explicit Classifier(int64_t num_classes) : num_classes_(num_classes) {}
  // A trunk ends with it: global average pooling.
  Variable pooled(Chain map);
  virtual Variable trunk(const Variable& x) = 0;       // [N,C,H,W] -> [N, feature_dim]
  virtual Variable head(const Variable& feature) = 0;  // -> logits
  Variable forward(const Variable& x) override { return pass(x).logits; }

 private:
  Output pass(const Variable& x);

  int64_t num_classes_;
  bool keeps_map_ = false;  // of the pass under way
  Variable map_;
};

struct ModelSpec {
  std::string name;         // registry name
  int64_t in_channels = 3;  // 1 or 3
  int64_t image_size = 32;  // 28, 32 or 64
  int64_t num_classes = 10;
};

// Names: resnet{18,34,50}; resnet{8,14,20,32,44,56,110} (option B) and resnetN_a (option A:
// akamaster names `linear`); resnet8x4 resnet32x4; wrn<d>_<k> for any d = 6n+4; vgg{8,11,13,16,19};
// vgg{11,13,16,19}_bn (five pools, torchvision's names, one linear layer), _bn_fc and _bn_fc4096
// (three, the hidden ones 512 or 4096 wide); mobilenet_v2; shufflenet_v2_x{0_5,1_0,1_5,2_0};
// densenet121; repvgg_a{0,1,2}. All but wrn and the small ResNets take a width multiplier,
// vgg8_w0.5.
// With _pool: resnet{18,34,50} and densenet121 with a max-pool behind the 3x3 stem, VGGs with five
// pools. With _in the networks of ImageNet (VGGs: those of _bn). Where only strides and pools
// differ the weights fit either. Throws UsageError with the nearest name.
std::unique_ptr<Classifier> make_classifier(const ModelSpec& spec, Init& init);
std::vector<std::string> classifier_names();  // for help texts; wrn as wrn40_2 etc.

// Generators: latents [N, nz] -> images [N, channels, size, size] in [0,1], f32 in every precision.
class Generator : public Module {
 public:
  virtual int64_t nz() const = 0;
  // Module::reset_parameters of every module; the result depends on `rng` only.
  void reset(const Rng& rng);

  // The pass in parts: part 0 makes map 0, the first batch norm's output, of latents; every further
  // one a map of the map before; part maps() the images.
  virtual int64_t maps() const = 0;
  virtual Variable part(int64_t number, const Variable& x) = 0;
  // All that follows a map.
  Variable decode(int64_t map, Variable x);
};
struct GeneratorSpec {
  std::string name = "cmi";  // one of generator_names()
  int64_t nz = 256, ngf = 64, channels = 3, image_size = 32;
};
std::unique_ptr<Generator> make_generator(const GeneratorSpec& spec, Init& init);
const std::vector<std::string>& generator_names();

}  // namespace mtcki::nn
