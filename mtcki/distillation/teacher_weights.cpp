#include "mtcki/distillation/teacher_weights.h"

#include <algorithm>

#include "mtcki/training/evaluate.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

std::vector<double> moved_weights(const std::vector<double>& weights,
                                  const std::vector<Tensor>& logits, const Tensor& labels,
                                  double step) {
  double mass = 0;
  for (const double w : weights) mass += w;
  Tensor fused = mul(logits.at(0), weights.at(0) / mass);
  for (size_t m = 1; m < logits.size(); ++m) add_(fused, logits[m], weights[m] / mass);
  const Tensor wrong =
      sub(softmax(fused), one_hot(labels, fused.size(1), fused.dtype()));  // B ∂CE/∂t
  std::vector<double> out;
  for (size_t m = 0; m < logits.size(); ++m) {
    const double slope = sum(mul(wrong, sub(logits[m], fused))).item();  // times 1/(B Σ w)
    const double sign = slope > 0 ? 1 : slope < 0 ? -1 : 0;
    out.push_back(std::clamp(weights[m] - step * sign, 0.0, 1.0));
  }
  return out;
}

void learn_weights(Teachers& teachers, const data::ImageSet& images, int64_t batch_size,
                   double step, const Rng& order) {
  const data::ImageSet there = on_device(images, teachers.device());
  std::vector<Tensor> logits;
  std::vector<double> weights;
  for (size_t m = 0; m < teachers.size(); ++m) {
    logits.push_back(logits_of(
        there, [&](const Tensor& x) { return teachers[m].forward_no_grad(x).logits.data(); }));
    weights.push_back(teachers[m].options().weight);
  }
  const Tensor shuffled = randperm(images.size(), order);
  for (int64_t begin = 0; begin < images.size(); begin += batch_size) {
    const Tensor rows = shuffled.slice(begin, std::min(begin + batch_size, images.size()));
    std::vector<Tensor> batch;
    for (const Tensor& z : logits) batch.push_back(index_select(z, rows));
    weights = moved_weights(weights, batch, index_select(images.labels, rows), step);
  }
  for (size_t m = 0; m < teachers.size(); ++m) teachers[m].set_weight(weights[m]);
}

}  // namespace mtcki
