// Views of a batch of images: what is drawn, and what a draw does.
#include "mtcki/synthesis/views.h"

#include <gtest/gtest.h>

#include <set>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
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

// Parameters of one image.
ViewParameters of_one(int32_t down, int32_t right, bool flip,
                      std::vector<float> box = {0, 0, 0, 0}) {
  ViewParameters p;
  p.offset = Tensor::from(std::vector<int32_t>{down, right}, {1, 2});
  p.flip = Tensor::full({1}, flip ? 1.0 : 0.0, DType::boolean);
  p.local_flip = p.flip;
  p.box = Tensor::from(box, {1, 4});
  return p;
}

// Pixel (i, j) of the view is pixel (i + down − pad, j + right − pad) of the image, 0 outside; then
// the mirror.
TEST(Views, GlobalIsAShiftOverZeros) {
  const int pad = 2, height = 4, width = 5;
  const Variable x(rand({1, 2, height, width}, Rng{1, 1, 1}));
  const auto in = x.data().to_vector<float>();
  for (int down = 0; down <= 2 * pad; ++down)
    for (int right = 0; right <= 2 * pad; ++right)
      for (const bool flip : {false, true}) {
        const auto out = global_view(x, of_one(down, right, flip), pad).data().to_vector<float>();
        ASSERT_EQ(out.size(), in.size());
        for (int i = 0; i < static_cast<int>(out.size()); ++i) {
          const int column = i % width, y = i / width % height + down - pad,
                    x0 = (flip ? width - 1 - column : column) + right - pad;
          const bool inside = y >= 0 && y < height && x0 >= 0 && x0 < width;
          const int at = (i / (width * height) * height + y) * width + x0;
          EXPECT_EQ(out[static_cast<size_t>(i)], inside ? in[static_cast<size_t>(at)] : 0.0f)
              << down << " " << right << " " << flip << " at " << i;
        }
      }
}

TEST(Views, GlobalWithoutPadAndMirrorIsTheImage) {
  const Variable x(rand({2, 3, 4, 4}, Rng{1, 1, 1}));
  const auto p = draw_views(2, 4, 4, 0, false, 1.0, Rng{1, 2, 3});
  EXPECT_EQ(global_view(x, p, 0).impl(), x.impl());
}

// The whole image is itself; the left half of a ramp is a ramp of half the slope, sampled between
// the pixels and cut at the border.
TEST(Views, LocalIsTheBoxAtTheSizeOfTheImage) {
  const Variable x(rand({1, 3, 4, 6}, Rng{1, 1, 1}));
  const auto whole = local_view(x, of_one(0, 0, false, {0, 0, 4, 6}));
  EXPECT_TRUE(allclose(whole.data(), x.data(), 1e-6, 1e-6));

  const Variable ramp(Tensor::from(std::vector<float>{0, 1, 2, 3, 0, 1, 2, 3}, {1, 1, 2, 4}));
  const auto left = local_view(ramp, of_one(0, 0, false, {0, 0, 2, 2}));
  const std::vector<float> want = {0, 0.25f, 0.75f, 1.25f, 0, 0.25f, 0.75f, 1.25f};
  EXPECT_EQ(left.data().to_vector<float>(), want);
  const auto mirrored = local_view(ramp, of_one(0, 0, true, {0, 0, 2, 2}));
  EXPECT_EQ(mirrored.data().to_vector<float>(),
            (std::vector<float>{1.25f, 0.75f, 0.25f, 0, 1.25f, 0.75f, 0.25f, 0}));
  const auto right = local_view(ramp, of_one(0, 0, false, {0, 2, 2, 2}));
  EXPECT_EQ(right.data().to_vector<float>(),
            (std::vector<float>{1.75f, 2.25f, 2.75f, 3, 1.75f, 2.25f, 2.75f, 3}));
}

// Each image of a batch has its own draw.
TEST(Views, ImagesAreDrawnOneByOne) {
  const int64_t n = 64;
  const auto p = draw_views(n, 8, 8, 2, true, 0.25, Rng{7, 2, 3});
  const Tensor one = rand({1, 1, 8, 8}, Rng{1, 1, 1});
  const Tensor x = cat(std::vector<Tensor>(static_cast<size_t>(n), one), 0);
  for (const Tensor& out : {global_view(x, p, 2).data(), local_view(x, p).data()}) {
    std::set<std::vector<float>> seen;
    for (int64_t i = 0; i < n; ++i) seen.insert(out.slice(i, i + 1).to_vector<float>());
    EXPECT_GT(seen.size(), 25u);  // of 50 shifts and mirrors, and of any number of boxes
  }
}

}  // namespace
}  // namespace mtcki
