#include "mtcki/losses/bn_statistics_loss.h"

#include "autograd/parallel.h"
#include "tensor/ops/update.h"

namespace mtcki {

BnStatisticsLoss::BnStatisticsLoss(const Teachers& teachers, BnReduce reduce, double momentum,
                                   double first)
    : reduce_(reduce), momentum_(momentum), first_(first) {
  double total = 0;
  for (size_t m = 0; m < teachers.size(); ++m) {
    std::vector<Layer> layers;
    for (const nn::BatchNorm2d* bn : teachers[m].batch_norms())
      layers.push_back({.running_mean = bn->running_mean, .running_var = bn->running_var});
    total += static_cast<double>(layers.size());
    layers_.push_back(std::move(layers));
  }
  if (reduce_ == BnReduce::init) return;
  for (const auto& layers : layers_)
    rho_.push_back(reduce_ == BnReduce::sum || layers.empty()
                       ? 1.0
                       : total / static_cast<double>(layers_.size() * layers.size()));
}

Variable BnStatisticsLoss::layers(size_t m, const Teacher::View& view) {
  std::vector<Layer>& layers = layers_.at(m);
  if (layers.empty()) return {};
  Variable total;
  if (communicator().size() == 1) {
    total = together(layers, view);
  } else {
    for (size_t l = 0; l < layers.size(); ++l) {
      Tensor mean, var;
      const Variable loss = alone(layers, l, view, &mean, &var);
      if (momentum_ > 0) {
        keep(layers[l].last_mean, mean);
        keep(layers[l].last_var, var);
      }
      total = total.defined() ? add(total, loss) : loss;
    }
  }
  return first_ == 1 ? total : add(total, mul(alone(layers, 0, view), first_ - 1));
}

Variable BnStatisticsLoss::alone(const std::vector<Layer>& layers, size_t l,
                                 const Teacher::View& view, Tensor* mean, Tensor* var) const {
  const Layer& layer = layers[l];
  const bool blended = momentum_ > 0 && layer.ema_mean.defined();
  return bn_statistics(view.bn_inputs.at(l), layer.running_mean, layer.running_var,
                       blended ? momentum_ : 0.0, layer.ema_mean, layer.ema_var, mean, var,
                       communicator(), view.bn_moments.at(l));
}

Variable BnStatisticsLoss::together(std::vector<Layer>& layers, const Teacher::View& view) {
  std::vector<BnStatisticsInput> inputs;
  for (size_t l = 0; l < layers.size(); ++l) {
    const Layer& layer = layers[l];
    inputs.push_back({view.bn_inputs.at(l), layer.running_mean, layer.running_var, layer.ema_mean,
                      layer.ema_var, view.bn_moments.at(l)});
  }
  std::vector<ChannelMoments> statistics;
  const Variable total = bn_statistics(inputs, momentum_, &statistics);
  if (momentum_ > 0)
    for (size_t l = 0; l < layers.size(); ++l) {
      keep(layers[l].last_mean, statistics[l].mean);
      keep(layers[l].last_var, statistics[l].var);
    }
  return total;
}

// What a captured step leaves behind has to stay where it is.
void BnStatisticsLoss::keep(Tensor& kept, const Tensor& value) {
  if (value.device().is_cpu()) {
    kept = value;
    return;
  }
  if (!kept.defined()) kept = Tensor::empty_like(value);
  kept.copy_(value);
}

bool BnStatisticsLoss::blends(size_t m) const {
  const std::vector<Layer>& layers = layers_.at(m);
  return !layers.empty() && layers.front().ema_mean.defined();
}

Variable BnStatisticsLoss::loss(const InversionStep& s) {
  std::vector<Variable> sums(std::move(sums_));
  sums_.clear();
  if (!ready()) {
    std::vector<double> first;
    for (const Variable& v : sums) first.push_back(v.defined() ? v.item() : 0.0);
    set_first_losses(first);
  }
  std::vector<double> weights = s.weights;
  for (size_t k = 0; k < weights.size(); ++k) weights[k] *= rho(s.asked[k]);
  return weighted_sum(sums, weights);
}

std::optional<std::string> BnStatisticsLoss::variant(const std::vector<size_t>& asked) const {
  if (!ready()) return std::nullopt;  // the first losses are read
  std::string text;
  for (const size_t m : asked) text += blends(m) ? 'b' : '-';
  return text;
}

void BnStatisticsLoss::set_first_losses(const std::vector<double>& losses) {
  double mean = 0;
  for (const double loss : losses) mean += loss / static_cast<double>(losses.size());
  rho_.clear();
  for (const double loss : losses) rho_.push_back(loss > 0 ? mean / loss : 1.0);
}

std::vector<Tensor> BnStatisticsLoss::draw(const std::vector<size_t>& asked, const Rng&) {
  asked_.insert(asked.begin(), asked.end());
  return {};
}

void BnStatisticsLoss::finish_batch(const Variable&, const Variable&) {
  for (const size_t m : asked_)
    for (Layer& layer : layers_.at(m)) {
      if (!layer.last_mean.defined()) continue;
      if (!layer.ema_mean.defined()) {
        layer.ema_mean = layer.last_mean.clone();
        layer.ema_var = layer.last_var.clone();
      } else {
        ema_update_({layer.ema_mean, layer.ema_var}, {layer.last_mean, layer.last_var}, momentum_);
      }
    }
  asked_.clear();
}

void BnStatisticsLoss::visit(State& s) {
  s("rho", rho_);
  s("asked", asked_);
  for (size_t m = 0; m < layers_.size(); ++m)
    for (size_t l = 0; l < layers_[m].size(); ++l) {
      Layer& layer = layers_[m][l];
      const auto tensor = [&](const char* name, Tensor& t) {
        s.optional(str(name, ".", m, ".", l), t, layer.running_mean.device());
      };
      tensor("ema_mean", layer.ema_mean);
      tensor("ema_var", layer.ema_var);
      tensor("last_mean", layer.last_mean);
      tensor("last_var", layer.last_var);
    }
}

}  // namespace mtcki
