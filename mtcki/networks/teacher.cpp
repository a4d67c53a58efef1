#include "mtcki/networks/teacher.h"

#include <array>

#include "autograd/functions.h"
#include "mtcki/networks/model_file.h"
#include "nn/summary.h"
#include "tensor/context.h"
#include "tensor/ops/augment.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {

namespace {

// While alive, the batch norms keep the moments of their inputs.
class KeepMoments {
 public:
  explicit KeepMoments(const std::vector<nn::BatchNorm2d*>& norms) : norms_(norms) {
    for (nn::BatchNorm2d* bn : norms_) bn->keep_moments(true);
  }
  ~KeepMoments() {
    for (nn::BatchNorm2d* bn : norms_) bn->keep_moments(false);
  }
  KeepMoments(const KeepMoments&) = delete;
  KeepMoments& operator=(const KeepMoments&) = delete;

 private:
  std::vector<nn::BatchNorm2d*> norms_;
};

// While alive, the batch norms take the statistics of the batch, as in training. Their buffers are
// others meanwhile, so that neither values nor copies that depend on them change.
class UseBatchStatistics {
 public:
  explicit UseBatchStatistics(const std::vector<nn::BatchNorm2d*>& norms) : norms_(norms) {
    for (nn::BatchNorm2d* bn : norms_)
      for (Tensor* buffer : buffers(*bn)) {
        kept_.push_back(*buffer);
        *buffer = buffer->clone();
      }
    for (nn::BatchNorm2d* bn : norms_) bn->train();
  }
  ~UseBatchStatistics() {
    size_t i = 0;
    for (nn::BatchNorm2d* bn : norms_) {
      bn->eval();
      for (Tensor* buffer : buffers(*bn)) *buffer = kept_[i++];
    }
  }
  UseBatchStatistics(const UseBatchStatistics&) = delete;
  UseBatchStatistics& operator=(const UseBatchStatistics&) = delete;

 private:
  static std::array<Tensor*, 3> buffers(nn::BatchNorm2d& bn) {
    return {&bn.running_mean, &bn.running_var, &bn.num_batches_tracked};
  }
  std::vector<nn::BatchNorm2d*> norms_;
  std::vector<Tensor> kept_;
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

Tensor Teacher::class_weights() const {
  const Variable w = net_->class_weights();
  return w.defined() ? w.data() : Tensor();
}

Variable Teacher::normalized(const Variable& images) const {
  const DType dtype = images.data().dtype();
  return normalize_channels(images, mean_.to(dtype), std_.to(dtype));
}

Teacher::View Teacher::view(const Variable& images, unsigned taps) {
  check_frozen();
  View out;
  std::vector<nn::Module*> tapped;
  if (taps & kBn) tapped.assign(batch_norms_.begin(), batch_norms_.end());
  const auto norms = static_cast<std::ptrdiff_t>(tapped.size());
  if (taps & kStages)
    for (nn::Module* stage : net_->stages()) tapped.push_back(stage);
  out.bn_moments.resize(static_cast<size_t>(norms));
  if ((taps & kTapsOnly) && tapped.empty()) return out;
  const ContextScope scope(ContextScope::Kind::module, options_.name);
  nn::Classifier::Output y;
  if (taps & kTapsOnly) {
    y.taps = net_->taps(normalized(images), tapped);
  } else {
    const KeepMoments keep(taps & kBn ? batch_norms_ : std::vector<nn::BatchNorm2d*>());
    y = net_->features(normalized(images), tapped, (taps & kMap) != 0);
    for (size_t i = 0; i < out.bn_moments.size(); ++i)
      out.bn_moments[i] = batch_norms_[i]->take_moments();
  }
  out.logits = y.logits;
  out.feature = y.feature;
  out.map = y.map;
  out.bn_inputs.assign(y.taps.begin(), y.taps.begin() + norms);
  out.stage_inputs.assign(y.taps.begin() + norms, y.taps.end());
  return out;
}

nn::Classifier::Output Teacher::forward_no_grad(const Tensor& images, bool batch_statistics) {
  check_frozen();
  const UseBatchStatistics statistics(batch_statistics ? batch_norms_
                                                       : std::vector<nn::BatchNorm2d*>());
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
