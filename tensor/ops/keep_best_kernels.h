// Kernels of keep_best.h: checked inputs of equal layouts.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

void copy_if_less_cpu(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                      const std::vector<Tensor>& dst);
void copy_if_less_cuda(const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
                       const std::vector<Tensor>& dst);

}  // namespace mtcki
