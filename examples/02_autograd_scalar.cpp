// Reverse-mode differentiation of a scalar expression, the one of micrograd's README: every
// operation records how its gradient is found, backward() runs the records in reverse.
//
// Expect: g = 24\.7041, dg/da = 138\.8338, dg/db = 645\.5773
#include <cstdio>

#include "autograd/functions.h"

using namespace mtcki;

namespace {

// A number that may want a gradient.
Variable number(double value) { return Variable(Tensor::scalar(value, DType::f64), true); }
Variable plus(const Variable& x, double c) { return add(x, c); }
Variable cube(const Variable& x) { return square(x) * x; }

}  // namespace

int main() {
  const Variable a = number(-4.0), b = number(2.0);
  Variable c = a + b;
  Variable d = a * b + cube(b);
  c = c + plus(c, 1.0);
  c = c + plus(c, 1.0) - a;
  d = d + d * 2.0 + relu(b + a);
  d = d + 3.0 * d + relu(b - a);
  const Variable e = c - d;
  const Variable f = square(e);
  const Variable ten = Variable(Tensor::scalar(10.0, DType::f64));  // a constant
  Variable g = f * 0.5;
  g = g + ten / f;

  g.backward();
  std::printf("g = %.4f, dg/da = %.4f, dg/db = %.4f\n", g.item(), a.grad().item(), b.grad().item());
  return 0;
}
