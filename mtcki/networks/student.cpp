#include "mtcki/networks/student.h"

#include "autograd/functions.h"
#include "nn/summary.h"
#include "tensor/ops/elementwise.h"

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

nn::Classifier::Output Student::features(const Variable& images,
                                         const std::vector<nn::Module*>& tapped, bool with_map) {
  return net_->features(normalize_channels(images, mean_, std_), tapped, with_map);
}

Student::Frozen Student::frozen(const Variable& images) {
  struct Restore {
    Student& student;
    bool training;
    void set_requires_grad(bool on) const {
      student.net_->set_requires_grad(on);
      for (const auto& head : student.heads_) head->set_requires_grad(on);
    }
    ~Restore() {
      student.net_->train(training);
      set_requires_grad(true);
    }
  } restore{*this, net_->training()};
  net_->eval();
  restore.set_requires_grad(false);
  const nn::Classifier::Output y = features(images);
  return {y.logits, head_logits(y)};
}

void Student::add_heads(size_t count, uint64_t seed) {
  if (!net_->class_weights().defined())
    throw UsageError(str("distill.heads: student ", name_, " does not end with a linear layer"));
  nn::Init init(seed);
  init.rng.stream = rng_stream(("student heads/" + name_).c_str());
  for (size_t m = 0; m < count; ++m) {
    heads_.push_back(
        std::make_unique<nn::Linear>(net_->feature_dim(), net_->num_classes(), true, init));
    heads_.back()->to(device());
  }
}

nn::NamedList<nn::Linear*> Student::heads() {
  nn::NamedList<nn::Linear*> out;
  for (size_t m = 0; m < heads_.size(); ++m) out.emplace_back(str("heads.", m), heads_[m].get());
  return out;
}

void Student::share_gradient_of_heads() {
  const Variable weight = net_->class_weights();
  std::string layer;
  for (auto& [name, p] : net_->named_parameters())
    if (p->impl() == weight.impl()) layer = name.substr(0, name.rfind('.'));
  for (auto& [name, p] : net_->named_parameters())
    if ((name == layer + ".weight" || name == layer + ".bias") && p->grad().defined())
      mul_(p->grad(), 1.0 / static_cast<double>(heads_.size()));
}

std::vector<Variable> Student::head_logits(const nn::Classifier::Output& y) {
  std::vector<Variable> out;
  Variable sum;
  for (const auto& head : heads_) {
    out.push_back((*head)(y.feature));
    sum = sum.defined() ? add(sum, out.back()) : out.back();
  }
  for (Variable& z : out)
    z = add(y.logits, sub(z, mul(sum, 1.0 / static_cast<double>(heads_.size()))));
  return out;
}

}  // namespace mtcki
