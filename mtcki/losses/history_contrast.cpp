#include "mtcki/losses/history_contrast.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "autograd/functions.h"
#include "nn/state_dict.h"
#include "tensor/ops/index.h"

namespace mtcki {

Variable contrast_loss(nn::Module& head, const Variable& local, const Tensor& global,
                       const MemoryBank::Draw& draw, double tau, const Tensor& positive) {
  const int64_t batch = local.size(0);
  const int64_t past = draw.local.defined() ? draw.local.size(0) : 0;
  const Device device = local.data().device();
  // Two products instead of one over joined rows: bank rows then cost no input gradient, no copy.
  Variable u = normalize(head(local));
  if (past > 0) u = cat(std::vector<Variable>{u, normalize(head(Variable(draw.local)))});
  Tensor v;
  {
    const NoGradScope no_grad;
    Variable keys = normalize(head(Variable(global)));
    if (past > 0) keys = cat(std::vector<Variable>{keys, normalize(head(Variable(draw.global)))});
    v = keys.data();
  }
  Tensor row_weights =
      Tensor::full({batch}, 1.0 / static_cast<double>(batch), local.data().dtype(), device);
  if (past > 0)
    row_weights =
        cat(std::vector<Tensor>{row_weights, Tensor::full({past}, 1.0 / static_cast<double>(past),
                                                          local.data().dtype(), device)});
  return info_nce(u, Variable(v),
                  positive.defined() ? positive : diagonal_positives(batch + past, device), tau,
                  row_weights);
}

HistoryContrast::HistoryContrast(const Teachers& teachers, const SynthesisConfig& config,
                                 int64_t rows, uint64_t seed)
    : mode_(config.cr_mode),
      stage_(config.cr_features == "stage"),
      tau_(config.cr_tau),
      draw_(config.bank_draw),
      diagonal_(teachers.device()) {
  for (size_t m = 0; m < teachers.size(); ++m) {
    const auto& channels = stage_ ? teachers[m].stage_channels() : teachers[m].bn_channels();
    dims_.push_back(std::accumulate(channels.begin(), channels.end(), int64_t{0}));
    if (uses(m) && dims_.back() == 0)
      throw UsageError(str("teacher ", teachers[m].name(),
                           " has no layers to contrast; set synthesis.cr_features = \"stage\" or "
                           "synthesis.cr = 0"));
  }
  std::vector<int64_t> widths;
  if (mode_ == "each") {
    widths = dims_;
  } else if (mode_ == "first") {
    widths = {dims_.at(0)};
  } else {
    widths = {std::accumulate(dims_.begin(), dims_.end(), int64_t{0})};
  }
  nn::Init init(seed);
  init.rng.stream = rng_stream("synthesis/contrast_head");
  const DType dtype = config.bank_dtype == "bf16" ? DType::bf16 : DType::f32;
  const int64_t capacity = std::max<int64_t>(1, std::min(config.bank_size, rows));
  const Device device = teachers.device();
  std::vector<optim::ParameterGroup> groups(widths.size());  // heads may differ in updates
  for (size_t h = 0; h < widths.size(); ++h) {
    heads_.push_back(projection_head(widths[h], config.head_dim, init));
    heads_.back()->to(device);
    banks_.emplace_back(capacity, widths[h], dtype, device);
    for (auto& [name, p] : heads_.back()->named_parameters())
      groups[h].parameters.emplace_back(str(h, ".", name), *p);
  }
  optim::AdamOptions adam;
  adam.lr = config.lr_g;
  optimizer_ = optim::make_adam(std::move(groups), adam);
}

Variable HistoryContrast::features(size_t m, const Teacher::View& view) const {
  std::vector<Variable> pooled;
  for (const Variable& x : stage_ ? view.stage_inputs : view.bn_inputs)
    pooled.push_back(global_avg_pool(x));
  Variable phi = pooled.size() == 1 ? pooled[0] : cat(pooled, 1);
  // Heads, bank and loss are f32 in every precision.
  if (phi.data().dtype() == DType::bf16) phi = cast(phi, DType::f32);
  return mode_ == "cat" ? mul(phi, 1.0 / std::sqrt(static_cast<double>(dims_.at(m)))) : phi;
}

std::vector<Variable> HistoryContrast::join(const std::vector<Variable>& per_teacher) const {
  if (mode_ == "each") return per_teacher;
  if (mode_ == "first" || per_teacher.size() == 1)
    return std::vector<Variable>(1, per_teacher.at(0));
  std::vector<Variable> joined;
  joined.push_back(cat(per_teacher, 1));
  return joined;
}

bool HistoryContrast::asked(size_t h, const std::vector<size_t>& subset) const {
  return mode_ == "cat" || subset.empty() ||
         std::find(subset.begin(), subset.end(), h) != subset.end();
}

std::vector<Tensor> HistoryContrast::draw_indices(const std::vector<size_t>& subset,
                                                  const Rng& rng) const {
  std::vector<Tensor> indices;
  for (size_t h = 0; h < banks_.size(); ++h) {
    Rng own = rng;  // every bank its own draw
    own.stream += static_cast<uint32_t>(h);
    indices.push_back(asked(h, subset) ? banks_[h].draw_index(draw_, own) : Tensor());
  }
  return indices;
}

std::vector<MemoryBank::Draw> HistoryContrast::rows(const std::vector<Tensor>& indices) const {
  std::vector<MemoryBank::Draw> draws;
  for (size_t h = 0; h < banks_.size(); ++h) draws.push_back(banks_[h].rows(indices.at(h)));
  return draws;
}

Variable HistoryContrast::loss(const std::vector<Variable>& local,
                               const std::vector<Tensor>& global,
                               const std::vector<double>& weights,
                               const std::vector<MemoryBank::Draw>& draws) {
  Variable total;
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (!local[h].defined()) continue;
    const Tensor& past = draws[h].local;
    const int64_t keys = local[h].size(0) + (past.defined() ? past.size(0) : 0);
    Variable term =
        contrast_loss(*heads_[h], local[h], global[h], draws[h], tau_, diagonal_.of(keys));
    if (weights[h] != 1.0) term = mul(term, weights[h]);
    total = total.defined() ? mtcki::add(total, term) : term;
  }
  return total;
}

double HistoryContrast::chance(const std::vector<Variable>& local,
                               const std::vector<double>& weights,
                               const std::vector<MemoryBank::Draw>& draws) const {
  double total = 0;
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (!local[h].defined()) continue;
    const int64_t past = draws[h].local.defined() ? draws[h].local.size(0) : 0;
    total +=
        weights[h] * (past > 0 ? 2 : 1) * std::log(static_cast<double>(local[h].size(0) + past));
  }
  return total;
}

void HistoryContrast::add(const std::vector<Tensor>& local, const std::vector<Tensor>& global) {
  for (size_t h = 0; h < banks_.size(); ++h) banks_[h].add(local.at(h), global.at(h));
}

nn::StateDict HistoryContrast::state_dict() const {
  nn::StateDict out;
  for (size_t h = 0; h < heads_.size(); ++h)
    append(out, heads_[h]->state_dict(), str("head.", h, "."));
  append(out, optimizer_->state_dict(), "optim.");
  return out;
}

void HistoryContrast::load_state_dict(const nn::StateDict& state) {
  for (size_t h = 0; h < heads_.size(); ++h)
    heads_[h]->load_state_dict(under(state, str("head.", h, ".")));
  optimizer_->load_state_dict(under(state, "optim."));
}

}  // namespace mtcki
