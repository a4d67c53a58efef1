#include "mtcki/evaluation/symmetric_eigen.h"

#define EIGEN_DONT_PARALLELIZE  // the same bits with any number of threads
#include <Eigen/Eigenvalues>
#include <vector>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"

namespace mtcki {

SymmetricEigen symmetric_eigen(const Tensor& input) {
  if (input.rank() != 2 || input.size(0) != input.size(1) || input.dtype() != DType::f64 ||
      input.numel() == 0)
    throw ShapeError(str("symmetric_eigen: needs a square f64 matrix, got ", input.describe()));
  const int64_t n = input.size(0);
  const std::vector<double> a = input.to_vector<double>();
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(
      Eigen::Map<const Rows>(a.data(), n, n));
  if (solver.info() != Eigen::Success)
    throw NumericError("symmetric_eigen: no convergence; is a value NaN?");
  // Its vectors are columns, one after the other in memory.
  const double *values = solver.eigenvalues().data(), *vectors = solver.eigenvectors().data();
  return {Tensor::from(std::vector<double>(values, values + n), {n}),
          Tensor::from(std::vector<double>(vectors, vectors + n * n), {n, n})};
}

Tensor symmetric_sqrt(const Tensor& a) {
  const SymmetricEigen eigen = symmetric_eigen(a);
  const int64_t n = a.size(0);
  const Tensor root = sqrt(clamp(eigen.values, 0.0, 1e300)).reshape({n, 1});
  return matmul(eigen.vectors, mul(eigen.vectors, root), true, false);  // Vᵀ diag(√λ) V
}

}  // namespace mtcki
