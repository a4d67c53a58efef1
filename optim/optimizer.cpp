#include "optim/optimizer.h"

#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "tensor/cuda/step_graph.h"
#include "tensor/op_error.h"

namespace mtcki::optim {

Optimizer::Optimizer(std::vector<ParameterGroup> groups, double lr,
                     std::vector<std::string> slot_names)
    : slot_names_(std::move(slot_names)), lr_(lr) {
  std::map<std::string, const Variable::Impl*> names;
  std::map<const Variable::Impl*, std::string> seen;
  for (ParameterGroup& group : groups) {
    Group& own = groups_.emplace_back(Group{group.lr_scale, group.weight_decay_scale, {}});
    for (auto& [name, parameter] : group.parameters) {
      const Variable::Impl* impl = parameter.impl().get();
      if (!parameter.is_leaf())
        throw Error(str("optimizer: parameter '", name,
                        "' is a result, not a leaf, and has no gradient of its own"));
      const auto [it, first] = names.emplace(name, impl);
      if (!first && it->second != impl)
        throw Error(str("optimizer: two parameters are called '", name,
                        "'; give the parameters of each group different names"));
      if (const auto [other, fresh] = seen.emplace(impl, name); impl && !fresh)
        throw Error(str("optimizer: parameter '", name, "' is listed twice",
                        other->second == name ? "" : str(", also as '", other->second, "'"),
                        ", and every step would update it twice"));
      Entry entry;
      entry.name = name;
      entry.parameter = parameter;
      entry.slots.resize(slot_names_.size());
      own.entries.push_back(std::move(entry));
    }
  }
}

void Optimizer::zero_grad() {
  for (Group& group : groups_)
    for (Entry& entry : group.entries) entry.parameter.zero_grad();
}

std::vector<Tensor> Optimizer::gradients() const {
  std::vector<Tensor> grads;
  for (const Group& group : groups_)
    for (const Entry& entry : group.entries)
      if (entry.parameter.grad().defined()) grads.push_back(entry.parameter.grad());
  return grads;
}

double Optimizer::grad_norm() const {
  const std::vector<Tensor> grads = gradients();
  return grads.empty() ? 0.0 : global_norm(grads);
}

double Optimizer::clip_scale(double norm, double max_norm) {
  return mtcki::clip_scale(norm, max_norm);
}

Scalar Optimizer::clip_scale(double max_norm, Tensor* norm) const {
  const std::vector<Tensor> grads = gradients();
  return grads.empty() ? Scalar(1.0) : mtcki::clip_scale(grads, max_norm, norm);
}

void Optimizer::reset() {
  steps_ = 0;
  for (Group& group : groups_)
    for (Entry& entry : group.entries) {
      entry.steps = 0;
      for (Tensor& slot : entry.slots)
        if (slot.defined()) slot.zero_();
    }
}

// Counts the step of a batch. On the CPU its rate and step are numbers; on the GPU they are device
// scalars, which every replay of a captured step fills anew.
void Optimizer::give_scalars(Batch& batch, const std::vector<Entry*>& entries, const Group& group,
                             const std::string& name) {
  const Device device = batch.params.front().device();
  const auto count = [entries] {
    for (Entry* entry : entries) ++entry->steps;
  };
  if (device.is_cpu()) {
    count();
    batch.lr = lr_ * group.lr_scale;
    batch.step = static_cast<double>(entries.front()->steps);
    return;
  }
  if (scalars_.device() != device) scalars_ = StepInputs(device);
  const std::string lr = "lr " + name, step = "step " + name;
  host_work([this, count, entries, lr, step, scale = group.lr_scale] {
    count();
    scalars_.set(lr, lr_ * scale);
    scalars_.set(step, static_cast<double>(entries.front()->steps));
    for (const Entry* entry : entries) {  // copies by version must see what a replay writes
      entry->parameter.data().bump_version();
      for (const Tensor& slot : entry->slots) slot.bump_version();
    }
  });
  batch.lr = Scalar(scalars_.at(lr, {}, DType::f32));
  batch.step = Scalar(scalars_.at(step, {}, DType::f32));
}

std::vector<Optimizer::Batch> Optimizer::begin_step() {
  host_work([this] { ++steps_; });
  std::vector<Batch> out;
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::map<int64_t, std::pair<Batch, std::vector<Entry*>>> by_step;
    for (Entry& entry : groups_[g].entries) {
      const Tensor& grad = entry.parameter.grad();
      if (!grad.defined()) continue;
      const Tensor& data = entry.parameter.data();
      for (Tensor& slot : entry.slots)
        if (!slot.defined()) slot = Tensor::zeros_like(data);
      auto& [batch, entries] = by_step[entry.steps];
      entries.push_back(&entry);
      batch.params.push_back(data);
      batch.grads.push_back(grad.to(data.layout()));
      batch.slots.resize(slot_names_.size());
      for (size_t s = 0; s < entry.slots.size(); ++s) batch.slots[s].push_back(entry.slots[s]);
    }
    if (by_step.size() > 1 && cuda::capturing())
      throw CaptureError(
          "optimizer: parameters of one group have had different numbers of updates, which a "
          "captured step cannot tell apart; put them into groups of their own");
    size_t part = 0;
    for (auto& [steps, both] : by_step) {
      auto& [batch, entries] = both;
      batch.weight_decay_scale = groups_[g].weight_decay_scale;
      give_scalars(batch, entries, groups_[g], str(g, ".", part++));
      out.push_back(std::move(batch));
    }
  }
  return out;
}

