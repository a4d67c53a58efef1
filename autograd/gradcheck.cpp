#include "autograd/gradcheck.h"

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/rng.h"

namespace mtcki {

namespace {

// Directions differ per element, so that no two errors cancel in the contraction.
Tensor contraction(const Tensor& y) {
  return rand(y.shape(), Rng{7, rng_stream("gradcheck"), 0}, DType::f64);
}

}  // namespace

GradcheckReport gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f,
                          const std::vector<Variable>& inputs, const GradcheckOptions& o) {
  std::vector<Variable> leaves;
  for (const Variable& v : inputs) {
    if (!v.defined()) {
      leaves.push_back(v);
      continue;
    }
    if (is_floating(v.data().dtype()) && v.data().dtype() != DType::f64)
      throw DTypeError(str("gradcheck: floating inputs need f64, got ", v.data().describe()));
    leaves.emplace_back(v.data().clone(), v.requires_grad());
  }
  const Variable y = f(leaves);
  if (!y.requires_grad())
    throw GradientError("gradcheck: the result requires no gradient: no input does");
  const Tensor weights = contraction(y.data());
  y.backward(weights.to(y.data().layout()));

  const auto value = [&](const std::vector<Variable>& at) {
    const NoGradScope no_grad;
    return sum(mul(f(at).data().plain(), weights)).item();
  };
  GradcheckReport report;
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (!leaves[i].requires_grad()) continue;
    const Tensor& x = leaves[i].data();
    const Tensor analytic_tensor =
        leaves[i].grad().defined() ? leaves[i].grad().to(x.layout()) : Tensor::zeros_like(x);
    const int64_t n = x.numel(), count = std::min(n, o.max_elements);
    // All probes of this input first: errors are relative to its largest numeric gradient.
    std::vector<int64_t> index;
    std::vector<double> numeric, analytic;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t e = n <= count ? k : k * n / count;
      std::vector<Variable> probe = leaves;
      Tensor moved = x.clone();
      probe[i] = Variable(moved);
      double* p = moved.data<double>() + e;
      const double at = *p;
      *p = at + o.step;
      const double above = value(probe);
      *p = at - o.step;
      const double below = value(probe);
      index.push_back(e);
      numeric.push_back((above - below) / (2 * o.step));
      analytic.push_back(analytic_tensor.data<double>()[e]);
    }
    double scale = 0;
    for (double g : numeric) scale = std::max(scale, std::abs(g));
    for (size_t k = 0; k < index.size(); ++k) {
      const double error = std::abs(analytic[k] - numeric[k]);
      const double relative = error / std::max(scale, 1e-300);
      // Not <=: a NaN must fail.
      const bool fine = error <= o.atol || relative <= o.rtol;
      const double shown = error / std::max(scale, o.atol);
      if (!(shown <= report.worst) && !std::isnan(report.worst)) report.worst = shown;
      if (!fine && report.ok) {
        report.ok = false;
        report.message = str("input ", i, " ", x.describe(), ", element ", index[k],
                             " in memory: ", "analytic ", analytic[k], ", numeric ", numeric[k],
                             ", relative error ", relative, " > ", o.rtol);
      }
    }
  }
  return report;
}

}  // namespace mtcki
