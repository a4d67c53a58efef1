// Solution 8: the updates of SGD and Adam (docs/course/08_optimisers.md).
#include <cmath>

#include "course/course.h"

namespace mtcki::course {

void sgd_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& b,
              int64_t t, const SgdRule& rule) {
  for (size_t i = 0; i < p.size(); ++i) {
    const double gradient = g[i] + rule.weight_decay * p[i];
    b[i] = t == 1 ? gradient : rule.momentum * b[i] + gradient;
    const double direction = rule.nesterov ? gradient + rule.momentum * b[i] : b[i];
    p[i] -= rule.lr * direction;
  }
}

void adam_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& m,
               std::vector<double>& v, int64_t t, const AdamRule& rule) {
  const double bias1 = 1 - std::pow(rule.beta1, static_cast<double>(t));
  const double bias2 = 1 - std::pow(rule.beta2, static_cast<double>(t));
  for (size_t i = 0; i < p.size(); ++i) {
    m[i] = rule.beta1 * m[i] + (1 - rule.beta1) * g[i];
    v[i] = rule.beta2 * v[i] + (1 - rule.beta2) * g[i] * g[i];
    p[i] -= rule.lr * (m[i] / bias1) / (std::sqrt(v[i] / bias2) + rule.eps);
  }
}

}  // namespace mtcki::course
