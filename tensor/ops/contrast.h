// InfoNCE rows: u [A,D] against v [J,D], J >= A; the positive of row i is v's row i, all others are
// negatives (van den Oord et al. 2018):
//   l_i = -log( exp(u_i.v_i/tau) / sum_j exp(u_i.v_j/tau) )
// The A x J similarities are never all in memory: rows are processed in chunks, and the backward
// recomputes them from u, v and the saved log-sum-exp.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

struct InfoNce {
  Tensor rows;  // [A], l_i
  Tensor lse;   // [A], log-sum-exp of row i (saved for the gradient)
};
InfoNce info_nce_rows(const Tensor& u, const Tensor& v, double tau);
// g [A]: du_i = g_i/tau (sum_j pi_ij v_j - v_i);  dv_j = sum_i g_i/tau (pi_ij - [j=i]) u_i.
Tensor info_nce_grad_u(const Tensor& g, const Tensor& u, const Tensor& v, const Tensor& lse,
                       double tau);
Tensor info_nce_grad_v(const Tensor& g, const Tensor& u, const Tensor& v, const Tensor& lse,
                       double tau);

}  // namespace mtcki
