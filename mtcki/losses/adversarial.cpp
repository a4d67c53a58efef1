#include "mtcki/losses/adversarial.h"

#include <cmath>

#include "autograd/functions.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {
constexpr double kJsTemperature = 3.0;
}

Variable adversarial(AdvMode mode, const Variable& teacher_logits, const Variable& student_logits,
                     double temperature) {
  if (mode == AdvMode::js)
    return add(mul(js_div(teacher_logits, student_logits, kJsTemperature), -1.0 / std::log(2.0)),
               1.0);
  Tensor counts = equal(argmax(teacher_logits.data(), 1), argmax(student_logits.data(), 1))
                      .to(teacher_logits.data().dtype());
  if (mode == AdvMode::kl_disagree) counts = add(neg(counts), 1.0);
  return mul(kl_div(teacher_logits, student_logits, temperature, counts),
             -temperature * temperature);
}

Variable adversarial_each(AdvMode mode, const std::vector<Variable>& teacher_logits,
                          const std::vector<double>& weights, const Variable& student_logits,
                          double temperature) {
  Variable total;
  for (size_t m = 0; m < teacher_logits.size(); ++m) {
    const Variable term =
        mul(adversarial(mode, teacher_logits[m], student_logits, temperature), weights.at(m));
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

}  // namespace mtcki
