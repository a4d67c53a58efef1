// The families behind the registry of nn/models/model.h. Names, shapes and initialisation are those
// of the checkpoints that the field passes around.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "nn/models/model.h"

namespace mtcki::nn {

// Post-activation ResNets of basic blocks (He et al. 2016), 3x3 stem.
struct ResNetConfig {
  enum class Shortcut {
    projection,  // 1x1 convolution and batch norm where stride or width change
    padded,      // option A: subsample, zero channels planes/4 before and after; no parameters
  };
  enum class Weights { kaiming_uniform, kaiming_normal_fan_out, kaiming_normal_fan_in };

  int64_t stem = 64;
  bool stem_pool = false;       // 3x3 max-pool of stride 2 behind the stem
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

// VGG with batch norm in five blocks of convolution widths.
struct VggConfig {
  std::array<std::vector<int64_t>, 5> widths;
  // A 2x2 max-pool behind every block (while there are two pixels). Otherwise behind the first three, and the fourth for images
  // of 64x64 (DataFree, CMI).
  bool five_pools = false;
};
std::unique_ptr<Classifier> make_vgg(const VggConfig& config, const ModelSpec& spec, Init& init);

}  // namespace mtcki::nn
