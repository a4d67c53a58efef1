// Kernels of contrast.h (f32 and f64) over one chunk of similarity rows s [rows, J] = u v^T.
#pragma once

#include "tensor/ops/on_device.h"
#include "tensor/tensor.h"

namespace mtcki {

// rows_out[i] = lse_i - s_ii/tau, lse[i] = log sum_j exp(s_ij/tau); begin: first row of the chunk.
MTCKI_KERNEL(info_nce_chunk, const Tensor& s, double tau, int64_t begin, const Tensor& rows_out,
             const Tensor& lse);
// In place: s_ij <- g_i/tau (exp(s_ij/tau - lse_i) - [j = i]).
MTCKI_KERNEL(info_nce_chunk_grad, const Tensor& s, const Tensor& g, const Tensor& lse, double tau,
             int64_t begin);

}  // namespace mtcki
