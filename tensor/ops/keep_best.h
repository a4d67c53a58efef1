// Keeping the best of several results without asking the host which one it was.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// When score < best, both one f32 on the same device: dst[i] <- src[i] for every i, best <- score.
// A NaN is not less. src[i] and dst[i] have equal shapes and dtypes. On a GPU nothing is read on
// the host, so a captured step may hold it.
void copy_if_less_(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                   const std::vector<Tensor>& dst);

}  // namespace mtcki
