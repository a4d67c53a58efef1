// Eigen-decomposition of a real symmetric matrix in f64, by the library Eigen: A = Σ_i λ_i v_i v_iᵀ.
#pragma once

#include "tensor/tensor.h"

namespace mtcki {

struct SymmetricEigen {
  Tensor values;   // f64 [n], ascending
  Tensor vectors;  // f64 [n, n], row i is v_i
};
// a: f64 [n, n]; its lower triangle is read. NumericError when the solver does not converge (NaN input).
SymmetricEigen symmetric_eigen(const Tensor& a);

// The positive semi-definite square root; eigenvalues below 0 (rounding) count as 0.
Tensor symmetric_sqrt(const Tensor& a);

}  // namespace mtcki
