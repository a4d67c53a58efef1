// Student: the network that learns. Images come in [0,1] and are normalised inside, as for a
// teacher.
#pragma once

#include <memory>
#include <string>

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

  // In the mode that net() is in; images [N,C,H,W] in [0,1].
  nn::Classifier::Output features(const Variable& images);
  // Logits in eval mode with frozen parameters, so that only the images get a gradient (the
  // adversarial loss). Restores the mode.
  Variable frozen_logits(const Variable& images);

 private:
  std::string name_;
  nn::ModelSpec spec_;
  data::Normalization normalization_;
  std::unique_ptr<nn::Classifier> net_;
  Tensor mean_, std_;
  double macs_ = 0;
};

}  // namespace mtcki
