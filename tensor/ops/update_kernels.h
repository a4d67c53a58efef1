// Kernels of update.h: lists of equal length, one dtype and layout per entry (CUDA: gradients and
// sources may be bf16 beside f32). The CUDA updates also write the copies of their parameters that
// convolutions and products read.
#pragma once

#include <vector>

#include "tensor/ops/on_device.h"
#include "tensor/ops/update.h"
#include "tensor/ops/weight_copies.h"

namespace mtcki {

using TensorList = std::vector<Tensor>;

MTCKI_KERNEL(sgd_update, const TensorList& params, const TensorList& grads,
             const TensorList& buffers, const SgdUpdate& u, const KeptCopies& copies);
MTCKI_KERNEL(adam_update, const TensorList& params, const TensorList& grads,
             const TensorList& exp_avg, const TensorList& exp_avg_sq, const AdamUpdate& u,
             const KeptCopies& copies);
MTCKI_KERNEL(ema_update, const TensorList& dst, const TensorList& src, const Scalar& decay);
double sum_of_squares_cpu(const TensorList& tensors);
// norm and scale: one f32 each; scale may be undefined, else min(1, max_norm/(norm + 1e-6)).
void global_norm_cuda(const TensorList& tensors, const Tensor& norm, const Tensor& scale,
                      double max_norm);

}  // namespace mtcki
