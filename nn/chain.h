// A block of a network as the paper draws it, written once for training and evaluation:
//
//   Chain h = Chain(x) | conv1 | bn1 | relu | conv2 | bn2;
//   Variable y = (std::move(h) + (Chain(x) | downsample)) | relu;
//
// Nothing runs before the value is wanted. Then chain.cpp decides, and nothing else does, what runs
// as one op: where batch norms, a ReLU or the sum stand beside a convolution, its kernels do them
// when they load its input and store its output (docs/decisions/norms-in-convolutions.md). The
// values, gradients and hooks are those of the layers one after the other.
//
// The links of a Sequential stand in its place, unless it has hooks.
//
// A chain lets go of every value behind its last use, so that where no gradient is to come a
// block holds two activations; hand x over (std::move) where it is used last. A pass that a hook
// has ended (Module::add_stop_hook) leaves an undefined value, which runs no further link.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nn/layers.h"
#include "tensor/ops/pool.h"

namespace mtcki::nn {

class Chain;

struct MaxPool2d {
  Pool2dOptions options;
};
struct AvgPool2d {
  Pool2dOptions options;
};
struct Channels {
  int64_t begin, end;  // a part of them
};
struct ChannelShuffle {
  int64_t groups;
};
// Every stride-th pixel, and channels of zeros before and behind: ResNet's shortcut of option A.
struct PadShortcut {
  int64_t stride, before, after;
};
// Adaptive average pool to 7x7 (a single pixel is repeated), flattened: VGG's of torchvision.
Variable pool_7x7(const Variable& x);
struct Join {
  std::shared_ptr<Chain> shortcut;  // + shortcut
};
struct Concat {
  std::shared_ptr<Chain> more;  // channels behind those of the chain so far
};

// One link of a chain. A function is one of autograd/functions.h: relu, relu6, global_avg_pool;
// or pool_7x7. Module stands for a block that is made of links itself.
struct Link {
  using Function = Variable (*)(const Variable&);
  Link(Conv2d& layer) : what(&layer) {}        // NOLINT: chain | layer
  Link(BatchNorm2d& layer) : what(&layer) {}   // NOLINT
  Link(Linear& layer) : what(&layer) {}        // NOLINT
  Link(Module& block) : what(&block) {}        // NOLINT
  Link(Function function) : what(function) {}  // NOLINT
  Link(const MaxPool2d& pool) : what(pool) {}  // NOLINT
  Link(const AvgPool2d& pool) : what(pool) {}  // NOLINT
  Link(const Channels& part) : what(part) {}   // NOLINT
  Link(const ChannelShuffle& s) : what(s) {}   // NOLINT
  Link(const PadShortcut& pad) : what(pad) {}  // NOLINT
  explicit Link(Join join) : what(std::move(join)) {}
  explicit Link(Concat concat) : what(std::move(concat)) {}
  std::variant<Conv2d*, BatchNorm2d*, Linear*, Module*, Function, MaxPool2d, AvgPool2d, Channels,
               ChannelShuffle, PadShortcut, Join, Concat>
      what;
  std::string within;  // the Sequentials in whose place it stands: "conv.0"
};

class Chain {
 public:
  explicit Chain(Variable x) : x_(std::move(x)) {}
  Chain(Chain&&) = default;
  Chain& operator=(Chain&&) = default;

  Chain& operator|=(Link link) {
    links_.push_back(std::move(link));
    return *this;
  }
  friend Chain operator|(Chain chain, Link link) {
    chain |= std::move(link);
    return chain;
  }
  // A null pointer is the identity: the shortcut of a block that changes no shape.
  template <std::derived_from<Module> M>
  friend Chain operator|(Chain chain, M* layer) {
    if (layer != nullptr) chain |= Link(*layer);
    return chain;
  }
  // The shortcut runs when the last convolution before the sum is about to.
  friend Chain operator+(Chain chain, Chain shortcut) {
    chain |= Link(Join{std::make_shared<Chain>(std::move(shortcut))});
    return chain;
  }
  // The channels of both, one behind the other: cat(Chain(x), Chain(x) | conv).
  friend Chain cat(Chain chain, Chain more) {
    chain |= Link(Concat{std::make_shared<Chain>(std::move(more))});
    return chain;
  }

  // Runs what has been written so far; the chain goes on from there.
  const Variable& value();
  operator Variable() && {  // NOLINT: a chain is its value
    value();
    return std::move(x_);
  }

 private:
  struct Beside;
  enum class Takes;
  template <class T>
  T* layer(size_t at) const;
  Activation activation(size_t at) const;
  Chain* joined(size_t at) const;
  bool run_shortcut(size_t at) const;
  Beside behind(size_t at) const;
  Takes takes(const Conv2d& conv, const BatchNorm2d* before, Activation act,
              const Beside& with) const;
  size_t stop();
  size_t run(size_t at);
  void unfold(Link link);
  size_t run_conv(size_t at, BatchNorm2d* before, Conv2d& conv);
  size_t run_norm(size_t at, BatchNorm2d& norm);
  void run_alone(const Link& link);

  Variable x_;
  std::vector<Link> links_;
};

// Modules applied in order; children may be named freely (checkpoint names have gaps).
class Sequential : public Module {
 public:
  template <class M>
  M& add(const std::string& name, std::unique_ptr<M> child) {
    M& ref = Module::add(name, std::move(child));
    links_.emplace_back(ref);
    return ref;
  }
  template <class M, class... Arguments>
  M& add(const std::string& name, Arguments&&... arguments) {
    return add(name, std::make_unique<M>(std::forward<Arguments>(arguments)...));
  }
  // What has no name in checkpoints: a function, a pool.
  void then(Link link) { links_.push_back(std::move(link)); }

 protected:
  Variable forward(const Variable& x) override { return consume(x); }
  Variable consume(Variable x) override {
    Chain chain(std::move(x));
    for (const Link& link : links_) chain |= link;
    return chain;
  }

 private:
  friend class Chain;
  std::vector<Link> links_;
};

// What a network does with x in evaluation mode: the links of all its chains in the order of the
// pass, each by itself. What a forward computes outside of chains is not seen.
// An input is the output of an earlier step, or x; they are recognised by Variable::impl().
struct TraceStep {
  Link link;  // none is a Module; the other chain of a join or concatenation holds its value
  Variable input, output;
};
std::vector<TraceStep> trace(Module& net, const Variable& x);

}  // namespace mtcki::nn
