#include "mtcki/networks/student.h"

#include "autograd/functions.h"
#include "nn/summary.h"

namespace mtcki {

namespace {
std::unique_ptr<nn::Classifier> fresh(const nn::ModelSpec& spec, const std::string& name,
                                      uint64_t seed) {
  nn::Init init(seed);
  init.rng.stream = rng_stream(("student/" + name).c_str());
  return nn::make_classifier(spec, init);
}
}  // namespace

Student::Student(std::string name, nn::ModelSpec spec, data::Normalization normalization,
                 uint64_t seed)
    : name_(std::move(name)),
      spec_(std::move(spec)),
      normalization_(std::move(normalization)),
      net_(fresh(spec_, name_, seed)),
      mean_(normalization_.mean_tensor()),
      std_(normalization_.std_tensor()) {
  macs_ = nn::summarize(*net_, {1, spec_.in_channels, spec_.image_size, spec_.image_size}).macs;
}

void Student::to(Device device) {
  net_->to(device);
  mean_ = mean_.to(device);
  std_ = std_.to(device);
}

nn::Classifier::Output Student::features(const Variable& images) {
  return net_->features(normalize_channels(images, mean_, std_));
}

Variable Student::frozen_logits(const Variable& images) {
  struct Restore {
    nn::Classifier& net;
    bool training;
    ~Restore() {
      net.train(training);
      net.set_requires_grad(true);
    }
  } restore{*net_, net_->training()};
  net_->eval();
  net_->set_requires_grad(false);
  return (*net_)(normalize_channels(images, mean_, std_));
}

}  // namespace mtcki
