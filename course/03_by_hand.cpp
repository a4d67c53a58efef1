// Exercise 3: reverse mode by hand (docs/course/03_by_hand.md).
#include <cmath>

#include "course/course.h"

namespace mtcki::course {

Gradients by_hand(double w1, double b1, double w2, double b2, double x, double y) {
  Gradients g;
  // Forward: one line per operation, every intermediate value has a name.
  const double u = w1 * x + b1;
  const double h = std::tanh(u);
  const double s = w2 * h + b2;
  const double r = s - y;
  g.loss = r * r;

  // Backward: the same lines from the last to the first; dr means dL/dr.
  hole("by_hand: dr, ds, then g.w2, g.b2 and dh, then du, then g.w1 and g.b1");
  return g;
}

}  // namespace mtcki::course
