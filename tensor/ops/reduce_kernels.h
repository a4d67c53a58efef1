// Kernels of reduce.h: checked inputs, allocated outputs.
#pragma once

#include "tensor/kernels/walk.h"
#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

// y[o,i] = scale * sum_r x[o,r,i]; x any dtype and plain, y f64 for floats, i64 for the others.
void sum_axis_cpu(const Tensor& x, const Tensor& y, int64_t outer, int64_t count, int64_t inner);
// Sum over everything but the channels, any layout, x f32 or f64; y [C] f64.
void sum_channels_cpu(const Tensor& x, const Tensor& y);
// value and index (either may be undefined) of the first maximum of x[o,:,i]; NaN counts as
// largest.
MTCKI_KERNEL(max_axis, const Tensor& x, const Tensor& value, const Tensor& index, int64_t outer,
             int64_t count, int64_t inner);
double sum_of_squares_cpu(const Tensor& x);                 // f32 or f64
MTCKI_KERNEL(broadcast, const Tensor& x, const Tensor& y);  // x plain; CUDA: or channels_last
int64_t topk_correct_cpu(const Tensor& logits, const Tensor& labels, int k);

// y[k] = scale * sum_r x[kept(k) + reduced(r)], or the root of the sum of squares. y: x's dtype for
// floats, i64 for the others. by_rows: the terms of one output are neighbours in memory.
struct SumPlan {
  Walk kept, reduced;
  bool by_rows = false;
};
enum class SumKind { sum, norm };
void sum_cuda(const Tensor& x, const Tensor& y, const SumPlan& plan, SumKind kind, double scale);
// correct: one i64, zeroed. A row whose label is no class is not counted.
void topk_correct_cuda(const Tensor& logits, const Tensor& labels, int k, const Tensor& correct);

}  // namespace mtcki
