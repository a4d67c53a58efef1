// What the steps of training stages report, on either device.
#pragma once

#include <string>

#include "mtcki/training/compute.h"
#include "mtcki/training/metric_ring.h"

namespace mtcki {

// Deferred on the GPU.
inline MetricRing step_metrics(const Compute& compute) {
  return compute.device.is_cpu() ? MetricRing()
                                 : MetricRing::deferred(compute.device, compute.read_every);
}

inline Values with_rate(Values values, double lr) {
  values.emplace_back("lr", lr);
  return values;
}

// Scalars, f64 on the CPU: percent of rows of logits whose arg max is the label; of two sets of
// logits whose arg max agrees.
Tensor percent_correct(const Tensor& logits, const Tensor& labels);
Tensor percent_agreement(const Tensor& a, const Tensor& b);

}  // namespace mtcki
