// Solution 1: where an element lies in memory (docs/course/01_values.md).
#include "course/course.h"

namespace mtcki::course {

// The order in memory is n, c, h, w: w is the fastest.
int64_t offset_plain(const Shape& shape, int64_t n, int64_t c, int64_t h, int64_t w) {
  const int64_t C = shape[1], H = shape[2], W = shape[3];
  return ((n * C + c) * H + h) * W + w;
}

// The order in memory is n, h, w, c: all channels of a pixel lie side by side.
int64_t offset_channels_last(const Shape& shape, int64_t n, int64_t c, int64_t h, int64_t w) {
  const int64_t C = shape[1], H = shape[2], W = shape[3];
  return ((n * H + h) * W + w) * C + c;
}

// The order in memory is n, c / block, h, w, c % block: `block` channels of a pixel lie side by
// side, then those of the next pixel. C is a multiple of `block`.
int64_t offset_blocked(const Shape& shape, int64_t block, int64_t n, int64_t c, int64_t h,
                       int64_t w) {
  const int64_t blocks = shape[1] / block, H = shape[2], W = shape[3];
  return (((n * blocks + c / block) * H + h) * W + w) * block + c % block;
}

}  // namespace mtcki::course
