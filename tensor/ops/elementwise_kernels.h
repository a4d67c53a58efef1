// Kernels of elementwise.h: checked inputs, allocated outputs.
#pragma once

#include "tensor/kernels/functor_table.h"
#include "tensor/tensor.h"

namespace mtcki {

// How the operands of a binary op walk: every case is y = f(a, b) in memory order of y.
struct BinaryPlan {
  enum class Kind {
    same,      // equal shapes and layouts
    a_scalar,  // one operand has a single element
    b_scalar,
    a_channel,  // one operand has one value per channel of the other
    b_channel,
    strided,  // everything else, plain: strides are 0 where an operand repeats
  };
  Kind kind = Kind::same;
  ChannelView view;  // *_channel
  int dims = 0;      // strided
  int64_t size[Shape::kMaxRank] = {}, stride_a[Shape::kMaxRank] = {},
          stride_b[Shape::kMaxRank] = {};
};

void unary_cpu(UnaryOp op, const Tensor& x, const Tensor& y, double p, double q);
void binary_cpu(BinaryOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                const BinaryPlan& plan, double p);
void compare_cpu(CompareOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                 const BinaryPlan& plan);
void where_cpu(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y);
bool all_finite_cpu(const Tensor& x);
bool allclose_cpu(const Tensor& a, const Tensor& b, double rtol, double atol);  // f64, same layout
void axpy_cpu(const Tensor& dst, const Tensor& src, double alpha);
void scale_cpu(const Tensor& dst, double s);

void unary_cuda(UnaryOp op, const Tensor& x, const Tensor& y, double p, double q);
void binary_cuda(BinaryOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                 const BinaryPlan& plan, double p);
void compare_cuda(CompareOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                  const BinaryPlan& plan);
void where_cuda(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y);
bool all_finite_cuda(const Tensor& x);
void axpy_cuda(const Tensor& dst, const Tensor& src, double alpha);
void scale_cuda(const Tensor& dst, double s);

}  // namespace mtcki
