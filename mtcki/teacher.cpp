#include "mtcki/teacher.h"

#include "autograd/functions.h"
#include "mtcki/model_file.h"
#include "nn/summary.h"
#include "tensor/context.h"
#include "tensor/ops/augment.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {
// Ends a pass at its last wanted tap. Not an error: thrown by a hook, caught in view().
struct LastTapSeen {};
}  // namespace

Teacher::Teacher(Options options, std::unique_ptr<nn::Classifier> net)
    : options_(std::move(options)), net_(std::move(net)) {
  const auto channels = static_cast<size_t>(options_.spec.in_channels);
  if (options_.normalization.mean.size() != channels ||
      options_.normalization.std.size() != channels)
    throw UsageError(str("teacher ", options_.name, ": mean and std need ", channels,
                         " values, one per channel; got ", options_.normalization.mean.size(),
                         " and ", options_.normalization.std.size()));
  net_->eval();
  net_->set_requires_grad(false);
  net_->set_constant_weights(true);
  mean_ = options_.normalization.mean_tensor();
  std_ = options_.normalization.std_tensor();
  for (auto& [path, module] : net_->named_modules()) modules_.push_back(module);
  parameters_ = net_->parameters();
  batch_norms_ = net_->batch_norms();
  for (size_t i = 0; i < batch_norms_.size(); ++i) {
    bn_channels_.push_back(batch_norms_[i]->running_mean.size(0));
    hooks_.push_back(
        batch_norms_[i]->add_before_hook([this, i](const nn::Module&, const Variable& x) {
          if (!collecting_ || !(wanted_ & kBn)) return;
          collecting_->bn_inputs[i] = x;
          if (--left_ == 0 && (wanted_ & kTapsOnly)) throw LastTapSeen{};
        }));
  }
  const std::vector<nn::Module*> stages = net_->stages();
  stage_channels_.resize(stages.size());
  for (size_t i = 0; i < stages.size(); ++i)
    hooks_.push_back(stages[i]->add_before_hook([this, i](const nn::Module&, const Variable& x) {
      stage_channels_[i] = x.size(1);
      if (!collecting_ || !(wanted_ & kStages)) return;
      collecting_->stage_inputs[i] = x;
      if (--left_ == 0 && (wanted_ & kTapsOnly)) throw LastTapSeen{};
    }));
  measure();
}

void Teacher::to(Device device) {
  net_->to(device);
  mean_ = mean_.to(device);
  std_ = std_.to(device);
}

void Teacher::measure() {
  const nn::ModelSpec& s = options_.spec;
  macs_ = nn::summarize(*net_, {1, s.in_channels, s.image_size, s.image_size}).macs;
}

void Teacher::check_frozen() const {
  for (const nn::Module* m : modules_)
    if (m->training())
      throw Error(str("teacher ", options_.name, ": module ", m->name(),
                      " is in train mode; a teacher is only ever asked"));
  for (const Variable& p : parameters_)
    if (p.requires_grad())
      throw Error(
          str("teacher ", options_.name, ": a parameter requires a gradient; it is frozen"));
}

Variable Teacher::normalized(const Variable& images) const {
  const DType dtype = images.data().dtype();
  return normalize_channels(images, mean_.to(dtype), std_.to(dtype));
}

Teacher::View Teacher::view(const Variable& images, unsigned taps) {
  check_frozen();
  View out;
  left_ = 0;
  if (taps & kBn) left_ += batch_norms_.size(), out.bn_inputs.resize(batch_norms_.size());
  if (taps & kStages)
    left_ += stage_channels_.size(), out.stage_inputs.resize(stage_channels_.size());
  if ((taps & kTapsOnly) && left_ == 0) return out;
  struct Collect {
    Teacher& t;
    Collect(Teacher& teacher, View* view, unsigned wanted) : t(teacher) {
      t.collecting_ = view;
      t.wanted_ = wanted;
    }
    ~Collect() { t.collecting_ = nullptr; }
  } collect(*this, &out, taps);
  const ContextScope scope(ContextScope::Kind::module, options_.name);
  try {
    const nn::Classifier::Output y = net_->features(normalized(images));
    out.logits = y.logits;
    out.feature = y.feature;
  } catch (const LastTapSeen&) {
  }
  return out;
}

nn::Classifier::Output Teacher::ask(const Tensor& images) {
  check_frozen();
  const NoGradScope no_grad;
  const ContextScope scope(ContextScope::Kind::module, options_.name);
  return net_->features(normalized(images.to(device())));
}

void Teacher::save(const std::string& path, double top1, double top5,
                   const std::string& config_sha256) {
  write_model_file(path, *net_, {options_.spec, options_.normalization, top1, top5, config_sha256});
}

void Teachers::add(std::unique_ptr<Teacher> teacher) { list_.push_back(std::move(teacher)); }

std::vector<double> Teachers::weights() const {
  std::vector<double> w;
  double total = 0;
  for (const auto& t : list_) w.push_back(t->options().weight), total += w.back();
  if (!(total > 0)) throw UsageError("teachers: all weights are 0; give at least one a weight > 0");
  for (double& x : w) x /= total;
  return w;
}

void Teachers::to(Device device) {
  for (const auto& t : list_) t->to(device);
}

double Teachers::macs() const {
  double total = 0;
  for (const auto& t : list_) total += t->macs();
  return total;
}

}  // namespace mtcki
