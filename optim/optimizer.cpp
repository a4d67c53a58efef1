#include "optim/optimizer.h"

#include <algorithm>
#include <map>
#include <set>

#include "tensor/op_error.h"

namespace mtcki::optim {

Optimizer::Optimizer(std::vector<ParameterGroup> groups, double lr,
                     std::vector<std::string> slot_names)
    : slot_names_(std::move(slot_names)), lr_(lr) {
  std::set<std::string> names;
  for (ParameterGroup& group : groups) {
    Group& own = groups_.emplace_back(Group{group.lr_scale, group.weight_decay_scale, {}});
    for (auto& [name, parameter] : group.parameters) {
      if (!names.insert(name).second)
        throw Error(str("optimizer: parameter '", name,
                        "' is listed twice; give the modules' parameters different prefixes"));
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

double Optimizer::grad_norm() const {
  std::vector<Tensor> grads;
  for (const Group& group : groups_)
    for (const Entry& entry : group.entries)
      if (entry.parameter.grad().defined()) grads.push_back(entry.parameter.grad());
  return grads.empty() ? 0.0 : global_norm(grads);
}

// As torch.nn.utils.clip_grad_norm_, with its guard against a zero norm.
double Optimizer::clip_scale(double norm, double max_norm) {
  return std::min(1.0, max_norm / (norm + 1e-6));
}

std::vector<Optimizer::Batch> Optimizer::begin_step() {
  ++steps_;
  std::vector<Batch> out;
  for (Group& group : groups_) {
    std::map<int64_t, Batch> by_step;
    for (Entry& entry : group.entries) {
      const Tensor& grad = entry.parameter.grad();
      if (!grad.defined()) continue;
      const Tensor& data = entry.parameter.data();
      if (entry.steps == 0)
        for (Tensor& slot : entry.slots) slot = Tensor::zeros_like(data);
      Batch& batch = by_step[++entry.steps];
      batch.params.push_back(data);
      batch.grads.push_back(grad.to(data.layout()));
      batch.slots.resize(slot_names_.size());
      for (size_t s = 0; s < entry.slots.size(); ++s) batch.slots[s].push_back(entry.slots[s]);
    }
    for (auto& [step, batch] : by_step) {
      batch.step = step;
      batch.lr = lr_ * group.lr_scale;
      batch.weight_decay_scale = group.weight_decay_scale;
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

namespace {

class Sgd : public Optimizer {
 public:
  Sgd(std::vector<ParameterGroup> groups, const SgdOptions& o)
      : Optimizer(
            std::move(groups), o.lr,
            o.momentum != 0.0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{}),
        o_(o) {}

  void step(double grad_scale) override {
    for (Batch& b : begin_step()) {
      SgdUpdate u;
      u.lr = b.lr;
      u.momentum = o_.momentum;
      u.dampening = o_.dampening;
      u.weight_decay = o_.weight_decay * b.weight_decay_scale;
      u.nesterov = o_.nesterov;
      u.decoupled = o_.decoupled;
      u.step = static_cast<double>(b.step);
      u.grad_scale = grad_scale;
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

  void step(double grad_scale) override {
    for (Batch& b : begin_step()) {
      AdamUpdate u;
      u.lr = b.lr;
      u.beta1 = o_.beta1;
      u.beta2 = o_.beta2;
      u.eps = o_.eps;
      u.weight_decay = o_.weight_decay * b.weight_decay_scale;
      u.decoupled = o_.decoupled;
      u.step = static_cast<double>(b.step);
      u.grad_scale = grad_scale;
      adam_update_(b.params, b.grads, b.slots[0], b.slots[1], u);
    }
  }

 private:
  AdamOptions o_;
};

}  // namespace

std::unique_ptr<Optimizer> make_sgd(std::vector<ParameterGroup> groups, const SgdOptions& o) {
  if (o.nesterov && (o.momentum <= 0.0 || o.dampening != 0.0))
    throw UsageError("sgd: nesterov needs a momentum above 0 and dampening 0");
  return std::make_unique<Sgd>(std::move(groups), o);
}

std::unique_ptr<Optimizer> make_adam(std::vector<ParameterGroup> groups, const AdamOptions& o) {
  return std::make_unique<Adam>(std::move(groups), o);
}

}  // namespace mtcki::optim
