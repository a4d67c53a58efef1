#include "mtcki/losses/image_prior.h"

#include "autograd/functions.h"

namespace mtcki {

namespace {

// Sum over the four directions of `measure` of the differences of neighbours.
template <class Measure>
Variable over_directions(const Variable& x, const Measure& measure) {
  const int64_t h = x.size(2), w = x.size(3);
  const auto between = [&](const Variable& a, const Variable& b) { return measure(sub(a, b)); };
  const auto cols = [&](const Variable& v, int64_t b, int64_t e) { return narrow(v, 3, b, e); };
  const Variable up = narrow(x, 2, 0, h - 1), down = narrow(x, 2, 1, h);
  const Variable right = between(cols(x, 0, w - 1), cols(x, 1, w));
  const Variable below = between(up, down);
  const Variable down_right = between(cols(up, 0, w - 1), cols(down, 1, w));
  const Variable down_left = between(cols(up, 1, w), cols(down, 0, w - 1));
  return add(add(right, below), add(down_left, down_right));
}

}  // namespace

Variable total_variation(const Variable& x) {
  return over_directions(x, [](const Variable& d) { return mean(abs(d)); });
}

Variable total_variation_l2(const Variable& x) {
  return over_directions(x, [](const Variable& d) { return norm(d); });
}

Variable image_norm(const Variable& x) { return norm(x); }

}  // namespace mtcki