nn::StateDict Optimizer::state_dict() const {
  nn::StateDict out;
  out.emplace_back("step", Tensor::scalar(static_cast<double>(steps_), DType::i64));
  for (const Group& group : groups_) {
    for (const Entry& entry : group.entries) {
      for (size_t s = 0; s < slot_names_.size(); ++s) {
        const Tensor& slot = entry.slots[s];
        out.emplace_back(entry.name + "." + slot_names_[s],
                         slot.defined() ? slot.to(Device::cpu()).plain().clone()
                                        : Tensor::zeros(entry.parameter.shape(),
                                                        entry.parameter.data().dtype()));
      }
      if (entry.steps != steps_)
        out.emplace_back(entry.name + ".step",
                         Tensor::scalar(static_cast<double>(entry.steps), DType::i64));
    }
  }
  return out;
}

void Optimizer::load_state_dict(const nn::StateDict& state) {
  std::map<std::string, Tensor> given(state.begin(), state.end());
  std::string problems;
  std::set<std::string> used;
  const auto find = [&](const std::string& name, const Shape& shape, bool required) -> Tensor {
    const auto it = given.find(name);
    if (it == given.end()) {
      if (required) problems += "\n  missing     " + name;
      return {};
    }
    used.insert(name);
    if (it->second.shape() == shape) return it->second;
    problems += str("\n  mismatch    ", name, ": file has ", it->second.shape().to_string(),
                    ", expected ", shape.to_string());
    return {};
  };

  const Tensor step = find("step", Shape{}, true);
  std::vector<std::vector<Tensor>> slots;
  std::vector<Tensor> own_steps;
  for (Group& group : groups_) {
    for (Entry& entry : group.entries) {
      auto& list = slots.emplace_back();
      for (const std::string& slot : slot_names_)
        list.push_back(find(entry.name + "." + slot, entry.parameter.shape(), true));
      own_steps.push_back(find(entry.name + ".step", Shape{}, false));
    }
  }
  for (const auto& [name, tensor] : given)
    if (used.count(name) == 0) problems += "\n  unexpected  " + name;
  if (!problems.empty())
    throw DataError("optimizer load_state_dict: the state does not fit these parameters" +
                    problems);

  steps_ = static_cast<int64_t>(step.item());
  size_t i = 0;
  for (Group& group : groups_) {
    for (Entry& entry : group.entries) {
      entry.steps = own_steps[i].defined() ? static_cast<int64_t>(own_steps[i].item()) : steps_;
      for (size_t s = 0; s < slot_names_.size(); ++s) {
        entry.slots[s] = Tensor();
        if (entry.steps == 0) continue;
        entry.slots[s] = Tensor::zeros_like(entry.parameter.data());
        entry.slots[s].copy_(slots[i][s].to(entry.parameter.data().device()));
      }
      ++i;
    }
  }
}

