// What the steps of training stages report, on either device.
#pragma once

#include "mtcki/training/metric_ring.h"

namespace mtcki {

inline Values with_rate(Values values, double lr) {
  values.emplace_back("lr", lr);
  return values;
}

// Scalars, f64 on the CPU: percent of rows of logits whose arg max is the label; of two sets of
// logits whose arg max agrees.
Tensor percent_correct(const Tensor& logits, const Tensor& labels);
Tensor percent_agreement(const Tensor& a, const Tensor& b);

}  // namespace mtcki
