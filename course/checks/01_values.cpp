// Judges exercise 1: offsets against what Tensor::to(Layout) does with the elements.
#include "course/checks/judge.h"

namespace mtcki::course {

namespace {

// An image tensor whose element number i, in plain order, is i.
Tensor numbered(const Shape& shape) {
  const Tensor x = Tensor::empty(shape);
  for (int64_t i = 0; i < x.numel(); ++i) x.data<float>()[i] = static_cast<float>(i);
  return x;
}

// Whether the offsets name the place of every element in this layout.
template <class F>
bool finds_all(const Shape& shape, Layout layout, const F& offset) {
  const Tensor moved = numbered(shape).to(layout).in_memory_order();
  float number = 0;
  for (int64_t n = 0; n < shape[0]; ++n)
    for (int64_t c = 0; c < shape[1]; ++c)
      for (int64_t h = 0; h < shape[2]; ++h)
        for (int64_t w = 0; w < shape[3]; ++w, ++number) {
          const int64_t at = offset(n, c, h, w);
          if (at < 0 || at >= shape.numel() || moved.data<float>()[at] != number) return false;
        }
  return true;
}

void check(Judge& judge) {
  const Shape small{2, 3, 2, 2};
  judge.equal("plain: (1, 2, 0, 1) of [2, 3, 2, 2]",
              static_cast<double>(offset_plain(small, 1, 2, 0, 1)), 21);
  judge.equal("channels_last: (1, 2, 0, 1) of [2, 3, 2, 2]",
              static_cast<double>(offset_channels_last(small, 1, 2, 0, 1)), 17);
  judge.equal("blocked by 4: (1, 6, 1, 0) of [2, 8, 2, 2]",
              static_cast<double>(offset_blocked({2, 8, 2, 2}, 4, 1, 6, 1, 0)), 58);

  const Shape shape{2, 2 * kChannelBlock, 3, 5};
  judge.check("plain agrees with a tensor in layout plain",
              finds_all(shape, Layout::plain, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
                return offset_plain(shape, n, c, h, w);
              }));
  judge.check(
      "channels_last agrees with a tensor in layout channels_last",
      finds_all(shape, Layout::channels_last, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
        return offset_channels_last(shape, n, c, h, w);
      }));
  judge.check("blocked agrees with a tensor in layout blocked",
              finds_all(shape, Layout::blocked, [&](int64_t n, int64_t c, int64_t h, int64_t w) {
                return offset_blocked(shape, kChannelBlock, n, c, h, w);
              }));
}

const Chapter chapter(1, "Values", check);

}  // namespace

}  // namespace mtcki::course
