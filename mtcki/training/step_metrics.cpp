#include "mtcki/training/step_metrics.h"

#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

Tensor percent_correct(const Tensor& logits, const Tensor& labels) {
  const double rows = static_cast<double>(labels.size(0));
  if (logits.device().is_cpu())
    return Tensor::scalar(100.0 * static_cast<double>(count_topk_correct(logits, labels, 1)) / rows,
                          DType::f64);
  return mul(topk_correct(logits, labels, 1).to(DType::f32), 100.0 / rows);
}

Tensor percent_agreement(const Tensor& a, const Tensor& b) {
  const DType dtype = a.device().is_cpu() ? DType::f64 : DType::f32;
  return mul(mean(equal(argmax(a, 1), argmax(b, 1)).to(dtype)), 100.0);
}

}  // namespace mtcki
