// Student: the network that learns. Images come in [0,1] and are normalised inside, as for a
// teacher.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/sets/dataset.h"
#include "nn/models/model.h"

namespace mtcki {

class Student {
 public:
  Student(std::string name, nn::ModelSpec spec, data::Normalization normalization, uint64_t seed);
  Student(const Student&) = delete;
  Student& operator=(const Student&) = delete;

  const std::string& name() const { return name_; }
  const nn::ModelSpec& spec() const { return spec_; }
  const data::Normalization& normalization() const { return normalization_; }
  nn::Classifier& net() { return *net_; }
  double macs() const { return macs_; }
  void to(Device device);
  Device device() const { return mean_.device(); }
  void set_precision(nn::Precision precision) { net_->set_precision(precision); }

  // In the mode that net() is in; images [N,C,H,W] in [0,1]. tapped, with_map: Classifier::features.
  nn::Classifier::Output features(const Variable& images,
                                  const std::vector<nn::Module*>& tapped = {},
                                  bool with_map = false);
  struct Frozen {
    Variable logits;
    std::vector<Variable> heads;
  };
  // Logits in eval mode with frozen parameters, so that only the images get a gradient (the
  // adversarial loss). Restores the mode.
  Frozen frozen(const Variable& images);

  // One head per teacher (CDFKD), whose mean is the network itself:
  //   z_m = z + V_m f + c_m − mean over m of the same
  // so that nothing but the network is left of them in the end.
  void add_heads(size_t count, uint64_t seed);
  nn::NamedList<nn::Linear*> heads();
  std::vector<Variable> head_logits(const nn::Classifier::Output& y);  // none without heads
  // Behind a backward: of M heads, each with weights of its own, the mean moves by 1/M of the sum
  // of what moves them.
  void share_gradient_of_heads();

 private:
  std::string name_;
  nn::ModelSpec spec_;
  data::Normalization normalization_;
  std::unique_ptr<nn::Classifier> net_;
  std::vector<std::unique_ptr<nn::Linear>> heads_;  // V_m, c_m
  Tensor mean_, std_;
  double macs_ = 0;
};

}  // namespace mtcki
