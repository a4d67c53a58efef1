#include "tensor/layout.h"

#include "tensor/error.h"

namespace mtcki {

const char* name_of(Layout layout) {
  switch (layout) {
    case Layout::plain: return "plain";
    case Layout::channels_last: return "channels_last";
    case Layout::blocked: return "blocked";
  }
  return "?";
}

ChannelView channel_view(const Shape& s, Layout layout) {
  if (s.rank() == 2) return {s[0], 1, 1, s[1]};
  if (s.rank() != 4) throw ShapeError(str("channel_view: needs rank 2 or 4, got ", s));
  const int64_t n = s[0], c = s[1], hw = s[2] * s[3];
  switch (layout) {
    case Layout::plain: return {n, c, hw, 1};
    case Layout::channels_last: return {n * hw, 1, 1, c};
    case Layout::blocked: return {n, c / kChannelBlock, hw, kChannelBlock};
  }
  return {};
}

}  // namespace mtcki
