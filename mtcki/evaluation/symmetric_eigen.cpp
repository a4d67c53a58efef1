#include "mtcki/evaluation/symmetric_eigen.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"

namespace mtcki {

namespace {

// Reduces a (full, row-major) to tridiagonal form in place; rows of q become the columns of the
// product of all reflections: A = qᵀ T q.
void tridiagonalize(std::vector<double>& a, std::vector<double>& q, int64_t n,
                    std::vector<double>& d, std::vector<double>& e) {
  std::vector<double> v(static_cast<size_t>(n)), p(static_cast<size_t>(n));
  const auto at = [&](int64_t i, int64_t j) -> double& {
    return a[static_cast<size_t>(i * n + j)];
  };
  for (int64_t k = 0; k + 2 < n; ++k) {
    double norm2 = 0;
    for (int64_t i = k + 1; i < n; ++i) norm2 += at(i, k) * at(i, k);
    const double norm = std::sqrt(norm2);
    if (norm == 0) continue;
    // H = I − 2 v vᵀ/(vᵀv) takes the column below the diagonal to (alpha, 0, ..., 0).
    const double alpha = at(k + 1, k) > 0 ? -norm : norm;
    double vv = 0;
    for (int64_t i = k + 1; i < n; ++i) {
      v[static_cast<size_t>(i)] = at(i, k) - (i == k + 1 ? alpha : 0.0);
      vv += v[static_cast<size_t>(i)] * v[static_cast<size_t>(i)];
    }
    if (vv == 0) continue;
    const double beta = 2.0 / vv;
    // p = βAv − (β²vᵀAv/2) v;  A ← A − v pᵀ − p vᵀ
    double vp = 0;
    for (int64_t i = k; i < n; ++i) {
      double s = 0;
      for (int64_t j = k + 1; j < n; ++j) s += at(i, j) * v[static_cast<size_t>(j)];
      p[static_cast<size_t>(i)] = beta * s;
      if (i > k) vp += v[static_cast<size_t>(i)] * p[static_cast<size_t>(i)];
    }
    for (int64_t i = k + 1; i < n; ++i)
      p[static_cast<size_t>(i)] -= 0.5 * beta * vp * v[static_cast<size_t>(i)];
    for (int64_t i = k + 1; i < n; ++i)
      for (int64_t j = k + 1; j < n; ++j)
        at(i, j) -= v[static_cast<size_t>(i)] * p[static_cast<size_t>(j)] +
                    p[static_cast<size_t>(i)] * v[static_cast<size_t>(j)];
    at(k + 1, k) = at(k, k + 1) = alpha;
    for (int64_t i = k + 2; i < n; ++i) at(i, k) = at(k, i) = 0;
    // Rows of q: q ← H q.
    std::vector<double> w(static_cast<size_t>(n), 0.0);
    for (int64_t i = k + 1; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        w[static_cast<size_t>(j)] += v[static_cast<size_t>(i)] * q[static_cast<size_t>(i * n + j)];
    for (int64_t i = k + 1; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        q[static_cast<size_t>(i * n + j)] -=
            beta * v[static_cast<size_t>(i)] * w[static_cast<size_t>(j)];
  }
  for (int64_t i = 0; i < n; ++i) d[static_cast<size_t>(i)] = at(i, i);
  for (int64_t i = 0; i + 1 < n; ++i) e[static_cast<size_t>(i)] = at(i + 1, i);
}

// Implicit QL on (d, e); rotates the rows of q along.
void implicit_ql(std::vector<double>& d, std::vector<double>& e, std::vector<double>& q,
                 int64_t n) {
  const auto rotate = [&](int64_t i, double c, double s) {  // rows i, i+1
    double* x = q.data() + i * n;
    double* y = x + n;
    for (int64_t k = 0; k < n; ++k) {
      const double t = y[k];
      y[k] = s * x[k] + c * t;
      x[k] = c * x[k] - s * t;
    }
  };
  const auto D = [&](int64_t i) -> double& { return d[static_cast<size_t>(i)]; };
  const auto E = [&](int64_t i) -> double& { return e[static_cast<size_t>(i)]; };
  // What is nothing beside the largest entries is rounding: of a matrix of low rank whole blocks are,
  // and there no value is small beside its neighbours (EISPACK's tql2 has this test).
  double largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(D(i)) + std::abs(E(i)));
  for (int64_t l = 0; l < n; ++l) {
    for (int iteration = 0;; ++iteration) {
      int64_t m = l;
      for (; m + 1 < n; ++m)
        if (std::abs(E(m)) <= 1e-16 * largest) break;
      if (m == l) break;
      if (iteration == 60) throw NumericError("symmetric_eigen: no convergence; is a value NaN?");
      double g = (D(l + 1) - D(l)) / (2.0 * E(l));
      double r = std::hypot(g, 1.0);
      g = D(m) - D(l) + E(l) / (g + std::copysign(r, g));
      double s = 1, c = 1, p = 0;
      int64_t i = m - 1;
      for (; i >= l; --i) {
        const double f = s * E(i), b = c * E(i);
        r = std::hypot(f, g);
        E(i + 1) = r;
        if (r == 0) {  // underflow: split here
          D(i + 1) -= p;
          E(m) = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = D(i + 1) - p;
        r = (D(i) - g) * s + 2.0 * c * b;
        p = s * r;
        D(i + 1) = g + p;
        g = c * r - b;
        rotate(i, c, s);
      }
      if (r == 0 && i >= l) continue;
      D(l) -= p;
      E(l) = g;
      E(m) = 0;
    }
  }
}

}  // namespace

SymmetricEigen symmetric_eigen(const Tensor& input) {
  if (input.rank() != 2 || input.size(0) != input.size(1) || input.dtype() != DType::f64)
    throw ShapeError(str("symmetric_eigen: needs a square f64 matrix, got ", input.describe()));
  const int64_t n = input.size(0);
  std::vector<double> a = input.to_vector<double>();
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i + 1; j < n; ++j)
      a[static_cast<size_t>(i * n + j)] = a[static_cast<size_t>(j * n + i)];
  std::vector<double> q(static_cast<size_t>(n * n), 0.0), d(static_cast<size_t>(n)),
      e(static_cast<size_t>(n), 0.0);
  for (int64_t i = 0; i < n; ++i) q[static_cast<size_t>(i * n + i)] = 1.0;
  tridiagonalize(a, q, n, d, e);
  implicit_ql(d, e, q, n);
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::sort(order.begin(), order.end(), [&](int64_t x, int64_t y) {
    return d[static_cast<size_t>(x)] < d[static_cast<size_t>(y)];
  });
  SymmetricEigen out{Tensor::empty({n}, DType::f64), Tensor::empty({n, n}, DType::f64)};
  for (int64_t i = 0; i < n; ++i) {
    const int64_t from = order[static_cast<size_t>(i)];
    out.values.data<double>()[i] = d[static_cast<size_t>(from)];
    std::copy_n(q.data() + from * n, n, out.vectors.data<double>() + i * n);
  }
  return out;
}

Tensor symmetric_sqrt(const Tensor& a) {
  const SymmetricEigen eigen = symmetric_eigen(a);
  const int64_t n = a.size(0);
  const Tensor root = sqrt(clamp(eigen.values, 0.0, 1e300)).reshape({n, 1});
  return matmul(eigen.vectors, mul(eigen.vectors, root), true, false);  // Vᵀ diag(√λ) V
}

}  // namespace mtcki
