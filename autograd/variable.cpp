#include "autograd/variable.h"

#include "autograd/node.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

thread_local int no_grad_depth = 0;

void check_floating(const char* what, const Tensor& data) {
  if (!is_floating(data.dtype()))
    throw GradientError(
        str(what, ": only floating tensors can require a gradient, got ", data.describe()));
}

}  // namespace

bool is_gradient_type(DType gradient, DType leaf, Device device) {
  return gradient == leaf || (gradient == DType::bf16 && leaf == DType::f32 && device.is_cuda());
}

NoGradScope::NoGradScope() { ++no_grad_depth; }
NoGradScope::~NoGradScope() { --no_grad_depth; }
bool grad_enabled() { return no_grad_depth == 0; }

LeakCheckScope::LeakCheckScope() : before_(live_nodes()) {}
int64_t LeakCheckScope::alive() const { return live_nodes() - before_; }

Variable::Variable(const Tensor& data, bool requires_grad) {
  if (!data.defined()) {
    if (requires_grad)
      throw GradientError("Variable: an undefined tensor cannot require a gradient");
    return;  // an undefined Variable: "no bias here"
  }
  if (requires_grad) check_floating("Variable", data);
  impl_ = std::make_shared<Impl>();
  impl_->data = data;
  impl_->requires_grad = requires_grad;
}

const Tensor& Variable::data() const {
  static const Tensor undefined;
  return impl_ ? impl_->data : undefined;
}

void Variable::set_data(const Tensor& data) {
  if (!impl_) throw GradientError("set_data: the variable is undefined");
  if (!is_leaf())
    throw GradientError(
        "set_data: only a leaf's values can be replaced, this variable is the result of " +
        impl_->node->op);
  if (impl_->data.shape() != data.shape() || impl_->data.dtype() != data.dtype()) {
    impl_->node.reset();  // it knows the old shape
    impl_->grad = Tensor();
  }
  impl_->data = data;
}

bool Variable::requires_grad() const { return impl_ && impl_->requires_grad; }

bool Variable::is_leaf() const { return !impl_ || !impl_->node || impl_->node->is_leaf; }

void Variable::set_requires_grad(bool on) {
  if (!impl_) throw GradientError("set_requires_grad: the variable is undefined");
  if (!is_leaf())
    throw GradientError("set_requires_grad: only on leaves; use detach() to cut a history");
  if (on) check_floating("set_requires_grad", data());
  impl_->requires_grad = on;
  if (!on) impl_->node.reset();
}

const Tensor& Variable::grad() const {
  static const Tensor undefined;
  return impl_ ? impl_->grad : undefined;
}

void Variable::set_grad(const Tensor& grad) {
  if (!impl_) throw GradientError("set_grad: the variable is undefined");
  if (grad.defined() &&
      (grad.shape() != shape() || !is_gradient_type(grad.dtype(), data().dtype(), grad.device())))
    throw GradientError(str("set_grad: the gradient is ", grad.describe(), ", the variable is ",
                            data().describe()));
  impl_->grad = grad;
}

void Variable::retain_grad() {
  if (!requires_grad()) throw GradientError("retain_grad: the variable requires no gradient");
  impl_->retain_grad = true;
  if (!is_leaf()) impl_->node->variable = impl_;
}

Variable Variable::detach() const { return Variable(data()); }

}  // namespace mtcki
