// Exercise 8: the updates of SGD and Adam (docs/course/08_optimisers.md).
#include <cmath>

#include "course/course.h"

namespace mtcki::course {

void sgd_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& b,
              int64_t t, const SgdRule& rule) {
  for (size_t i = 0; i < p.size(); ++i) {
    const double gradient = g[i] + rule.weight_decay * p[i];
    b[i] = t == 1 ? gradient : rule.momentum * b[i] + gradient;
    hole("sgd_step: the update of p[i], with and without Nesterov's look ahead");
  }
}

void adam_step(std::vector<double>& p, const std::vector<double>& g, std::vector<double>& m,
               std::vector<double>& v, int64_t t, const AdamRule& rule) {
  hole("adam_step: the two averages, their corrections, the update");
}

}  // namespace mtcki::course
