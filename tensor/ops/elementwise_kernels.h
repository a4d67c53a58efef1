// Kernels of elementwise.h: checked inputs, allocated outputs.
#pragma once

#include "tensor/kernels/functor_table.h"
#include "tensor/ops/on_device.h"
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

MTCKI_KERNEL(unary, UnaryOp op, const Tensor& x, const Tensor& y, double p, double q);
MTCKI_KERNEL(binary, BinaryOp op, const Tensor& a, const Tensor& b, const Tensor& y,
             const BinaryPlan& plan, double p, double q);
MTCKI_KERNEL(compare, CompareOp op, const Tensor& a, const Tensor& b, const Tensor& y,
             const BinaryPlan& plan);
MTCKI_KERNEL(where, const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y);
bool all_finite_cpu(const Tensor& x);
bool allclose_cpu(const Tensor& a, const Tensor& b, double rtol, double atol);  // f64, same layout
MTCKI_KERNEL(axpy, const Tensor& dst, const Tensor& src, double alpha);
MTCKI_KERNEL(scale, const Tensor& dst, double s);

bool all_finite_cuda(const Tensor& x);

}  // namespace mtcki
