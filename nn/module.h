// Module: named parameters, buffers and children, with the names of the field's checkpoints.
//
// operator() is not virtual: it is the one place that runs hooks, puts the module's name into the
// path that errors and the profiler show, and calls the virtual forward(). train()/eval() and
// requires_grad are separate switches.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/variable.h"
#include "nn/precision.h"
#include "tensor/context.h"

namespace mtcki::nn {

// Insertion-ordered (registration order = PyTorch's state_dict order).
template <class T>
using NamedList = std::vector<std::pair<std::string, T>>;
using StateDict = NamedList<Tensor>;  // always plain NCHW/OIHW tensors on the CPU

class Module;
struct HookTable;
struct Init;  // nn/layers.h

// Removes its hook when destroyed; harmless when the module went first.
class [[nodiscard]] HookHandle {
 public:
  HookHandle() = default;
  HookHandle(std::weak_ptr<HookTable> table, int id) : table_(std::move(table)), id_(id) {}
  HookHandle(HookHandle&& o) noexcept : table_(std::move(o.table_)), id_(o.id_) {}
  HookHandle& operator=(HookHandle&& o) noexcept;
  ~HookHandle() { remove(); }
  void remove();

 private:
  std::weak_ptr<HookTable> table_;
  int id_ = 0;
};

class Module {
 public:
  // before: sees the input; after: sees input and output. Hooks must not replace values.
  using BeforeHook = std::function<void(const Module&, const Variable& input)>;
  using AfterHook =
      std::function<void(const Module&, const Variable& input, const Variable& output)>;
  // true: the pass ends at this module. It and all that it would have gone through return an
  // undefined Variable, and no after hook sees one (nn/chain.h).
  using StopHook = std::function<bool(const Module&, const Variable& input)>;

  Module();
  virtual ~Module();
  Module(const Module&) = delete;  // identity matters: parents, hooks and optimisers hold it
  Module& operator=(const Module&) = delete;

  Variable operator()(const Variable& x) {
    return call(x, [&] { return forward(x); });
  }
  // Of an input that the caller gives away. Where no gradient is to come, a chain of modules then
  // frees it as soon as it has been used, and holds one activation less.
  Variable operator()(Variable&& x) {
    if (has_hooks()) return (*this)(x);  // they see the input behind its use
    return call(x, [&] { return consume(std::move(x)); });
  }

  // Depth-first in registration order; names joined with '.'.
  NamedList<Variable*> named_parameters();
  NamedList<Tensor*> named_buffers();
  NamedList<Module*> named_modules();  // itself first, under ""
  std::vector<Variable> parameters();  // handles: share data and grad with the module's

  void train(bool on = true);
  void eval() { train(false); }
  bool training() const { return training_; }
  void set_requires_grad(bool on);
  // Of this module and all below it. Parameters and buffers stay as they are.
  void set_precision(Precision precision);
  Precision precision() const { return precision_; }
  // Promises that no weight below changes again (frozen teachers): captured steps keep their copies
  // of them (Conv2dOptions::constant_weight).
  void set_constant_weights(bool on);
  bool constant_weights() const { return constant_weights_; }
  // In training, outputs of batch norms are computed again in the backward where only convolutions
  // need them there: the same bits, less memory, one more pass over each (functions/norm.cpp).
  void set_recompute(bool on);
  bool recompute() const { return recompute_; }
  void zero_grad();
  // Moves parameters, their gradients and floating buffers, in place: names and handles stay.
  // Parameters of rank 4 become channels_last on the GPU and plain on the CPU.
  // Integer buffers are counters, which the host keeps.
  void to(Device device);
  Device device();  // of the first parameter; the CPU when there is none
  int64_t parameter_count();

