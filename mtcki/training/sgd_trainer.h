// SgdTrainer: SGD with a schedule, clipping and an optional weight EMA around one network: what
// supervised training and distillation share. In a job of several ranks the network's gradients are
// summed over them; those of other parameters (contrast heads) are whole on every rank.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "mtcki/config/config.h"
#include "mtcki/training/metric_ring.h"
#include "mtcki/training/state.h"
#include "nn/module.h"
#include "nn/parallel.h"
#include "optim/gradient_sync.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace mtcki {

// The schedule of the configuration over epochs of equal length; what only [train] has is left out.
inline optim::Schedule schedule_of(const SgdConfig& c, int64_t epochs, int64_t total_steps) {
  optim::Schedule s{
      .kind = c.schedule, .base_lr = c.lr, .min_lr = c.min_lr, .total_steps = total_steps};
  for (const int64_t epoch : c.milestones) s.milestones.push_back(epoch * (total_steps / epochs));
  s.gamma = c.gamma;
  return s;
}

class SgdTrainer {
 public:
  // groups may hold parameters beside the network's (contrast heads).
  SgdTrainer(nn::Module& net, std::vector<optim::ParameterGroup> groups, const SgdConfig& c,
             const optim::Schedule& schedule)
      : net_(net), schedule_(schedule), clip_norm_(c.clip_norm) {
    const optim::SgdOptions options{.lr = c.lr,
                                    .momentum = c.momentum,
                                    .weight_decay = c.weight_decay,
                                    .nesterov = c.nesterov && c.momentum > 0};
    optimizer_ = optim::make_sgd(std::move(groups), options);
    nn::make_parallel(net, communicator());
    if (c.ema > 0) ema_.emplace(net, c.ema);
  }

  void zero_grad() { optimizer_->zero_grad(); }
  // The rate of a 0-based step, then its update, which a captured step may contain.
  void prepare(int64_t step) { optimizer_->set_lr(schedule_.at(step)); }
  // Where gradients are clipped, their norm goes to `values`.
  void update(MetricRing& values) {
    optim::all_reduce_gradients(net_.parameters(), communicator());
    Tensor norm;
    optimizer_->step(clip_norm_ > 0 ? optimizer_->clip_scale(clip_norm_, &norm) : Scalar(1.0));
    if (norm.defined()) values.put("grad_norm", norm);
    if (ema_) ema_->update();
  }
  double lr() const { return optimizer_->lr(); }

  // Runs f with the weights that count in the network: the average when there is one.
  template <class F>
  auto with_final_weights(const F& f) {
    if (!ema_) return f();
    struct Restore {
      nn::Module& net;
      nn::StateDict weights;
      ~Restore() { net.load_state_dict(weights); }
    } restore{net_, net_.state_dict()};
    ema_->copy_to(net_);
    return f();
  }

  void visit(State& s) {
    s("optim", *optimizer_);
    if (ema_) s("average", *ema_);
  }

 private:
  nn::Module& net_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  optim::Schedule schedule_;
  std::optional<optim::ModuleEma> ema_;
  double clip_norm_;
};

}  // namespace mtcki
