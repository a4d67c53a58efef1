// Pooling and upsampling against plain loops, PyTorch's numbers and the adjoint identity.
#include "tensor/ops/pool.h"

#include <gmock/gmock.h>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki::pool_test {
namespace {

using namespace testing;
using ::testing::HasSubstr;

double dot(const Tensor& a, const Tensor& b) { return sum(mul(a.plain(), b.plain())).item(); }

std::vector<Pool2dOptions> pool_options() {
  Pool2dOptions odd;
  odd.kernel = {3, 2};
  odd.stride = {2, 1};
  odd.padding = {1, 0};
  Pool2dOptions ceil(3, 2, 1);
  ceil.ceil_mode = true;
  Pool2dOptions inside = ceil;
  inside.count_include_pad = false;
  return {Pool2dOptions(2),
          Pool2dOptions(3),
          Pool2dOptions(3, 2, 1),
          Pool2dOptions(2, 1, 1),
          odd,
          ceil,
          inside};
}

// For every output pixel the list of input pixels inside the image, and the size of the window.
struct Window {
  std::vector<int64_t> pixels;
  double padded;
};
std::vector<Window> windows(int64_t h, int64_t w, int64_t oh, int64_t ow, const Pool2dOptions& o) {
  std::vector<Window> result;
  for (int64_t i = 0; i < oh; ++i)
    for (int64_t j = 0; j < ow; ++j) {
      Window window{{}, 0};
      for (int64_t r = 0; r < o.kernel[0]; ++r)
        for (int64_t c = 0; c < o.kernel[1]; ++c) {
          const int64_t y = i * o.stride[0] - o.padding[0] + r;
          const int64_t x = j * o.stride[1] - o.padding[1] + c;
          if (y < h + o.padding[0] && x < w + o.padding[1]) window.padded += 1;
          if (y >= 0 && y < h && x >= 0 && x < w) window.pixels.push_back(y * w + x);
        }
      result.push_back(window);
    }
  return result;
}

TEST(MaxPool, EveryLayoutAndOption) {
  for (int64_t c : channel_counts())
    for (const Pool2dOptions& o : pool_options())
      for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
        const Tensor x = sample({2, c, 7, 6}, 1, dtype);
        const Values v = values(x);
        for (Layout layout : layouts(c)) {
          const MaxPool p = max_pool2d(x.to(layout), o);
          EXPECT_EQ(p.y.layout(), layout);
          EXPECT_EQ(p.index.layout(), layout);
          const int64_t oh = p.y.size(2), ow = p.y.size(3);
          const auto win = windows(7, 6, oh, ow, o);
          const Values y = values(p.y), index = values(p.index);
          for (int64_t plane = 0; plane < 2 * c; ++plane)
            for (size_t k = 0; k < win.size(); ++k) {
              int64_t best = win[k].pixels[0];
              const auto at = [&](int64_t q) { return v[static_cast<size_t>(plane * 42 + q)]; };
              for (int64_t q : win[k].pixels)
                if (at(q) > at(best)) best = q;
              const size_t out = static_cast<size_t>(plane * oh * ow) + k;
              ASSERT_EQ(y[out], at(best));
              ASSERT_EQ(index[out], static_cast<double>(best));
            }
        }
      }
}

TEST(MaxPool, GradientGoesToTheMaximum) {
  for (int64_t c : {int64_t{3}, kChannelBlock})
    for (const Pool2dOptions& o : pool_options())
      for (Layout layout : layouts(c)) {
        const Tensor x = sample({2, c, 7, 6}, 1).to(layout);
        const MaxPool p = max_pool2d(x, o);
        const Tensor g = sample(p.y.shape(), 2).to(layout);
        const Tensor gx = max_pool2d_grad(g, p.index, x.shape(), o);
        EXPECT_EQ(gx.layout(), layout);
        EXPECT_NEAR(dot(gx, x), dot(g, p.y), 1e-10);  // linear on the chosen branch
        if (c == 3 && layout == Layout::plain) {
          EXPECT_TRUE(
              matches_numeric([&](const Tensor& t) { return max_pool2d(t, o).y; }, x, g, gx));
        }
      }
}

TEST(MaxPool, NanWinsAndFirstOfEqual) {
  const Tensor x = Tensor::from<float>({1, NAN, 3, 4, 2, 2, 2, 2}, {1, 2, 2, 2});
  const MaxPool p = max_pool2d(x, Pool2dOptions(2));
  EXPECT_TRUE(std::isnan(values(p.y)[0]));
  EXPECT_EQ(values(p.index)[1], 0);
}

