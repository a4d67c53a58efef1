// Internal: copies of weights in the form that CUDA kernels want, made once per change of the
// weight. A copy belongs to the weight's storage and stream; it is made again, into the same
// memory, when the weight's version moved, and goes when the storage is freed.
//
// Captured steps (StepGraph) change weights without the host's knowledge, and read copies at the
// addresses of the capture. So a copy is also made again after every begin, end and launch of a
// graph, which puts the conversion of a trained weight inside the captured step. `constant` says
// that the weight never changes again (frozen teachers): then one conversion before the capture is
// enough.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

// OIHW [k, c, r, s] as [k, r*s, padded] of dtype, zero in the channels beyond c.
Tensor ohwi_weight(const Tensor& w, DType dtype, int64_t padded, bool constant);
// The same elements in another dtype.
Tensor cast_weight(const Tensor& w, DType dtype, bool constant);

// Drops the copies of what lies in [data, data + bytes): that memory is about to be freed.
void forget_weight_copies(const void* data, size_t bytes);
size_t weight_copies();  // how many there are

}  // namespace mtcki
