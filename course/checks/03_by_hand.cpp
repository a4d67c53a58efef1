// Judges exercise 3: the numbers of the page, finite differences, and the engine's answer.
#include <cmath>

#include "course/checks/judge.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

Variable number(double value) { return Variable(Tensor::scalar(value, DType::f64), true); }

void check(Judge& judge) {
  const Gradients g = by_hand(0.5, 0, 2, -1, /*x=*/1, /*y=*/0.5);
  judge.equal("L at w1 0.5, b1 0, w2 2, b2 -1, x 1, y 0.5", g.loss, 0.331506, 1e-5);
  judge.equal("dL/dw2 there", g.w2, -0.532142, 1e-5);
  judge.equal("dL/db2 there", g.b2, -1.151531, 1e-5);
  judge.equal("dL/dw1 there", g.w1, -1.811238, 1e-5);
  judge.equal("dL/db1 there", g.b1, -1.811238, 1e-5);

  const Rng rng{3, rng_stream("course"), 0};
  for (uint64_t k = 0; k < 3; ++k) {
    const auto draw = [&](uint64_t i) { return 4 * rng.at(k).uniform(i) - 2; };
    const double x = draw(0), y = draw(1), p[4] = {draw(2), draw(3), draw(4), draw(5)};
    const Variable w1 = number(p[0]), b1 = number(p[1]), w2 = number(p[2]), b2 = number(p[3]);
    square(w2 * tanh(w1 * x + b1) + b2 - number(y)).backward();
    const Gradients mine = by_hand(p[0], p[1], p[2], p[3], x, y);
    const std::string where = " at random point " + std::to_string(k + 1) + " as the engine has it";
    judge.equal("dL/dw1" + where, mine.w1, w1.grad().item());
    judge.equal("dL/db1" + where, mine.b1, b1.grad().item());
    judge.equal("dL/dw2" + where, mine.w2, w2.grad().item());
    judge.equal("dL/db2" + where, mine.b2, b2.grad().item());
  }
}

const Chapter chapter(3, "Reverse mode by hand", check);

}  // namespace

}  // namespace mtcki::course
