// Weight gradients beside the backward pass. Nothing in a backward waits for the gradient of a
// weight, so on a GPU it is computed on a side stream, while the input gradient and the
// memory-bound ops of the layers below run on stream 0; captured steps become graphs with branches.
// The bits are the same.
//
// Two side streams take turns. What a branch reads is held until stream 0 has waited for it, which
// happens when its stream is needed again, so at most two layers' gradients live longer.
#pragma once

#include <functional>
#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// compute() on a side stream, where `reads`, made on stream 0, are on a GPU; else at once. The
// result must not be used before join_side_streams().
Tensor on_side_stream(std::vector<Tensor> reads, const std::function<Tensor()>& compute);
// Stream 0 waits for all of this thread's branches. Cheap when there are none.
void join_side_streams();

// Around a backward, which joins them at its end: no branch stays behind after an error.
class SideStreamScope {
 public:
  SideStreamScope() = default;
  ~SideStreamScope();
  SideStreamScope(const SideStreamScope&) = delete;
  SideStreamScope& operator=(const SideStreamScope&) = delete;
};

}  // namespace mtcki
