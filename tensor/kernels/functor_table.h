// Internal: which functor computes which elementwise op, for the kernels of every device and dtype.
// An op is a struct in functors.h and a row here.
#pragma once

#include <type_traits>

#include "tensor/kernels/functors.h"

namespace mtcki {

// ROW(name, functor): T is what it computes in, p and q are its scalars.
#define MTCKI_UNARY_OPS(ROW)         \
  ROW(add_scalar, AddScalarFn<T>{p}) \
  ROW(mul_scalar, MulScalarFn<T>{p}) \
  ROW(neg, NegFn<T>{})               \
  ROW(exp, ExpFn<T>{})               \
  ROW(log, LogFn<T>{})               \
  ROW(sqrt, SqrtFn<T>{})             \
  ROW(square, SquareFn<T>{})         \
  ROW(abs, AbsFn<T>{})               \
  ROW(sign, SignFn<T>{})             \
  ROW(clamp, ClampFn<T>{p, q})       \
  ROW(relu, ReluFn<T>{})             \
  ROW(leaky_relu, LeakyReluFn<T>{p}) \
  ROW(sigmoid, SigmoidFn<T>{})       \
  ROW(tanh, TanhFn<T>{})             \
  ROW(erf, ErfFn<T>{})

// ROW(name, shapes, functor): Broadcasts where the operands may have different shapes, SameShape for
// gradients.
#define MTCKI_BINARY_OPS(ROW)                            \
  ROW(add, Broadcasts, AddFn<T>{})                       \
  ROW(sub, Broadcasts, SubFn<T>{})                       \
  ROW(mul, Broadcasts, MulFn<T>{})                       \
  ROW(div, Broadcasts, DivFn<T>{})                       \
  ROW(maximum, Broadcasts, MaximumFn<T>{})               \
  ROW(relu_grad, SameShape, ReluGradFn<T>{})             \
  ROW(leaky_relu_grad, SameShape, LeakyReluGradFn<T>{p}) \
  ROW(clamp_grad, SameShape, ClampGradFn<T>{p, q})       \
  ROW(sigmoid_grad, SameShape, SigmoidGradFn<T>{})       \
  ROW(tanh_grad, SameShape, TanhGradFn<T>{})

#define MTCKI_NAME(name, ...) name,
enum class UnaryOp { MTCKI_UNARY_OPS(MTCKI_NAME) };
enum class BinaryOp { MTCKI_BINARY_OPS(MTCKI_NAME) };
#undef MTCKI_NAME
enum class CompareOp { equal, less };

// f(functor) for the op that is known at run time.
template <class T, class F>
void visit_unary(UnaryOp op, double p_in, double q_in, const F& f) {
  const T p = static_cast<T>(p_in), q = static_cast<T>(q_in);
#define MTCKI_CASE(name, ...) \
  case UnaryOp::name:         \
    return f(__VA_ARGS__);
  switch (op) { MTCKI_UNARY_OPS(MTCKI_CASE) }
#undef MTCKI_CASE
}

// f(functor, broadcasts), of type std::true_type or std::false_type.
template <class T, class F>
void visit_binary(BinaryOp op, double p_in, double q_in, const F& f) {
  using Broadcasts = std::true_type;
  using SameShape = std::false_type;
  const T p = static_cast<T>(p_in), q = static_cast<T>(q_in);
#define MTCKI_CASE(name, shapes, ...) \
  case BinaryOp::name:                \
    return f(__VA_ARGS__, shapes());
  switch (op) { MTCKI_BINARY_OPS(MTCKI_CASE) }
#undef MTCKI_CASE
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
