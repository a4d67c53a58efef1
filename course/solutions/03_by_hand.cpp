// Solution 3: reverse mode by hand (docs/course/03_by_hand.md).
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
  const double dr = 2 * r;
  const double ds = dr;
  g.w2 = ds * h;
  g.b2 = ds;
  const double dh = ds * w2;
  const double du = dh * (1 - h * h);
  g.w1 = du * x;
  g.b1 = du;
  return g;
}

}  // namespace mtcki::course
