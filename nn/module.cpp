#include "nn/module.h"

#include <cxxabi.h>

#include <cstdlib>
#include <typeinfo>

#include "tensor/op_error.h"

namespace mtcki::nn {

HookHandle& HookHandle::operator=(HookHandle&& o) noexcept {
  if (this != &o) {
    remove();
    table_ = std::move(o.table_);
    id_ = o.id_;
  }
  return *this;
}

void HookHandle::remove() {
  if (const auto table = table_.lock()) {
    table->before.erase(id_);
    table->after.erase(id_);
  }
  table_.reset();
}

Module::Module() : hooks_(std::make_shared<HookTable>()) {}
Module::~Module() = default;

std::string Module::kind() const {  // without its namespaces
  const char* mangled = typeid(*this).name();
  const std::unique_ptr<char, void (*)(void*)> readable(
      abi::__cxa_demangle(mangled, nullptr, nullptr, nullptr), std::free);
  const std::string name = readable ? readable.get() : mangled;
  const size_t last = name.rfind("::");
  return last == std::string::npos ? name : name.substr(last + 2);
}

namespace {

std::string join(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : name.empty() ? prefix : prefix + "." + name;
}

}  // namespace

NamedList<Module*> Module::named_modules() {
  NamedList<Module*> out{{"", this}};
  for (auto& [name, child] : children_)
    for (auto& [path, module] : child->named_modules()) out.emplace_back(join(name, path), module);
  return out;
}

NamedList<Variable*> Module::named_parameters() {
  NamedList<Variable*> out;
  for (auto& [path, module] : named_modules())
    for (auto& [name, p] : module->parameters_) out.emplace_back(join(path, name), p.get());
  return out;
}

NamedList<Tensor*> Module::named_buffers() {
  NamedList<Tensor*> out;
  for (auto& [path, module] : named_modules())
    for (auto& [name, b] : module->buffers_) out.emplace_back(join(path, name), b.get());
  return out;
}

std::vector<Variable> Module::parameters() {
  std::vector<Variable> out;
  for (auto& [name, p] : named_parameters()) out.push_back(*p);
  return out;
}

void Module::train(bool on) {
  for (auto& [path, module] : named_modules()) module->training_ = on;
}

EvalScope::EvalScope(Module& root) {
  for (auto& [path, module] : root.named_modules()) modes_.emplace_back(module, module->training());
  root.eval();
}

// Parents come first, children correct them.
EvalScope::~EvalScope() {
  for (auto& [module, on] : modes_) module->train(on);
}

void Module::set_precision(Precision precision) {
  for (auto& [path, module] : named_modules()) module->precision_ = precision;
}

void Module::set_constant_weights(bool on) {
  for (auto& [path, module] : named_modules()) module->constant_weights_ = on;
}

void Module::set_recompute(bool on) {
  for (auto& [path, module] : named_modules()) module->recompute_ = on;
}

void Module::set_requires_grad(bool on) {
  for (auto& [name, p] : named_parameters()) p->set_requires_grad(on);
}

void Module::zero_grad() {
  for (auto& [name, p] : named_parameters()) p->zero_grad();
}

namespace {

// Weights of convolutions lie on the GPU in the order of its kernels, and nowhere else.
Tensor parameter_on(Device device, const Tensor& t) {
  return t.rank() == 4 && device.is_cuda() ? t.to(device).to(Layout::channels_last)
                                           : t.to(device).plain();
}

}  // namespace

void Module::to(Device device) {
  for (auto& [name, p] : named_parameters()) {
    const Tensor grad = p->grad();
    p->set_data(parameter_on(device, p->data()));
    if (grad.defined()) p->set_grad(parameter_on(device, grad.to(p->data().dtype())));
  }
  for (auto& [name, b] : named_buffers())
    if (is_floating(b->dtype())) *b = b->to(device);
}

Device Module::device() {
  const std::vector<Variable> all = parameters();
  return all.empty() ? Device::cpu() : all.front().data().device();
}

int64_t Module::parameter_count() {
  int64_t n = 0;
  for (auto& [name, p] : named_parameters()) n += p->numel();
  return n;
}

StateDict Module::state_dict() {
  const auto snapshot = [](const Tensor& t) {
    const Tensor copy = t.to(Device::cpu()).plain();
    return copy.shares_memory(t) ? copy.clone() : copy;
  };
  StateDict out;
  for (auto& [path, module] : named_modules()) {
    for (auto& [name, p] : module->parameters_)
      out.emplace_back(join(path, name), snapshot(p->data()));
    for (auto& [name, b] : module->buffers_) out.emplace_back(join(path, name), snapshot(*b));
  }
  return out;
}

HookHandle Module::add_before_hook(BeforeHook hook) {
  return add_stop_hook([hook = std::move(hook)](const Module& m, const Variable& x) {
    hook(m, x);
    return false;
  });
}

HookHandle Module::add_stop_hook(StopHook hook) {
  const int id = hooks_->next++;
  hooks_->before.emplace(id, std::move(hook));
  return HookHandle(hooks_, id);
}

HookHandle Module::add_after_hook(AfterHook hook) {
  const int id = hooks_->next++;
  hooks_->after.emplace(id, std::move(hook));
  return HookHandle(hooks_, id);
}

bool Module::has_hooks() const { return !hooks_->before.empty() || !hooks_->after.empty(); }

void Module::require_input(const Variable& x) const {
  if (!x.defined())
    throw Error(str(kind(), ": the input is undefined; in ", context_path(),
                    " (a pass that a hook has ended goes on in chains only)"));
}

// Over copies, so that a hook may remove itself or add others.
bool Module::run_before_hooks(const Variable& x) const {
  const auto hooks = hooks_->before;
  bool goes_on = true;
  for (const auto& [id, hook] : hooks) goes_on = !hook(*this, x) && goes_on;
  return goes_on;
}

void Module::run_after_hooks(const Variable& x, const Variable& y) const {
  const auto hooks = hooks_->after;
  for (const auto& [id, hook] : hooks) hook(*this, x, y);
}

double Module::macs(const Shape&, const Shape&) const { return 0.0; }

void Module::check_new_name(const std::string& name) const {
  if (name.empty() || name.find('.') != std::string::npos)
    throw Error(str("Module: '", name, "' is not a name (empty, or with a dot)"));
  const auto taken = [&](const auto& list) {
    for (const auto& entry : list)
      if (entry.first == name) return true;
    return false;
  };
  if (taken(parameters_) || taken(buffers_) || taken(children_))
    throw Error(str("Module: '", name, "' is registered twice in one module"));
}

Variable& Module::register_parameter(const std::string& name, const Tensor& value) {
  check_new_name(name);
  parameters_.emplace_back(name, std::make_unique<Variable>(value, true));
  return *parameters_.back().second;
}

Tensor& Module::register_buffer(const std::string& name, const Tensor& value) {
  check_new_name(name);
  buffers_.emplace_back(name, std::make_unique<Tensor>(value));
  return *buffers_.back().second;
}

void Module::register_child(const std::string& name, std::unique_ptr<Module> child) {
  check_new_name(name);
  child->name_ = name;
  children_.emplace_back(name, std::move(child));
}

}  // namespace mtcki::nn
