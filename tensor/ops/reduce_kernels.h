// CPU kernels of reduce.h: checked inputs, allocated outputs.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

// y[o,i] = scale * sum_r x[o,r,i]; x any dtype and plain, y f64 for floats, i64 for the others.
void sum_axis_cpu(const Tensor& x, const Tensor& y, int64_t outer, int64_t count, int64_t inner);
// Sum over everything but the channels, any layout, x f32 or f64; y [C] f64.
void sum_channels_cpu(const Tensor& x, const Tensor& y);
// value and index (either may be undefined) of the first maximum of x[o,:,i]; NaN counts as
// largest.
void max_axis_cpu(const Tensor& x, const Tensor& value, const Tensor& index, int64_t outer,
                  int64_t count, int64_t inner);
double sum_of_squares_cpu(const Tensor& x);            // f32 or f64
void broadcast_cpu(const Tensor& x, const Tensor& y);  // plain
int64_t count_topk_correct_cpu(const Tensor& logits, const Tensor& labels, int k);

}  // namespace mtcki