TEST(AvgPool, EveryLayoutAndOptionWithAdjoint) {
  for (int64_t c : channel_counts())
    for (const Pool2dOptions& o : pool_options())
      for (DType dtype : {DType::f32, DType::f64}) {
        const Tensor x = sample({2, c, 7, 6}, 1, dtype);
        const Values v = values(x);
        for (Layout layout : layouts(c)) {
          const Tensor y = avg_pool2d(x.to(layout), o);
          const auto win = windows(7, 6, y.size(2), y.size(3), o);
          Values want;
          for (int64_t plane = 0; plane < 2 * c; ++plane)
            for (const Window& w : win) {
              double total = 0;
              for (int64_t q : w.pixels) total += v[static_cast<size_t>(plane * 42 + q)];
              want.push_back(
                  total / (o.count_include_pad ? w.padded : static_cast<double>(w.pixels.size())));
            }
          EXPECT_EQ(y.layout(), layout);
          EXPECT_TRUE(near(y, want, tolerance(dtype)));
          const Tensor g = sample(y.shape(), 2, dtype).to(layout);
          const Tensor gx = avg_pool2d_grad(g, x.shape(), o);
          EXPECT_EQ(gx.layout(), layout);
          EXPECT_NEAR(dot(gx, x), dot(g, y), 1e3 * tolerance(dtype));
        }
      }
}

TEST(Pool, AWindowThatStartsInsideMayLeaveTheImageWithCeilMode) {
  Pool2dOptions o(3, 2, 0);
  o.ceil_mode = true;
  const Tensor x = Tensor::from(std::vector<double>{1, 4, 3, 2}, {1, 1, 2, 2});
  EXPECT_TRUE(near(max_pool2d(x, o).y, {4}, 0));
}

TEST(Pool, EqualsPyTorch) {
  const Tensor x = steps({1, 1, 5, 5});
  Pool2dOptions a(3, 2, 1), b(2);
  a.ceil_mode = b.ceil_mode = true;
  EXPECT_TRUE(near(max_pool2d(x, a).y, {1.25, 1.25, 1, 1, 1.25, 0.75, 1, 1.25, 1.25}, 0));
  EXPECT_TRUE(near(max_pool2d(x, b).y, {1.25, 0.75, 1, 1, 1.25, -0.25, 0.5, 1.25, 0.25}, 0));
  EXPECT_TRUE(near(avg_pool2d(x, a),
                   {-0.0277777778, 0.0277777778, -0.138888889, 0, 0.0277777778, -0.166666667,
                    0.0277777778, 0.111111111, 0.222222222},
                   1e-9));
  EXPECT_TRUE(
      near(avg_pool2d(x, b), {-0.0625, 0, -0.125, 0.25, 0.3125, -0.5, -0.375, 0.375, 0.25}, 1e-12));
  a.count_include_pad = false;
  EXPECT_TRUE(near(
      avg_pool2d(x, a),
      {-0.0625, 0.0416666667, -0.3125, 0, 0.0277777778, -0.25, 0.0625, 0.166666667, 0.5}, 1e-9));
  EXPECT_TRUE(near(adaptive_avg_pool2d(x, 3, 2),
                   {0.125, -0.0416666667, 0.111111111, -0.0555555556, -0.208333333, 0.0833333333},
                   1e-9));
  EXPECT_TRUE(near(upsample_nearest2d(steps({1, 1, 3, 4}), 8, 3),
                   {-0.5, 1.25, 0.25, -0.5, 1.25, 0.25, -0.5,  1.25,  0.25, 1,     0,     -1,
                    1,    0,    -1,   1,    0,    -1,   -0.25, -1.25, 0.5,  -0.25, -1.25, 0.5},
                   0));
}

TEST(AdaptivePool, EveryLayoutWithAdjoint) {
  for (int64_t c : channel_counts())
    for (auto [oh, ow] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 2}, {7, 6}, {9, 4}}) {
      const Tensor x = sample({2, c, 7, 6}, 1);
      const Values v = values(x);
      Values want;
      for (int64_t plane = 0; plane < 2 * c; ++plane)
        for (int64_t i = 0; i < oh; ++i)
          for (int64_t j = 0; j < ow; ++j) {
            double total = 0, count = 0;
            for (int64_t r = i * 7 / oh; r < ((i + 1) * 7 + oh - 1) / oh; ++r)
              for (int64_t q = j * 6 / ow; q < ((j + 1) * 6 + ow - 1) / ow; ++q, ++count)
                total += v[static_cast<size_t>(plane * 42 + r * 6 + q)];
            want.push_back(total / count);
          }
      for (Layout layout : layouts(c)) {
        const Tensor y = adaptive_avg_pool2d(x.to(layout), oh, ow);
        EXPECT_TRUE(near(y, want, 1e-12));
        const Tensor g = sample(y.shape(), 2).to(layout);
        EXPECT_NEAR(dot(adaptive_avg_pool2d_grad(g, x.shape()), x), dot(g, y), 1e-11);
      }
    }
}

