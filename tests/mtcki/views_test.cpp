// Views of a batch of images: what is drawn, and what a draw does.
#include "mtcki/synthesis/views.h"

#include <gtest/gtest.h>

#include <set>

#include "tensor/rng.h"

namespace mtcki {
namespace {

TEST(Views, BoxesAreInsideAndLargeEnough) {
  const auto p = draw_views(500, 28, 28, 4, true, 0.25, Rng{1, 2, 3});
  const auto box = p.box.to_vector<float>();
  for (size_t i = 0; i < box.size(); i += 4) {
    EXPECT_GE(box[i], 0);
    EXPECT_GE(box[i + 1], 0);
    EXPECT_LE(box[i] + box[i + 2], 28.001);
    EXPECT_LE(box[i + 1] + box[i + 3], 28.001);
    EXPECT_GE(box[i + 2] * box[i + 3], 0.2 * 784);
  }
  for (const int32_t o : p.offset.to_vector<int32_t>()) {
    EXPECT_GE(o, 0);
    EXPECT_LE(o, 8);
  }
}

// A shift in a circle and a mirror for the whole batch: every draw is one of the 2·9 that there are,
// and each of them comes.
TEST(Views, RollIsACyclicShiftOfTheWholeBatch) {
  const Shape shape{2, 2, 4, 5};
  const Variable x(rand(shape, Rng{1, 1, 1}));
  const auto in = x.data().to_vector<float>();
  std::set<int> seen;
  for (uint64_t draw = 0; draw < 200; ++draw) {
    ViewParameters p;
    draw_roll(shape, 1, true, Rng{5, 5, draw}, &p);
    const auto out = global_view(x, p, 0).data().to_vector<float>();
    int found = -1;
    for (int code = 0; code < 18; ++code) {
      const int down = code % 3 - 1, right = code / 3 % 3 - 1;
      bool same = true;
      for (int i = 0; same && i < static_cast<int>(out.size()); ++i) {
        const int column = i % 5, row = i / 5 % 4, plane = i / 20;
        const int from = (column - right + 5) % 5;
        same = out[static_cast<size_t>(i)] ==
               in[static_cast<size_t>((plane * 4 + (row - down + 4) % 4) * 5 +
                                      (code < 9 ? from : 4 - from))];
      }
      if (same) found = code;
    }
    ASSERT_GE(found, 0) << "draw " << draw;
    seen.insert(found);
  }
  EXPECT_EQ(seen.size(), 18u);
}

}  // namespace
}  // namespace mtcki
