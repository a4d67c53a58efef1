// Differentiable augmentation against the documented formulas and its adjoint; optimiser updates
// against PyTorch's numbers.
#include <gmock/gmock.h>

#include "tensor/ops/augment.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/update.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

double dot(const Tensor& a, const Tensor& b) { return sum(mul(a.plain(), b.plain())).item(); }

Tensor flips(std::vector<int64_t> v) {
  const int64_t n = static_cast<int64_t>(v.size());
  return Tensor::from(v, {n}).to(DType::boolean);
}

TEST(PadCropFlip, FollowsTheFormula) {
  const int64_t n = 6, c = 2, h = 4, w = 5, pad = 3;
  const Tensor x = sample({n, c, h, w}, 1);
  const std::vector<int32_t> offset{0, 0, 6, 6, 3, 3, 0, 6, 5, 1, 2, 4};
  const std::vector<int64_t> flip{0, 1, 1, 0, 1, 0};
  const Tensor to = Tensor::from(offset, {n, 2}), tf = flips(flip);
  const Tensor y = pad_crop_flip(x, pad, to, tf);
  const Values vx = values(x), vy = values(y);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < c; ++k)
      for (int64_t r = 0; r < h; ++r)
        for (int64_t q = 0; q < w; ++q) {
          const int64_t mirrored = flip[static_cast<size_t>(i)] ? w - 1 - q : q;
          const int64_t sy = r + offset[static_cast<size_t>(2 * i)] - pad;
          const int64_t sx = mirrored + offset[static_cast<size_t>(2 * i + 1)] - pad;
          const double want = sy < 0 || sy >= h || sx < 0 || sx >= w
                                  ? 0
                                  : vx[static_cast<size_t>(((i * c + k) * h + sy) * w + sx)];
          ASSERT_EQ(vy[static_cast<size_t>(((i * c + k) * h + r) * w + q)], want);
        }
  const Tensor g = sample(y.shape(), 2);
  const Tensor gx = pad_crop_flip_grad(g, pad, to, tf);
  EXPECT_NEAR(dot(gx, x), dot(g, y), 1e-11);
  EXPECT_TRUE(
      matches_numeric([&](const Tensor& t) { return pad_crop_flip(t, pad, to, tf); }, x, g, gx));
  EXPECT_TRUE(identical(pad_crop_flip(x, pad, {}, {}), x));
  EXPECT_TRUE(identical(pad_crop_flip(x.to(Layout::channels_last), pad, to, tf), y));
}

TEST(PadCropFlip, Errors) {
  const Tensor x = Tensor::zeros({2, 1, 3, 3});
  EXPECT_THAT(error_of<Error>([&] {
                pad_crop_flip(x, 1, Tensor::from<int32_t>({0, 0, 3, 0}, {2, 2}), {});
              }),
              HasSubstr("pad_crop_flip: offset 3 of image 1 is outside 0..2"));
  EXPECT_THAT(error_of<ShapeError>([&] { pad_crop_flip(x, 1, {}, flips({1})); }),
              HasSubstr("flip needs one entry per image"));
  EXPECT_THAT(error_of<DTypeError>([&] {
                pad_crop_flip(x, 1, Tensor::zeros({2, 2}), {});
              }),
              HasSubstr("offset needs dtype i32"));
}

double bilinear(const Values& plane, size_t at, int64_t h, int64_t w, double y, double x) {
  y = std::min(std::max(y, 0.0), static_cast<double>(h - 1));
  x = std::min(std::max(x, 0.0), static_cast<double>(w - 1));
  double value = 0;  // the tent around every pixel
  for (int64_t i = 0; i < h; ++i)
    for (int64_t j = 0; j < w; ++j)
      value += std::max(0.0, 1 - std::fabs(y - static_cast<double>(i))) *
               std::max(0.0, 1 - std::fabs(x - static_cast<double>(j))) *
               plane[at + static_cast<size_t>(i * w + j)];
  return value;
}

