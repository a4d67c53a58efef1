// Public gradient checking by central differences in f64, for ops and for users' own layers.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace mtcki {

struct GradcheckOptions {
  double step = 1e-5;  // h: f(x+h) and f(x-h)
  double rtol = 1e-6;  // relative to the largest numeric gradient of that input
  double atol = 1e-9;
  int64_t max_elements = 200;  // per input; more are sampled evenly
};
struct GradcheckReport {
  bool ok = true;
  // The largest error over the largest numeric gradient of its input (over atol where that is
  // smaller), whether or not it is within the tolerances; NaN when a gradient is.
  double worst = 0;
  std::string message;  // which input and element, analytic, numeric
};
// f: inputs -> one Variable of any shape; it is contracted with a fixed random tensor. Inputs that
// do not require a gradient are passed through. All floating inputs must be f64.
GradcheckReport gradcheck(const std::function<Variable(const std::vector<Variable>&)>& f,
                          const std::vector<Variable>& inputs, const GradcheckOptions& o = {});

}  // namespace mtcki
