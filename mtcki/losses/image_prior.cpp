#include "mtcki/losses/image_prior.h"

#include "autograd/functions.h"

namespace mtcki {

Variable total_variation(const Variable& x) {
  const int64_t h = x.size(2), w = x.size(3);
  const auto mean_abs = [](const Variable& a, const Variable& b) { return mean(abs(sub(a, b))); };
  const auto cols = [&](const Variable& v, int64_t b, int64_t e) { return narrow(v, 3, b, e); };
  const Variable up = narrow(x, 2, 0, h - 1), down = narrow(x, 2, 1, h);
  const Variable right = mean_abs(cols(x, 0, w - 1), cols(x, 1, w));
  const Variable below = mean_abs(up, down);
  const Variable down_right = mean_abs(cols(up, 0, w - 1), cols(down, 1, w));
  const Variable down_left = mean_abs(cols(up, 1, w), cols(down, 0, w - 1));
  return add(add(right, below), add(down_left, down_right));
}

Variable image_norm(const Variable& x) { return norm(x); }

}  // namespace mtcki