TEST(GlobalAvgPool, EveryLayoutWithGradient) {
  for (int64_t c : channel_counts())
    for (const Shape& shape : {Shape{3, c, 5, 7}, Shape{1, c, 1, 1}, Shape{2, c, 24, 24}})
      for (DType dtype : {DType::f32, DType::f64}) {
        const Tensor x = sample(shape, 1, dtype), want = mean(x, {2, 3});
        for (Layout layout : layouts(c)) {
          const Tensor y = global_avg_pool(x.to(layout));
          EXPECT_TRUE(y.is_plain());
          EXPECT_TRUE(near(y, want, tolerance(dtype)));
          const Tensor g = sample(y.shape(), 2, dtype);
          const Tensor gx = global_avg_pool_grad(g, shape, layout);
          EXPECT_EQ(gx.layout(), layout);
          const double pixels = static_cast<double>(shape[2] * shape[3]);
          const Tensor spread = mul(g.reshape({shape[0], c, 1, 1}), 1 / pixels);
          EXPECT_TRUE(near(gx, values(broadcast_to(spread, shape)), tolerance(dtype)));
        }
      }
}

TEST(Upsample, EveryLayoutAndFactorWithAdjoint) {
  for (int64_t c : channel_counts())
    for (auto [oh, ow] :
         std::vector<std::pair<int64_t, int64_t>>{{6, 10}, {3, 5}, {9, 15}, {7, 8}, {2, 3}, {6, 7}})
      for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
        const Tensor x = sample({2, c, 3, 5}, 1, dtype);
        const Values v = values(x);
        Values want;
        for (int64_t plane = 0; plane < 2 * c; ++plane)
          for (int64_t i = 0; i < oh; ++i)
            for (int64_t j = 0; j < ow; ++j)
              want.push_back(v[static_cast<size_t>(plane * 15 + i * 3 / oh * 5 + j * 5 / ow)]);
        for (Layout layout : layouts(c)) {
          const Tensor y = upsample_nearest2d(x.to(layout), oh, ow);
          EXPECT_EQ(y.layout(), layout);
          EXPECT_TRUE(near(y, want, 0)) << oh << " " << ow << y.describe();
          if (dtype == DType::bf16) continue;
          const Tensor g = sample(y.shape(), 2, dtype).to(layout);
          EXPECT_NEAR(dot(upsample_nearest2d_grad(g, x.shape()), x), dot(g, y),
                      1e3 * tolerance(dtype));
        }
      }
}

TEST(Pool, EmptyBatches) {
  const Tensor x = Tensor::zeros({0, 3, 4, 4});
  EXPECT_EQ(max_pool2d(x, Pool2dOptions(2)).y.shape(), (Shape{0, 3, 2, 2}));
  EXPECT_EQ(avg_pool2d(x, Pool2dOptions(2)).shape(), (Shape{0, 3, 2, 2}));
  EXPECT_EQ(global_avg_pool(x).shape(), (Shape{0, 3}));
  EXPECT_EQ(upsample_nearest2d(x, 8, 8).shape(), (Shape{0, 3, 8, 8}));
  EXPECT_EQ(avg_pool2d_grad(Tensor::zeros({0, 3, 2, 2}), x.shape(), Pool2dOptions(2)).shape(),
            x.shape());
}

TEST(Pool, Errors) {
  const Tensor x = Tensor::zeros({1, 3, 2, 2});
  EXPECT_THAT(error_of<ShapeError>([&] { max_pool2d(x, Pool2dOptions(3)); }),
              HasSubstr("max_pool2d: kernel 3 is larger than the padded input 2"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                max_pool2d(Tensor::zeros({2, 16, 3, 0}), Pool2dOptions(2, 2, 1));
              }),
              HasSubstr("max_pool2d: the planes are empty"));
  EXPECT_THAT(error_of<Error>([&] { avg_pool2d(x, Pool2dOptions(2, 2, 2)); }),
              HasSubstr("padding 2 exceeds half of kernel 2"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                global_avg_pool(Tensor::zeros({2, 3}));
              }),
              HasSubstr("global_avg_pool: input needs rank 4"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                avg_pool2d_grad(x, {1, 3, 9, 9}, Pool2dOptions(2));
              }),
              HasSubstr("gy does not belong to an input [1, 3, 9, 9]"));
}

}  // namespace
}  // namespace mtcki::pool_test
