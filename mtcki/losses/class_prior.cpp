#include "mtcki/losses/class_prior.h"

#include "autograd/functions.h"
#include "mtcki/losses/term.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

Variable class_prior_each(const std::vector<Variable>& logits, const std::vector<double>& weights,
                          const Tensor& labels) {
  std::vector<Variable> terms;
  for (const Variable& z : logits) terms.push_back(cross_entropy(z, labels));
  return weighted_sum(terms, weights);
}

Variable class_prior_ens(const std::vector<Variable>& logits, const std::vector<double>& weights,
                         const Tensor& labels, double focus) {
  const Variable z = weighted_sum(logits, weights);
  if (focus == 0) return cross_entropy(z, labels);
  const Variable log_p = log_softmax(z);
  const Tensor y = one_hot(labels, z.size(1), z.data().dtype());
  const Tensor missed = add(neg(sum(mul(exp(log_p.data()), y), {1}, true)), 1.0);  // 1 − p_y
  // The power as exp(h log), which 1 − p_y = 0 leaves at 0.
  const Tensor counts = focus == 1 ? missed : exp(mul(log(add(missed, 1e-30)), focus));
  return neg(mul(sum(mul(log_p, Variable(mul(y, counts)))), 1.0 / static_cast<double>(z.size(0))));
}

}  // namespace mtcki
