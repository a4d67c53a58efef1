// Internal: which functor computes which elementwise op, for the kernels of every device and dtype.
// An op is a struct in functors.h and a row here.
#pragma once

#include <type_traits>

#include "tensor/kernels/functors.h"

namespace mtcki {

enum class UnaryOp {
  add_scalar,
  mul_scalar,
  neg,
  exp,
  log,
  sqrt,
  square,
  abs,
  sign,
  clamp,
  relu,
  leaky_relu,
  sigmoid,
  tanh,
};
enum class BinaryOp {
  add,
  sub,
  mul,
  div,
  maximum,
  relu_grad,
  leaky_relu_grad,
  clamp_grad,
  sigmoid_grad,
  tanh_grad,
};
enum class CompareOp { equal, less };

// f(functor) for the op that is known at run time; T is what it computes in, p and q are its scalars.
template <class T, class F>
void visit_unary(UnaryOp op, double p_in, double q_in, const F& f) {
  const T p = static_cast<T>(p_in), q = static_cast<T>(q_in);
  switch (op) {
    case UnaryOp::add_scalar:
      return f(AddScalarFn<T>{p});
    case UnaryOp::mul_scalar:
      return f(MulScalarFn<T>{p});
    case UnaryOp::neg:
      return f(NegFn<T>{});
    case UnaryOp::exp:
      return f(ExpFn<T>{});
    case UnaryOp::log:
      return f(LogFn<T>{});
    case UnaryOp::sqrt:
      return f(SqrtFn<T>{});
    case UnaryOp::square:
      return f(SquareFn<T>{});
    case UnaryOp::abs:
      return f(AbsFn<T>{});
    case UnaryOp::sign:
      return f(SignFn<T>{});
    case UnaryOp::clamp:
      return f(ClampFn<T>{p, q});
    case UnaryOp::relu:
      return f(ReluFn<T>{});
    case UnaryOp::leaky_relu:
      return f(LeakyReluFn<T>{p});
    case UnaryOp::sigmoid:
      return f(SigmoidFn<T>{});
    case UnaryOp::tanh:
      return f(TanhFn<T>{});
  }
}

// f(functor, broadcasts): std::true_type where the operands may have different shapes, and
// std::false_type for gradients, which have one shape.
template <class T, class F>
void visit_binary(BinaryOp op, double p_in, double q_in, const F& f) {
  using Broadcasts = std::true_type;
  using SameShape = std::false_type;
  const T p = static_cast<T>(p_in), q = static_cast<T>(q_in);
  switch (op) {
    case BinaryOp::add:
      return f(AddFn<T>{}, Broadcasts());
    case BinaryOp::sub:
      return f(SubFn<T>{}, Broadcasts());
    case BinaryOp::mul:
      return f(MulFn<T>{}, Broadcasts());
    case BinaryOp::div:
      return f(DivFn<T>{}, Broadcasts());
    case BinaryOp::maximum:
      return f(MaximumFn<T>{}, Broadcasts());
    case BinaryOp::relu_grad:
      return f(ReluGradFn<T>{}, SameShape());
    case BinaryOp::leaky_relu_grad:
      return f(LeakyReluGradFn<T>{p}, SameShape());
    case BinaryOp::clamp_grad:
      return f(ClampGradFn<T>{p, q}, SameShape());
    case BinaryOp::sigmoid_grad:
      return f(SigmoidGradFn<T>{}, SameShape());
    case BinaryOp::tanh_grad:
      return f(TanhGradFn<T>{}, SameShape());
  }
}

template <class T, class F>
void visit_compare(CompareOp op, const F& f) {
  switch (op) {
    case CompareOp::equal:
      return f(EqualFn<T>{});
    case CompareOp::less:
      return f(LessFn<T>{});
  }
}

}  // namespace mtcki
