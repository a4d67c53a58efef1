// Kernels of keep_best.h: checked inputs of equal layouts.
#pragma once

#include <vector>

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

MTCKI_KERNEL(copy_if_less, const Tensor& score, const Tensor& best, const std::vector<Tensor>& src,
             const std::vector<Tensor>& dst);

}  // namespace mtcki
