#include "mtcki/networks/teacher.h"

#include "autograd/functions.h"
#include "mtcki/networks/model_file.h"
#include "nn/summary.h"
#include "tensor/context.h"
#include "tensor/ops/augment.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {

// Ends a pass at its last wanted tap. Not an error: thrown by a hook, caught in view().
struct LastTapSeen {};

// Fills a view during one pass. The hooks go with it: a layer with hooks is not fused with its
// neighbours.
class Tapping {
 public:
  Tapping(nn::Classifier& net, const std::vector<nn::BatchNorm2d*>& batch_norms, unsigned taps,
          Teacher::View* view)
      : view_(view), ends_early_(taps & Teacher::kTapsOnly) {
    if (taps & Teacher::kBn) {
      collect({batch_norms.begin(), batch_norms.end()}, &view->bn_inputs);
      view->bn_moments.resize(batch_norms.size());
      if (!ends_early_) norms_ = batch_norms;
    }
    if (taps & Teacher::kStages) collect(net.stages(), &view->stage_inputs);
    for (nn::BatchNorm2d* bn : norms_) bn->keep_moments(true);
  }
  ~Tapping() {
    for (nn::BatchNorm2d* bn : norms_) bn->keep_moments(false);
  }
  Tapping(const Tapping&) = delete;
  Tapping& operator=(const Tapping&) = delete;

  bool needs_no_pass() const { return ends_early_ && left_ == 0; }
  void take_moments() {
    for (size_t i = 0; i < norms_.size(); ++i) view_->bn_moments[i] = norms_[i]->take_moments();
  }

 private:
  void collect(const std::vector<nn::Module*>& modules, std::vector<Variable>* inputs) {
    inputs->resize(modules.size());
    left_ += modules.size();
    for (size_t i = 0; i < modules.size(); ++i)
      hooks_.push_back(
          modules[i]->add_before_hook([this, inputs, i](const nn::Module&, const Variable& x) {
            (*inputs)[i] = x;
            if (--left_ == 0 && ends_early_) throw LastTapSeen{};
          }));
  }

  Teacher::View* view_;
  bool ends_early_;
  size_t left_ = 0;                      // taps still to come
  std::vector<nn::BatchNorm2d*> norms_;  // that keep their moments
  std::vector<nn::HookHandle> hooks_;
};

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
  for (const nn::BatchNorm2d* bn : batch_norms_) bn_channels_.push_back(bn->running_mean.size(0));
  measure();
}

void Teacher::to(Device device) {
  net_->to(device);
  mean_ = mean_.to(device);
  std_ = std_.to(device);
}

void Teacher::measure() {
  const nn::ModelSpec& s = options_.spec;
  const std::vector<nn::Module*> stages = net_->stages();
  stage_channels_.resize(stages.size());
  std::vector<nn::HookHandle> hooks;
  for (size_t i = 0; i < stages.size(); ++i)
    hooks.push_back(stages[i]->add_before_hook(
        [this, i](const nn::Module&, const Variable& x) { stage_channels_[i] = x.size(1); }));
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
  Tapping tapping(*net_, batch_norms_, taps, &out);
  if (tapping.needs_no_pass()) return out;
  const ContextScope scope(ContextScope::Kind::module, options_.name);
  try {
    const nn::Classifier::Output y = net_->features(normalized(images));
    out.logits = y.logits;
    out.feature = y.feature;
    tapping.take_moments();
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
                   const std::string& config_sha256, const std::vector<std::string>& classes) {
  write_model_file(path, *net_,
                   {options_.spec, options_.normalization, top1, top5, config_sha256, classes});
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
