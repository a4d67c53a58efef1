#include <map>

#include "optim/optimizer.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/op_error.h"

namespace mtcki::optim {

namespace {

constexpr char kPrefix[] = "ema.";

}  // namespace

ModuleEma::ModuleEma(nn::Module& source, double decay)
    : source_(source), decay_(decay), average_(source.state_dict()) {
  if (!(decay >= 0.0 && decay <= 1.0))
    throw UsageError(str("ema: decay ", decay, " is outside [0, 1]"));
  // Beside the parameters and in their layouts; counters stay on the host.
  std::map<std::string, Layout> layouts;
  for (auto& [name, p] : source.named_parameters()) layouts.emplace(name, p->data().layout());
  for (auto& [name, average] : average_) {
    if (!is_floating(average.dtype())) continue;
    const auto it = layouts.find(name);
    average = average.to(source.device());
    if (it != layouts.end()) average = average.to(it->second);
  }
}

void ModuleEma::update() {
  std::map<std::string, Tensor> current;
  for (auto& [name, p] : source_.named_parameters()) current.emplace(name, p->data());
  std::vector<Tensor> dst, src;
  for (auto& [name, average] : average_) {
    const auto it = current.find(name);
    if (it == current.end()) continue;
    dst.push_back(average);
    src.push_back(it->second);
  }
  ema_update_(dst, src, decay_);
  std::map<std::string, Tensor> buffers;
  for (auto& [name, b] : source_.named_buffers()) buffers.emplace(name, *b);
  for (auto& [name, average] : average_)
    if (const auto it = buffers.find(name); it != buffers.end()) {
      if (it->second.device().is_cuda()) {
        average.copy_(it->second);
      } else {
        host_work([to = average, from = it->second]() mutable { to.copy_(from); });
      }
    }
}

void ModuleEma::copy_to(nn::Module& target) const { target.load_state_dict(average_); }

nn::StateDict ModuleEma::state_dict() const {
  nn::StateDict out;
  for (const auto& [name, average] : average_)
    out.emplace_back(kPrefix + name, average.device().is_cpu() ? average.plain().clone()
                                                               : average.to(Device::cpu()).plain());
  return out;
}

void ModuleEma::load_state_dict(const nn::StateDict& state) {
  std::map<std::string, Tensor> given(state.begin(), state.end());
  std::string problems;
  for (const auto& [name, average] : average_) {
    const auto it = given.find(kPrefix + name);
    if (it == given.end()) {
      problems += "\n  missing     " + (kPrefix + name);
    } else if (it->second.shape() != average.shape()) {
      problems += str("\n  mismatch    ", kPrefix, name, ": file has ",
                      it->second.shape().to_string(), ", expected ", average.shape().to_string());
    }
  }
  if (given.size() > average_.size() && problems.empty())
    problems = str("\n  unexpected  ", given.size() - average_.size(), " further names");
  if (!problems.empty()) throw DataError("ema load_state_dict: the state does not fit" + problems);
  for (auto& [name, average] : average_) average.copy_(given.at(kPrefix + name));
}

}  // namespace mtcki::optim
