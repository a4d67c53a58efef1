#include "mtcki/losses/adversarial.h"

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/losses/term.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {
constexpr double kJsTemperature = 3.0;

// Mean over the rows of KL(m ‖ p), of probabilities.
Variable divergence(const Variable& m, const Variable& p) {
  return mul(sum(mul(m, sub(log(m), log(p)))), 1.0 / static_cast<double>(m.size(0)));
}

Variable adaptive_inversion(const Variable& teacher_logits, const Variable& student_logits) {
  const auto probabilities = [](const Variable& z) { return softmax(mul(z, 1 / kJsTemperature)); };
  const auto inside = [](const Variable& p) { return clamp(p, 0.01, 0.99); };
  const Variable p = probabilities(teacher_logits), q = probabilities(student_logits);
  const Variable m = inside(mul(add(p, q), 0.5));
  const Variable j = mul(add(divergence(m, inside(p)), divergence(m, inside(q))), 0.5);
  return add(neg(clamp(j, 0, 1)), 1.0);
}

}  // namespace

Variable adversarial(AdvMode mode, const Variable& teacher_logits, const Variable& student_logits,
                     double temperature) {
  if (mode == AdvMode::js)
    return add(mul(js_div(teacher_logits, student_logits, kJsTemperature), -1.0 / std::log(2.0)),
               1.0);
  if (mode == AdvMode::adi) return adaptive_inversion(teacher_logits, student_logits);
  Tensor counts = equal(argmax(teacher_logits.data(), 1), argmax(student_logits.data(), 1))
                      .to(teacher_logits.data().dtype());
  if (mode == AdvMode::kl_disagree) counts = add(neg(counts), 1.0);
  return mul(kl_div(teacher_logits, student_logits, temperature, counts),
             -temperature * temperature);
}

Variable adversarial_each(AdvMode mode, const std::vector<Variable>& teacher_logits,
                          const std::vector<double>& weights, const Variable& student_logits,
                          double temperature) {
  std::vector<Variable> terms;
  for (const Variable& z : teacher_logits)
    terms.push_back(adversarial(mode, z, student_logits, temperature));
  return weighted_sum(terms, weights);
}

}  // namespace mtcki