ParameterGroup group_of(nn::Module& module, double lr_scale) {
  ParameterGroup group;
  group.lr_scale = lr_scale;
  for (auto& [name, parameter] : module.named_parameters())
    group.parameters.emplace_back(name, *parameter);
  return group;
}

ParameterGroup group_of(const std::vector<Variable>& parameters, double lr_scale) {
  ParameterGroup group;
  group.lr_scale = lr_scale;
  for (size_t i = 0; i < parameters.size(); ++i)
    group.parameters.emplace_back(std::to_string(i), parameters[i]);
  return group;
}

namespace {

class Sgd : public Optimizer {
 public:
  Sgd(std::vector<ParameterGroup> groups, const SgdOptions& o)
      : Optimizer(
            std::move(groups), o.lr,
            o.momentum != 0.0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{}),
        o_(o) {}

  void step(const Scalar& grad_scale) override {
    for (Batch& b : begin_step()) {
      const SgdUpdate u{.lr = b.lr,
                        .momentum = o_.momentum,
                        .dampening = o_.dampening,
                        .weight_decay = o_.weight_decay * b.weight_decay_scale,
                        .nesterov = o_.nesterov,
                        .decoupled = o_.decoupled,
                        .step = b.step,
                        .grad_scale = grad_scale};
      sgd_update_(b.params, b.grads, b.slots.empty() ? std::vector<Tensor>{} : b.slots[0], u);
    }
  }

 private:
  SgdOptions o_;
};

class Adam : public Optimizer {
 public:
  Adam(std::vector<ParameterGroup> groups, const AdamOptions& o)
      : Optimizer(std::move(groups), o.lr, {"exp_avg", "exp_avg_sq"}), o_(o) {}

  void step(const Scalar& grad_scale) override {
    for (Batch& b : begin_step()) {
      const AdamUpdate u{.lr = b.lr,
                         .beta1 = o_.beta1,
                         .beta2 = o_.beta2,
                         .eps = o_.eps,
                         .weight_decay = o_.weight_decay * b.weight_decay_scale,
                         .decoupled = o_.decoupled,
                         .step = b.step,
                         .grad_scale = grad_scale};
      adam_update_(b.params, b.grads, b.slots[0], b.slots[1], u);
    }
  }

 private:
  AdamOptions o_;
};

}  // namespace

namespace {

// Written so that a NaN is refused, too.
void check_option(const char* name, double value, double below) {
  if (!(value >= 0.0 && value < below))
    throw UsageError(str("optimizer: ", name, " is ", value, ", it needs to be at least 0",
                         std::isinf(below) ? " and finite" : str(" and below ", below)));
}

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<ParameterGroup> groups, const SgdOptions& o) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  check_option("lr", o.lr, kAny);
  check_option("momentum", o.momentum, kAny);
  check_option("weight_decay", o.weight_decay, kAny);
  if (o.nesterov && (o.momentum <= 0.0 || o.dampening != 0.0))
    throw UsageError("sgd: nesterov needs a momentum above 0 and dampening 0");
  return std::make_unique<Sgd>(std::move(groups), o);
}

std::unique_ptr<Optimizer> make_adam(std::vector<ParameterGroup> groups, const AdamOptions& o) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  check_option("lr", o.lr, kAny);
  check_option("beta1", o.beta1, 1.0);
  check_option("beta2", o.beta2, 1.0);
  check_option("eps", o.eps, kAny);
  check_option("weight_decay", o.weight_decay, kAny);
  return std::make_unique<Adam>(std::move(groups), o);
}

}  // namespace mtcki::optim
