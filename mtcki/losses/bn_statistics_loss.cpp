#include "mtcki/losses/bn_statistics_loss.h"

#include "autograd/parallel.h"
#include "tensor/ops/update.h"

namespace mtcki {

BnStatisticsLoss::BnStatisticsLoss(const Teachers& teachers, std::string reduce, double momentum)
    : reduce_(std::move(reduce)), momentum_(momentum) {
  double total = 0;
  for (size_t m = 0; m < teachers.size(); ++m) {
    std::vector<Layer> layers;
    for (const nn::BatchNorm2d* bn : teachers[m].batch_norms()) {
      Layer layer;
      layer.running_mean = bn->running_mean;
      layer.running_var = bn->running_var;
      layers.push_back(layer);
    }
    total += static_cast<double>(layers.size());
    layers_.push_back(std::move(layers));
  }
  if (reduce_ == "init") return;
  for (const auto& layers : layers_)
    rho_.push_back(reduce_ == "sum" || layers.empty()
                       ? 1.0
                       : total / static_cast<double>(layers_.size() * layers.size()));
}

Variable BnStatisticsLoss::layers(size_t m, const Teacher::View& view) {
  std::vector<Layer>& layers = layers_.at(m);
  if (layers.empty()) return {};
  if (communicator().size() == 1) return together(layers, view);
  Variable total;
  for (size_t l = 0; l < layers.size(); ++l) {
    Layer& layer = layers[l];
    const bool blended = momentum_ > 0 && layer.ema_mean.defined();
    Tensor mean, var;
    const Variable loss = bn_statistics(view.bn_inputs.at(l), layer.running_mean, layer.running_var,
                                        blended ? momentum_ : 0.0, layer.ema_mean, layer.ema_var,
                                        &mean, &var, communicator(), view.bn_moments.at(l));
    if (momentum_ > 0) {
      keep(layer.last_mean, mean);
      keep(layer.last_var, var);
    }
    total = total.defined() ? add(total, loss) : loss;
  }
  return total;
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

void BnStatisticsLoss::set_first_losses(const std::vector<double>& losses) {
  double mean = 0;
  for (const double loss : losses) mean += loss / static_cast<double>(losses.size());
  rho_.clear();
  for (const double loss : losses) rho_.push_back(loss > 0 ? mean / loss : 1.0);
}

void BnStatisticsLoss::finish_batch(const std::set<size_t>& asked) {
  if (momentum_ <= 0) return;
  for (const size_t m : asked)
    for (Layer& layer : layers_.at(m)) {
      if (!layer.last_mean.defined()) continue;
      if (!layer.ema_mean.defined()) {
        layer.ema_mean = layer.last_mean.clone();
        layer.ema_var = layer.last_var.clone();
      } else {
        ema_update_({layer.ema_mean, layer.ema_var}, {layer.last_mean, layer.last_var}, momentum_);
      }
    }
}

nn::StateDict BnStatisticsLoss::state_dict() const {
  nn::StateDict out;
  if (reduce_ == "init" && !rho_.empty())
    out.emplace_back("rho", Tensor::from(rho_, {static_cast<int64_t>(rho_.size())}));
  for (size_t m = 0; m < layers_.size(); ++m)
    for (size_t l = 0; l < layers_[m].size(); ++l) {
      const Layer& layer = layers_[m][l];
      for (const auto& [name, tensor] : {std::pair{"ema_mean", layer.ema_mean},
                                         {"ema_var", layer.ema_var},
                                         {"last_mean", layer.last_mean},
                                         {"last_var", layer.last_var}})
        if (tensor.defined()) out.emplace_back(str(name, ".", m, ".", l), tensor);
    }
  return out;
}

void BnStatisticsLoss::load_state_dict(const nn::StateDict& state) {
  for (const auto& [key, tensor] : state) {
    if (key == "rho") {
      rho_ = tensor.to_vector<double>();
      continue;
    }
    const size_t dot = key.find('.'), second = key.find('.', dot + 1);
    if (dot == std::string::npos || second == std::string::npos)
      throw DataError(str("bn_statistics state: unexpected entry ", key));
    Layer& layer =
        layers_.at(std::stoul(key.substr(dot + 1))).at(std::stoul(key.substr(second + 1)));
    const std::string name = key.substr(0, dot);
    Tensor& target = name == "ema_mean"    ? layer.ema_mean
                     : name == "ema_var"   ? layer.ema_var
                     : name == "last_mean" ? layer.last_mean
                                           : layer.last_var;
    target = tensor.clone().to(layer.running_mean.device());
  }
}

}  // namespace mtcki
