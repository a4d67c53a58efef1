// Solution 12: the loss that teaches a student (docs/course/12_distillation.md).
#include "course/course.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/softmax.h"

namespace mtcki::course {

Variable distillation_loss(const std::vector<Tensor>& teacher_logits,
                           const std::vector<double>& weights, const Variable& student_logits,
                           double temperature) {
  Tensor fused = mul(teacher_logits[0], weights[0]);
  for (size_t m = 1; m < teacher_logits.size(); ++m)
    fused = add(fused, mul(teacher_logits[m], weights[m]));
  // p log p needs no graph: teachers are not trained.
  const Tensor log_p = log_softmax(mul(fused, 1 / temperature));
  const Tensor p = exp(log_p);
  const Variable log_q = log_softmax(student_logits * (1 / temperature));
  const Variable rows = sum(Variable(p) * (log_p - log_q), {1});
  return mean(rows) * (temperature * temperature);
}

}  // namespace mtcki::course
