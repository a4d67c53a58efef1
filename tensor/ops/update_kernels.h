// CPU kernels of update.h: lists of equal length, dtype f32 or f64 and layout per entry.
#pragma once

#include <vector>

#include "tensor/ops/update.h"

namespace mtcki {

using TensorList = std::vector<Tensor>;

void sgd_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& buffers,
                    const SgdUpdate& u);
void adam_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& exp_avg,
                     const TensorList& exp_avg_sq, const AdamUpdate& u);
void ema_update_cpu(const TensorList& dst, const TensorList& src, double decay);
double sum_of_squares_cpu(const TensorList& tensors);

}  // namespace mtcki
