#include "mtcki/losses/history_contrast.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "autograd/functions.h"
#include "tensor/ops/index.h"

namespace mtcki {

Variable contrast_loss(nn::Module& head, const Variable& local, const Tensor& global,
                       const MemoryBank::Draw& draw, double tau) {
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
  return info_nce(u, Variable(v), tau, row_weights);
}

HistoryContrast::HistoryContrast(Teachers& teachers, const SynthesisConfig& config, int64_t rows,
                                 uint64_t seed)
    : teachers_(teachers),
      mode_(config.cr_mode),
      stage_(config.cr_features == CrFeatures::stage),
      tau_(config.cr_tau),
      draw_(config.bank_draw) {
  if (config.teachers_per_step > 0 && mode_ == CrMode::cat &&
      config.teachers_per_step < std::ssize(teachers))
    throw UsageError(
        "synthesis.cr_mode = \"cat\" joins the features of all teachers and cannot go with "
        "synthesis.teachers_per_step; use cr_mode \"each\" or \"first\"");
  for (size_t m = 0; m < teachers.size(); ++m) {
    const auto& channels = stage_ ? teachers[m].stage_channels() : teachers[m].bn_channels();
    dims_.push_back(std::accumulate(channels.begin(), channels.end(), int64_t{0}));
    if (uses(m) && dims_.back() == 0)
      throw UsageError(str("teacher ", teachers[m].name(),
                           " has no layers to contrast; set synthesis.cr_features = \"stage\" or "
                           "synthesis.cr = 0"));
  }
  std::vector<int64_t> widths;
  if (mode_ == CrMode::each) {
    widths = dims_;
  } else if (mode_ == CrMode::first) {
    widths = {dims_.at(0)};
  } else {
    widths = {std::accumulate(dims_.begin(), dims_.end(), int64_t{0})};
  }
  nn::Init init(seed);
  init.rng.stream = rng_stream("synthesis/contrast_head");
  const int64_t capacity = std::max<int64_t>(1, std::min(config.bank_size, rows));
  const Device device = teachers.device();
  std::vector<optim::ParameterGroup> groups(widths.size());  // heads may differ in updates
  for (size_t h = 0; h < widths.size(); ++h) {
    heads_.push_back(projection_head(widths[h], config.head_dim, init));
    heads_.back()->to(device);
    banks_.emplace_back(capacity, widths[h], config.bank_dtype, device);
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
  return all_rows(mode_ == CrMode::cat ? mul(phi, 1.0 / std::sqrt(static_cast<double>(dims_.at(m))))
                                       : phi);
}

std::vector<Variable> HistoryContrast::join(const std::vector<Variable>& per_teacher) const {
  if (mode_ == CrMode::each) return per_teacher;
  if (mode_ == CrMode::first || per_teacher.size() == 1)
    return std::vector<Variable>(1, per_teacher.at(0));
  std::vector<Variable> joined;
  joined.push_back(cat(per_teacher, 1));
  return joined;
}

bool HistoryContrast::asked(size_t h, const std::vector<size_t>& subset) const {
  return mode_ == CrMode::cat || std::ranges::find(subset, h) != subset.end();
}

Needs HistoryContrast::needs(size_t m) const {
  if (!uses(m)) return {};
  return {taps(), taps()};
}

std::vector<Tensor> HistoryContrast::draw(const std::vector<size_t>& subset, const Rng& rng) {
  std::vector<Tensor> indices;
  for (size_t h = 0; h < banks_.size(); ++h) {
    Rng own = rng;  // every bank its own draw
    own.stream += static_cast<uint32_t>(h);
    indices.push_back(asked(h, subset) ? banks_[h].draw_index(draw_, own) : Tensor());
  }
  return indices;
}

void HistoryContrast::see(const InversionStep& s, size_t k) {
  if (k == 0) local_.clear(), global_.clear();  // of a step that failed
  const size_t m = s.asked[k];
  if (!uses(m)) return;
  local_.resize(dims_.size());
  global_.resize(dims_.size());
  {
    const NoGradScope keys;  // the global side of the contrast gets no gradient
    global_[m] = features(m, s.global[k]);
  }
  local_[m] = features(m, s.local[k]);
}

Variable HistoryContrast::loss(const InversionStep& s) {
  if (local_.empty()) return {};  // no asked teacher takes part
  const std::vector<Variable> local = join(std::exchange(local_, {}));
  const std::vector<Variable> global = join(std::exchange(global_, {}));
  // What makes sums over a part of the teachers unbiased.
  const double boost = static_cast<double>(dims_.size()) / static_cast<double>(s.asked.size());
  Variable total;
  chance_ = 0;
  for (size_t h = 0; h < heads_.size(); ++h) {
    if (!local[h].defined()) continue;
    const MemoryBank::Draw past = banks_[h].rows(s.drawn.at(h));
    const bool any = past.local.defined() && past.local.size(0) > 0;
    const int64_t keys = local[h].size(0) + (any ? past.local.size(0) : 0);
    Variable term = contrast_loss(*heads_[h], local[h], global[h].data(), past, tau_);
    const double weight = mode_ == CrMode::each    ? teachers_.weights()[h] * boost
                          : mode_ == CrMode::first ? boost
                                                   : 1.0;
    chance_ += weight * (any ? 2 : 1) * std::log(static_cast<double>(keys));
    if (weight != 1.0) term = mul(term, weight);
    total = total.defined() ? mtcki::add(total, term) : term;
  }
  return total;
}

void HistoryContrast::finish_batch(const Variable& global_view, const Variable& local_view) {
  std::vector<Variable> local(dims_.size()), global(dims_.size());
  for (size_t m = 0; m < dims_.size(); ++m) {
    if (!uses(m)) continue;
    const auto phi = [&](const Variable& x) {
      return features(m, teachers_[m].view(x, taps() | Teacher::kTapsOnly));
    };
    local[m] = phi(local_view);
    global[m] = phi(global_view);
  }
  latest_ = {};
  for (const Variable& v : join(local)) latest_.local.push_back(v.data().to(Device::cpu()));
  for (const Variable& v : join(global)) latest_.global.push_back(v.data().to(Device::cpu()));
  add(latest_.local, latest_.global);
}

void HistoryContrast::add(const std::vector<Tensor>& local, const std::vector<Tensor>& global) {
  for (size_t h = 0; h < banks_.size(); ++h) banks_[h].add(local.at(h), global.at(h));
}

void HistoryContrast::visit(State& s) {
  for (size_t h = 0; h < heads_.size(); ++h) s(str("head.", h), *heads_[h]);
  s("optim", *optimizer_);
}

}  // namespace mtcki
