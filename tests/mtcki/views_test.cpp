// Views of a batch of images: what is drawn, and what a draw does.
#include "mtcki/synthesis/views.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace mtcki