  // Parameters and buffers in PyTorch's order: own parameters, own buffers, then children. The
  // tensors are copies on the CPU: a snapshot, which later training does not change.
  StateDict state_dict();
  // Copies into the tensors as they are, on whichever device.
  // Strict: one DataError lists all missing, unexpected and mis-shaped names, each with the nearest
  // name, and nothing is changed. Accepted with a note to `notes` (may be null): f16/bf16/f64
  // values, absent num_batches_tracked, a "module." prefix (at the front or inside, as
  // "features.module.").
  void load_state_dict(const StateDict& state, std::vector<std::string>* notes = nullptr);

  [[nodiscard]] HookHandle add_before_hook(BeforeHook hook);
  [[nodiscard]] HookHandle add_stop_hook(StopHook hook);
  [[nodiscard]] HookHandle add_after_hook(AfterHook hook);
  bool has_hooks() const;

  const std::string& name() const { return name_; }  // as registered in the parent
  virtual std::string kind() const;                  // the class's name: "Conv2d"
  // Redraws the module's own parameters as a generator begins with them: weights ~ N(0, 0.02), those
  // of a batch norm ~ N(1, 0.02) with fresh running statistics, biases 0.
  virtual void reset_parameters(Init& /*init*/) {}
  // Multiply-accumulates of one forward on an input of this shape, for leaves that have any.
  virtual double macs(const Shape& input, const Shape& output) const;

 protected:
  virtual Variable forward(const Variable& x) = 0;
  // The same of an input that nobody else needs; for modules that can drop it before they end.
  virtual Variable consume(Variable x) { return forward(x); }
  // Runs `body` as the forward of this module: hooks, path. For forwards with more arguments.
  template <class Body>
  Variable call(const Variable& x, const Body& body) {
    const ContextScope scope(ContextScope::Kind::module, name_);
    require_input(x);
    if (has_hooks() && !run_before_hooks(x)) return {};
    Variable y = body();
    if (has_hooks() && y.defined()) run_after_hooks(x, y);
    return y;
  }

  Variable& register_parameter(const std::string& name, const Tensor& value);
  Tensor& register_buffer(const std::string& name, const Tensor& value);
  // Takes ownership and returns a reference: conv1_(add("conv1", std::make_unique<Conv2d>(...))), or
  // shorter, fc1_(add<Linear>("fc1", 784, 256, true, init)).
  template <class M>
  M& add(const std::string& name, std::unique_ptr<M> child) {
    M& ref = *child;
    register_child(name, std::move(child));
    return ref;
  }
  template <class M, class... Arguments>
  M& add(const std::string& name, Arguments&&... arguments) {
    return add(name, std::make_unique<M>(std::forward<Arguments>(arguments)...));
  }

 private:
  void register_child(const std::string& name, std::unique_ptr<Module> child);
  void check_new_name(const std::string& name) const;
  void require_input(const Variable& x) const;
  bool run_before_hooks(const Variable& x) const;  // false: one of them ends the pass
  void run_after_hooks(const Variable& x, const Variable& y) const;

  std::string name_;
  bool training_ = true;
  Precision precision_ = Precision::f32;
  bool recompute_ = false;
  bool constant_weights_ = false;
  // Stable addresses: references returned by register_* stay valid.
  NamedList<std::unique_ptr<Variable>> parameters_;
  NamedList<std::unique_ptr<Tensor>> buffers_;
  NamedList<std::unique_ptr<Module>> children_;
  std::shared_ptr<HookTable> hooks_;  // handles hold it weakly
};

// Evaluation mode for every module below `root`; then each has its own mode again.
class EvalScope {
 public:
  explicit EvalScope(Module& root);
  ~EvalScope();
  EvalScope(const EvalScope&) = delete;
  EvalScope& operator=(const EvalScope&) = delete;

 private:
  std::vector<std::pair<Module*, bool>> modes_;
};

struct HookTable {
  std::map<int, Module::StopHook> before;
  std::map<int, Module::AfterHook> after;
  int next = 1;
};

}  // namespace mtcki::nn
