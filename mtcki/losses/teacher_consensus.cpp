#include "mtcki/losses/teacher_consensus.h"

#include "autograd/functions.h"
#include "mtcki/losses/term.h"

namespace mtcki {

Variable teacher_consensus(const std::vector<Variable>& logits,
                           const std::vector<double>& weights) {
  std::vector<Variable> p;
  for (const Variable& z : logits) p.push_back(softmax(z));
  // A class that no teacher believes in has p = 0 everywhere: 0·log is kept finite.
  const Variable log_mixture = log(add(weighted_sum(p, weights), 1e-30));
  const double rows = static_cast<double>(logits.at(0).size(0));
  Variable total;
  for (size_t m = 0; m < logits.size(); ++m) {
    const Variable kl = sum(mul(p[m], sub(log_softmax(logits[m]), log_mixture)));
    const Variable term = mul(kl, weights[m] / rows);
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

}  // namespace mtcki
