// Functions of a data-parallel step: every rank holds its own rows of one batch, and the step
// equals that of one process with all rows.
//
// A loss has the same value on every rank. Its backward gives each rank the gradient of its own
// rows, and gradients of shared parameters whose *sum* over ranks is the gradient of the loss
// (optim/gradient_sync.h). With one rank each of these is its plain counterpart, bit for bit. Ranks
// hold equally many rows.
#pragma once

#include "autograd/functions.h"
#include "tensor/comm.h"

namespace mtcki {

// The mean over ranks of what is a mean over rows on each: a batch mean becomes that of all rows.
// Gradient gy / size.
Variable mean_over_ranks(const Variable& x, const Communicator& comm);

// Rows [n, ...] of all ranks, [size*n, ...], for losses in which every row meets every other. What
// is made of them is computed alike on every rank: the gradient is this rank's part of gy, and
// parameters behind it have their whole gradient already.
Variable gather_over_ranks(const Variable& rows, const Communicator& comm);

// batch_norm_train and bn_statistics over the rows of all ranks.
Variable batch_norm_train(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& running_mean, const Tensor& running_var, double momentum,
                          double eps, Activation act, const Variable& residual,
                          const Communicator& comm, bool recompute = false);
Variable bn_statistics(const Variable& x, const Tensor& running_mean, const Tensor& running_var,
                       double momentum, const Tensor& ema_mean, const Tensor& ema_var,
                       Tensor* batch_mean, Tensor* batch_var, const Communicator& comm,
                       const MomentSums& known = {});

}  // namespace mtcki
