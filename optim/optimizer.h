// SGD, Adam, AdamW over parameter handles; state dicts that resume exactly. State lies beside the
// parameters. On the GPU the rates and step numbers are device scalars, so that a captured step
// (StepGraph) may contain step().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "nn/module.h"
#include "tensor/cuda/step_inputs.h"
#include "tensor/ops/update.h"
#include "tensor/scalar.h"

namespace mtcki::optim {

// Parameters that share hyper-parameters. Names key the state dict: "<name>.momentum".
struct ParameterGroup {
  nn::NamedList<Variable> parameters;
  double lr_scale = 1.0;  // multiplies the optimiser's lr for this group
  double weight_decay_scale = 1.0;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One update from the .grad() of every parameter (those without one are skipped, as in PyTorch).
  // grad_scale multiplies every gradient (clipping).
  virtual void step(const Scalar& grad_scale = 1.0) = 0;
  void zero_grad();
  double lr() const { return lr_; }
  void set_lr(double lr) { lr_ = lr; }
  int64_t steps() const { return steps_; }
  // As before the first step, in place: rates and addresses stay.
  void reset();
  // Global L2 norm of all gradients; for logging and clipping.
  double grad_norm() const;
  // Scale for step() so that the norm is at most max_norm (1 when it already is). The second form
  // is that of the gradients, without reading them when they are on the GPU; *norm: their norm.
  static double clip_scale(double norm, double max_norm);
  Scalar clip_scale(double max_norm, Tensor* norm = nullptr) const;

  // "<param>.momentum" / "<param>.exp_avg", "<param>.exp_avg_sq", and i64 "step"; zeros for a
  // parameter without an update yet. A parameter that was skipped in some steps has its own
  // "<param>.step". Empty slots: momentum 0. Tensors are copies.
  nn::StateDict state_dict() const;
  // DataError listing all that does not fit; nothing is changed then.
  void load_state_dict(const nn::StateDict& state);

 protected:
  // Throws Error when a name appears twice (the state dict could not tell them apart), when a
  // parameter does, and of results of functions, which have no gradient.
  Optimizer(std::vector<ParameterGroup> groups, double lr, std::vector<std::string> slot_names);

  // Parameters of one group that have a gradient and had the same number of updates before.
  struct Batch {
    Scalar lr, step;  // step: of these parameters, 1-based
    double weight_decay_scale = 1;
    std::vector<Tensor> params, grads;
    std::vector<std::vector<Tensor>> slots;  // [slot][parameter]
  };
  // What this step updates. Allocates slots at a parameter's first update and counts the step.
  std::vector<Batch> begin_step();

 private:
  struct Entry {
    std::string name;
    Variable parameter;
    int64_t steps = 0;
    std::vector<Tensor> slots;  // undefined until the first update
  };
  struct Group {
    double lr_scale, weight_decay_scale;
    std::vector<Entry> entries;
  };
  std::vector<Tensor> gradients() const;
  void give_scalars(Batch& batch, const std::vector<Entry*>& entries, const Group& group,
                    const std::string& name);

  std::vector<Group> groups_;
  std::vector<std::string> slot_names_;
  double lr_;
  int64_t steps_ = 0;
  StepInputs scalars_;  // on the GPU
};

// All parameters of a module as one group; or these parameters, which are then called "0", "1" and
// so on in the state dict.
ParameterGroup group_of(nn::Module& module, double lr_scale = 1.0);
ParameterGroup group_of(const std::vector<Variable>& parameters, double lr_scale = 1.0);

struct SgdOptions {
  double lr = 0.1, momentum = 0.0, dampening = 0.0, weight_decay = 0.0;
  bool nesterov = false;
  bool decoupled = false;  // weight decay applied to the weight, not through the momentum
};
std::unique_ptr<Optimizer> make_sgd(std::vector<ParameterGroup> groups, const SgdOptions& o);
inline std::unique_ptr<Optimizer> make_sgd(nn::Module& net, const SgdOptions& o) {
  return make_sgd({group_of(net)}, o);
}
inline std::unique_ptr<Optimizer> make_sgd(const std::vector<Variable>& p, const SgdOptions& o) {
  return make_sgd({group_of(p)}, o);
}

struct AdamOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.0;
  bool decoupled = false;  // AdamW
};
std::unique_ptr<Optimizer> make_adam(std::vector<ParameterGroup> groups, const AdamOptions& o);
inline std::unique_ptr<Optimizer> make_adam(nn::Module& net, const AdamOptions& o) {
  return make_adam({group_of(net)}, o);
}
inline std::unique_ptr<Optimizer> make_adam(const std::vector<Variable>& p, const AdamOptions& o) {
  return make_adam({group_of(p)}, o);
}

// Exponential moving average of a module's parameters: avg = decay*avg + (1-decay)*value. Buffers
// (running statistics) are copied.
class ModuleEma {
 public:
  ModuleEma(nn::Module& source, double decay);
  void update();  // after every optimiser step
  void copy_to(nn::Module& target) const;
  nn::StateDict state_dict() const;  // "ema.<param>"
  void load_state_dict(const nn::StateDict& state);

 private:
  nn::Module& source_;
  double decay_;
  nn::StateDict average_;
};

}  // namespace mtcki::optim
