#include "mtcki/losses/class_prior.h"

#include "autograd/functions.h"

namespace mtcki {

Variable class_prior_each(const std::vector<Variable>& logits, const std::vector<double>& weights,
                          const Tensor& labels) {
  Variable total;
  for (size_t m = 0; m < logits.size(); ++m) {
    const Variable term = mul(cross_entropy(logits[m], labels), weights.at(m));
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

Variable class_prior_ens(const std::vector<Variable>& logits, const std::vector<double>& weights,
                         const Tensor& labels) {
  return cross_entropy(fuse_logits(logits, weights), labels);
}

Variable fuse_logits(const std::vector<Variable>& logits, const std::vector<double>& weights) {
  // One teacher with weight 1 costs nothing.
  if (logits.size() == 1 && weights.at(0) == 1.0) return logits[0];
  Variable total;
  for (size_t m = 0; m < logits.size(); ++m) {
    const Variable term = mul(logits[m], weights.at(m));
    total = total.defined() ? add(total, term) : term;
  }
  return total;
}

}  // namespace mtcki