TEST(ResizedCropFlip, FollowsTheFormula) {
  const int64_t n = 4, c = 2, h = 6, w = 5;
  const Tensor x = sample({n, c, h, w}, 1);
  const std::vector<float> box{0, 0, 6, 5, 1, 2, 3, 2, 2.5f, 0.25f, 1.5f, 3.5f, 5, 4, 1, 1};
  const std::vector<int64_t> flip{0, 1, 0, 1};
  const Tensor tb = Tensor::from(box, {n, 4}), tf = flips(flip);
  for (auto [oh, ow] : std::vector<std::pair<int64_t, int64_t>>{{6, 5}, {3, 7}, {1, 1}, {9, 2}}) {
    const Tensor y = resized_crop_flip(x, tb, tf, oh, ow);
    Values want;
    const Values v = values(x);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t k = 0; k < c; ++k)
        for (int64_t r = 0; r < oh; ++r)
          for (int64_t q = 0; q < ow; ++q) {
            const float* b = box.data() + 4 * i;
            const int64_t m = flip[static_cast<size_t>(i)] ? ow - 1 - q : q;
            const double sy =
                b[0] + (static_cast<double>(r) + 0.5) * b[2] / static_cast<double>(oh) - 0.5;
            const double sx =
                b[1] + (static_cast<double>(m) + 0.5) * b[3] / static_cast<double>(ow) - 0.5;
            want.push_back(bilinear(v, static_cast<size_t>((i * c + k) * h * w), h, w, sy, sx));
          }
    EXPECT_TRUE(near(y, want, 1e-12)) << oh << " " << ow;
    EXPECT_TRUE(near(resized_crop_flip(x.to(DType::f32), tb, tf, oh, ow), want, 1e-6));
    const Tensor g = sample(y.shape(), 2);
    EXPECT_TRUE(matches_numeric(
        [&, oh = oh, ow = ow](const Tensor& t) { return resized_crop_flip(t, tb, tf, oh, ow); }, x,
        g, resized_crop_flip_grad(g, tb, tf, x.shape())));
  }
  // The whole image in place is the image.
  const Tensor whole = Tensor::from<float>({0, 0, 6, 5}, {1, 4});
  EXPECT_TRUE(near(resized_crop_flip(x.slice(0, 1), whole, {}, h, w), x.slice(0, 1), 0));
}

TEST(ResizedCropFlip, EqualsPyTorchInterpolate) {
  const Tensor y =
      resized_crop_flip(steps({1, 1, 4, 5}), Tensor::from<float>({0, 0, 4, 5}, {1, 4}), {}, 3, 7);
  EXPECT_TRUE(near(y, {-0.416666667, 0.321428571,  0.720238095, 0.333333333,
                       -0.380952381, -0.113095238, 0.625,       0.25,
                       -0.321428571, -0.25,        1,           0.285714286,
                       -0.428571429, -1,           0.916666667, 0.345238095,
                       -0.238095238, -0.625,       0.297619048, 0.238095238,
                       -0.333333333},
                   1e-8));
}

TEST(ResizedCropFlip, Errors) {
  const Tensor x = Tensor::zeros({1, 1, 3, 3});
  EXPECT_THAT(error_of<Error>([&] {
                resized_crop_flip(x, Tensor::from<float>({0, 0, 0, 3}, {1, 4}), {}, 3, 3);
              }),
              HasSubstr("box of image 0 is (0, 0, 0, 3)"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                resized_crop_flip(x, Tensor::zeros({2, 4}), {}, 3, 3);
              }),
              HasSubstr("box needs shape [1, 4]"));
}

TEST(NormalizeChannels, EveryLayout) {
  for (int64_t c : channel_counts()) {
    const Tensor x = sample({2, c, 3, 5}, 1), mean = sample({c}, 2);
    const Tensor std = add(abs(sample({c}, 3)), 0.5), g = sample(x.shape(), 4);
    const Tensor m = mean.reshape({c, 1, 1}), s = std.reshape({c, 1, 1});
    for (Layout layout : layouts(c)) {
      const Tensor y = normalize_channels(x.to(layout), mean, std);
      EXPECT_EQ(y.layout(), layout);
      EXPECT_TRUE(near(y, values(div(sub(x, m), s)), 1e-12));
      EXPECT_TRUE(near(normalize_channels_grad(g.to(layout), std), values(div(g, s)), 1e-12));
    }
  }
  EXPECT_THAT(
      error_of<ShapeError>([] {
        normalize_channels(Tensor::zeros({1, 3, 2, 2}), Tensor::zeros({1}), Tensor::zeros({3}));
      }),
      HasSubstr("mean needs shape [3], one value per channel"));
}

// ---- updates ----

// steps({5}) rotated by `by`, times `factor`: the gradients that PyTorch was given.
Tensor gradient(int64_t by, double factor) {
  const Values v = values(steps({5}));
  Values g(5);
  for (int64_t i = 0; i < 5; ++i)
    g[static_cast<size_t>((i + by) % 5)] = factor * v[static_cast<size_t>(i)];
  return Tensor::from(g, {5});
}

Tensor sgd(SgdUpdate u, DType dtype = DType::f64) {
  const Tensor p = steps({5}, dtype), b = Tensor::full({5}, NAN, dtype);
  u.lr = 0.1;
  u.weight_decay = 0.01;
  for (int64_t s = 0; s < 3; ++s) {
    u.step = static_cast<double>(s + 1);
    const uint32_t version = p.version();
    sgd_update_({p}, {gradient(s, static_cast<double>(s + 1) / u.grad_scale.value()).to(dtype)},
                u.momentum != 0 ? std::vector<Tensor>{b} : std::vector<Tensor>{}, u);
    EXPECT_GT(p.version(), version);
  }
  return p;
}

