#include "nn/chain.h"

#include <optional>

#include "autograd/functions.h"

namespace mtcki::nn {

Variable pool_7x7(const Variable& x) { return flatten(adaptive_avg_pool2d(x, 7, 7)); }

namespace {

thread_local std::vector<TraceStep>* tracing = nullptr;

bool wants_gradient(const Conv2d& conv, const Variable& x, const Variable& residual) {
  return grad_enabled() &&
         (x.requires_grad() || residual.requires_grad() || conv.weight.requires_grad() ||
          (conv.bias != nullptr && conv.bias->requires_grad()));
}

// Whether bn is nothing but an affine map here.
bool only_maps(const BatchNorm2d& bn) {
  const bool trains =
      bn.training() || (grad_enabled() && (bn.weight.requires_grad() || bn.bias.requires_grad()));
  return !trains && !bn.keeps_moments() && !bn.has_hooks();
}

ConvFusion::BatchNorm frozen(const BatchNorm2d& bn) {
  return {bn.weight.data(), bn.bias.data(), bn.running_mean, bn.running_var, bn.eps()};
}

// The path of what runs a link.
struct Place {
  std::optional<ContextScope> scope;
  explicit Place(const Link& link) {
    if (!link.within.empty()) scope.emplace(ContextScope::Kind::module, link.within);
  }
};

}  // namespace

// [norm] [+ shortcut] [relu or relu6], as far as it stands there.
struct Chain::Beside {
  BatchNorm2d* norm = nullptr;
  Chain* shortcut = nullptr;
  Activation act = {};
  size_t next = 0;
  Variable value() const { return shortcut != nullptr ? shortcut->x_ : Variable(); }
  // Of a shortcut that nobody else holds, a kernel may take the memory.
  Tensor take() const {
    const Variable v = shortcut != nullptr ? std::move(shortcut->x_) : Variable();
    return v.defined() ? v.data() : Tensor();
  }
};

enum class Chain::Takes {
  nothing,
  all,          // evaluation: batch norms before and behind, sum and ReLU
  norm_before,  // training: the batch norm before, and a sum directly behind
  sum,          // directly behind
};

namespace {

// One link by itself.
struct Run {
  Variable x;
  template <class Layer>
  Variable operator()(Layer* layer) {
    return (*layer)(std::move(x));
  }
  Variable operator()(Link::Function function) const { return function(x); }
  Variable operator()(const MaxPool2d& pool) const { return max_pool2d(x, pool.options); }
  Variable operator()(const AvgPool2d& pool) const { return avg_pool2d(x, pool.options); }
  Variable operator()(const Channels& part) const { return narrow(x, 1, part.begin, part.end); }
  Variable operator()(const ChannelShuffle& s) const { return channel_shuffle(x, s.groups); }
  Variable operator()(const PadShortcut& p) const {
    return subsample_pad_channels(x, p.stride, p.before, p.after);
  }
  Variable operator()(const Join& join) const {
    const Variable& shortcut = join.shortcut->value();
    return shortcut.defined() ? add(x, shortcut) : Variable();
  }
  Variable operator()(const Concat& concat) const {
    const Variable& more = concat.more->value();
    return more.defined() ? cat({x, more}, 1) : Variable();
  }
};

}  // namespace

template <class T>
T* Chain::layer(size_t at) const {
  T* const* found = at < links_.size() ? std::get_if<T*>(&links_[at].what) : nullptr;
  return found != nullptr ? *found : nullptr;
}

Activation Chain::activation(size_t at) const {
  const auto* found = at < links_.size() ? std::get_if<Link::Function>(&links_[at].what) : nullptr;
  if (found == nullptr) return {};
  if (*found == static_cast<Link::Function>(relu)) return Activation::relu();
  return *found == static_cast<Link::Function>(relu6) ? Activation::bounded_relu(6.0)
                                                      : Activation::none();
}

Chain* Chain::joined(size_t at) const {
  const auto* join = at < links_.size() ? std::get_if<Join>(&links_[at].what) : nullptr;
  return join != nullptr ? join->shortcut.get() : nullptr;
}

Chain::Beside Chain::behind(size_t at) const {
  Beside b;
  if ((b.norm = layer<BatchNorm2d>(at)) != nullptr) ++at;
  if ((b.shortcut = joined(at)) != nullptr) ++at;
  if ((b.act = activation(at)).kind != Activation::Kind::none) ++at;
  b.next = at;
  return b;
}

// Runs the shortcut whose sum no further convolution precedes; false: a hook ended the pass there.
bool Chain::run_shortcut(size_t at) const {
  for (; at < links_.size() && !layer<Conv2d>(at) && !layer<Module>(at); ++at)
    if (Chain* shortcut = joined(at)) return shortcut->value().defined();
  return true;
}

size_t Chain::stop() {
  x_ = Variable();
  return links_.size();
}

void Chain::unfold(Link link) {
  Module* const* block = std::get_if<Module*>(&link.what);
  const auto* row = block != nullptr ? dynamic_cast<const Sequential*>(*block) : nullptr;
  if (row == nullptr || row->has_hooks()) return links_.push_back(std::move(link));
  for (Link inner : row->links_) {
    inner.within = link.within.empty() ? row->name() : str(link.within, ".", row->name());
    unfold(std::move(inner));
  }
}

const Variable& Chain::value() {
  for (Link& link : std::exchange(links_, {})) unfold(std::move(link));
  for (size_t at = 0; at < links_.size() && x_.defined();) at = run(at);
  links_.clear();
  return x_;
}

// Runs the links from `at` on that one op does; returns the place of the next.
size_t Chain::run(size_t at) {
  BatchNorm2d* norm = layer<BatchNorm2d>(at);
  Conv2d* conv = layer<Conv2d>(at);
  if (norm != nullptr && activation(at + 1).kind != Activation::Kind::none)
    conv = layer<Conv2d>(at + 2);
  if (tracing == nullptr && conv != nullptr) return run_conv(at, norm, *conv);
  if (tracing == nullptr && norm != nullptr) return run_norm(at, *norm);
  run_alone(links_[at]);
  return at + 1;
}

// What a convolution does of conv(act(before(x))) and of the links behind it.
Chain::Takes Chain::takes(const Conv2d& conv, const BatchNorm2d* before, Activation act,
                          const Beside& with) const {
  if (conv.has_hooks()) return Takes::nothing;
  const bool maps =
      with.norm != nullptr && only_maps(*with.norm) && (before == nullptr || only_maps(*before));
  if (maps && !wants_gradient(conv, x_, with.value())) return Takes::all;
  if (before == nullptr) return with.norm == nullptr && with.shortcut ? Takes::sum : Takes::nothing;
  return before->training() && before->communicator().size() == 1 && !before->has_hooks() &&
                 conv.normalises(x_, act)
             ? Takes::norm_before
             : Takes::nothing;
}

size_t Chain::run_conv(size_t at, BatchNorm2d* before, Conv2d& conv) {
  const size_t next = at + (before != nullptr ? 3 : 1);
  if (!run_shortcut(next)) return stop();
  Beside with = behind(next);
  const Activation between = before != nullptr ? activation(at + 1) : Activation::none();
  const Takes what = takes(conv, before, between, with);
  if (before != nullptr && what == Takes::nothing) return run_norm(at, *before);
  const Place place(links_[next - 1]);
  ConvFusion fusion;
  switch (what) {
    case Takes::all:
      if (before != nullptr) {
        fusion.norm_before = frozen(*before);
        fusion.norm_before->relu = between;
      }
      fusion.norm = frozen(*with.norm);
      fusion.act = with.act;
      fusion.residual = with.take();
      x_ = conv(x_, std::move(fusion));
      return with.next;
    case Takes::norm_before:
      if (with.norm != nullptr) with = {};
      x_ = conv(x_, *before, between, with.value());
      return next + (with.shortcut != nullptr ? 1 : 0);
    case Takes::sum:
      if (wants_gradient(conv, x_, with.value())) {
        x_ = conv(x_, with.value());
      } else {
        fusion.residual = with.take();
        x_ = conv(x_, std::move(fusion));
      }
      return next + 1;
    case Takes::nothing:
      break;
  }
  x_ = conv(x_);
  return next;
}

// act(norm(x) + shortcut) is one op.
size_t Chain::run_norm(size_t at, BatchNorm2d& norm) {
  const Beside with = behind(at);
  if (with.shortcut != nullptr && !with.shortcut->value().defined()) return stop();
  const Place place(links_[at]);
  x_ = norm(x_, with.act, with.value());
  return with.next;
}

void Chain::run_alone(const Link& link) {
  const Variable input = tracing != nullptr ? x_ : Variable();
  const bool block = std::holds_alternative<Module*>(link.what);
  const Place place(link);
  x_ = std::visit(Run{std::move(x_)}, link.what);
  if (tracing != nullptr && !block) tracing->push_back({link, input, x_});
}

std::vector<TraceStep> trace(Module& net, const Variable& x) {
  struct Scope {
    std::vector<TraceStep> steps;
    Scope() { tracing = &steps; }
    ~Scope() { tracing = nullptr; }
  } scope;
  const EvalScope eval(net);
  const NoGradScope no_grad;
  net(x);
  return std::move(scope.steps);
}

}  // namespace mtcki::nn