TEST(Sgd, EqualsPyTorch) {
  SgdUpdate u;
  EXPECT_TRUE(
      near(sgd(u), {-0.423401449, 0.921403624, 0.124550725, -1.09785217, 0.972052899}, 1e-8));
  u.momentum = 0.9;
  const Values momentum{-0.51668735, 0.794618374, -0.143806325, -1.01278102, 0.933624699};
  EXPECT_TRUE(near(sgd(u), momentum, 1e-8));
  EXPECT_TRUE(near(sgd(u, DType::f32), momentum, 1e-6));
  EXPECT_TRUE(near(sgd(u, DType::bf16), momentum, 2e-2));
  u.grad_scale = 4;
  EXPECT_TRUE(near(sgd(u), momentum, 1e-8));
  u.grad_scale = 1;
  u.dampening = 0.5;
  EXPECT_TRUE(
      near(sgd(u), {-0.439966062, 0.851265156, 0.0188205312, -0.778761594, 0.829994625}, 1e-8));
  u.dampening = 0;
  u.nesterov = true;
  EXPECT_TRUE(
      near(sgd(u), {-0.438325008, 0.512006519, -0.229323996, -1.33464001, 0.912552515}, 1e-8));
}

TEST(Sgd, DecoupledDecayLeavesTheMomentumAlone) {
  SgdUpdate u;
  u.lr = 0.1;
  u.weight_decay = 0.5;
  u.decoupled = true;
  u.momentum = 0.9;
  const Tensor p = Tensor::full({3}, 2.0), g = Tensor::full({3}, 1.0), b = Tensor::zeros({3});
  sgd_update_({p}, {g}, {b}, u);
  EXPECT_TRUE(near(p, {1.8, 1.8, 1.8}, 1e-6));  // 2*(1 - 0.05) - 0.1
  EXPECT_TRUE(near(b, {1, 1, 1}, 0));
}

TEST(Adam, EqualsPyTorch) {
  AdamUpdate u;
  u.lr = 0.1;
  u.beta1 = 0.5;
  u.beta2 = 0.99;
  u.weight_decay = 0.01;
  for (bool decoupled : {false, true})
    for (DType dtype : {DType::f64, DType::f32}) {
      u.decoupled = decoupled;
      const Tensor p = steps({5}, dtype), m = Tensor::zeros({5}, dtype),
                   v = Tensor::zeros({5}, dtype);
      for (int64_t s = 1; s <= 3; ++s) {
        u.step = static_cast<double>(s);
        adam_update_({p}, {gradient(s - 1, static_cast<double>(s)).to(dtype)}, {m}, {v}, u);
      }
      const Values want =
          decoupled ? Values{-0.433997016, 1.08693059, 0.0576208612, -0.758419373, 0.936718062}
                    : Values{-0.434947695, 1.08910063, 0.0579705519, -0.759219102, 0.93806746};
      EXPECT_TRUE(near(p, want, dtype == DType::f64 ? 1e-8 : 2e-6)) << decoupled;
    }
  u.step = 0;
  EXPECT_THAT(error_of<Error>([&] { adam_update_({}, {}, {}, {}, u); }),
              HasSubstr("adam_update_: step counts from 1, got 0"));
}

TEST(Updates, ManyTensorsOfOddSizesAndLayouts) {
  // Each element moves by -lr*g whatever tensor it is in; the gradient may have another layout.
  std::vector<Tensor> p, g, want;
  for (int64_t n : {1, 0, 7, 16384, 16385, 40000}) {
    p.push_back(sample({n}, static_cast<uint64_t>(n), DType::f32));
    g.push_back(sample({n}, static_cast<uint64_t>(n + 1), DType::f32));
  }
  p.push_back(sample({2, kChannelBlock, 3, 3}, 1, DType::f32).to(Layout::blocked));
  g.push_back(sample({2, kChannelBlock, 3, 3}, 2, DType::f32));
  for (size_t i = 0; i < p.size(); ++i)
    want.push_back(sub(p[i].to(DType::f64), mul(g[i].to(DType::f64), 0.1)));
  SgdUpdate u;
  sgd_update_(p, g, {}, u);
  for (size_t i = 0; i < p.size(); ++i) EXPECT_TRUE(near(p[i], want[i], 1e-6));
  EXPECT_EQ(p.back().layout(), Layout::blocked);

  double squares = 0;
  for (const Tensor& t : g) squares += sum(square(t.to(DType::f64))).item();
  EXPECT_NEAR(global_norm(g), std::sqrt(squares), 1e-9 * squares);
  EXPECT_EQ(global_norm({}), 0);
}

TEST(Updates, EmaAndErrors) {
  const Tensor d = Tensor::full({4}, 1.0), s = Tensor::full({4}, 3.0);
  ema_update_({d}, {s}, 0.75);
  EXPECT_TRUE(near(d, {1.5, 1.5, 1.5, 1.5}, 1e-7));
  EXPECT_THAT(error_of<ShapeError>([&] { ema_update_({d}, {}, 0.5); }),
              HasSubstr("ema_update_: 0 source for 1 tensors"));
  EXPECT_THAT(
      error_of<ShapeError>([&] { sgd_update_({d}, {Tensor::zeros({3})}, {}, SgdUpdate()); }),
      HasSubstr("gradient 0 needs the tensor's shape"));
  EXPECT_THAT(error_of<Error>([&] { sgd_update_({d}, {Tensor()}, {}, SgdUpdate()); }),
              HasSubstr("gradient 0 is undefined"));
}

}  // namespace
}  // namespace mtcki
