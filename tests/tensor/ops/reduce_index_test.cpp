// Reductions and index ops against plain loops.
#include <gmock/gmock.h>

#include <limits>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

// Sum over the dimensions in `mask`, index by index.
Values sum_reference(const Tensor& x, unsigned mask) {
  const Shape& s = x.shape();
  const Values v = values(x);
  int64_t kept = 1;
  for (int d = 0; d < s.rank(); ++d) kept *= mask >> d & 1u ? 1 : s[d];
  Values y(static_cast<size_t>(kept), 0.0);
  for (int64_t k = 0; k < s.numel(); ++k) {
    int64_t rest = k, offset = 0, step = 1;
    for (int d = s.rank() - 1; d >= 0; --d) {
      if (!(mask >> d & 1u)) {
        offset += rest % s[d] * step;
        step *= s[d];
      }
      rest /= s[d];
    }
    y[static_cast<size_t>(offset)] += v[static_cast<size_t>(k)];
  }
  return y;
}

TEST(Sum, EverySubsetOfDimensionsInEveryLayout) {
  for (int64_t c : {int64_t{3}, 2 * kChannelBlock})
    for (DType dtype : {DType::f32, DType::f64}) {
      const Shape shape{3, c, 5, 4};
      const Tensor x = sample(shape, 3, dtype);
      for (unsigned mask = 1; mask < 16; ++mask) {
        std::vector<int> dims;
        Shape kept, dropped;
        double count = 1;
        for (int d = 0; d < 4; ++d) {
          const bool reduced = mask >> d & 1u;
          if (reduced) {
            dims.push_back(d % 2 ? d : d - 4);
            count *= static_cast<double>(shape[d]);
          } else {
            dropped.push_back(shape[d]);
          }
          kept.push_back(reduced ? 1 : shape[d]);
        }
        const Values want = sum_reference(x, mask);
        Values average = want;
        for (double& v : average) v /= count;
        for (Layout layout : layouts(c)) {
          const Tensor in = x.to(layout), y = sum(in, dims);
          EXPECT_EQ(y.shape(), dropped);
          EXPECT_EQ(sum(in, dims, true).shape(), kept);
          EXPECT_TRUE(near(y, want, tolerance(dtype) * 10)) << "mask " << mask << in.describe();
          EXPECT_TRUE(near(mean(in, dims, true), average, tolerance(dtype))) << "mask " << mask;
        }
      }
    }
}

TEST(Sum, LongRowsKeepTheirDigits) {
  // 3,000,000 tenths: a running f32 sum is off by percents, this one by 1e-6 at most.
  const Tensor x = Tensor::full({3000000}, 0.1);
  EXPECT_NEAR(sum(x).item(), 3000000.0 * static_cast<double>(0.1f), 0.3);
  EXPECT_NEAR(mean(x).item(), 0.1, 1e-7);
  EXPECT_NEAR(sum(x.reshape({3, 1000000}), {1}).to_vector<double>()[2], 1e5, 0.1);
  EXPECT_NEAR(sum(x.reshape({1000000, 3}), {0}).to_vector<double>()[1], 1e5, 0.1);
}

TEST(Sum, IntegersBoolsEmptyAndScalars) {
  EXPECT_EQ(sum(equal(Tensor::from<int64_t>({1, 2, 3}, {3}), Tensor::from<int64_t>({1, 0, 3}, {3})))
                .to_vector<int64_t>()[0],
            2);
  EXPECT_EQ(sum(Tensor::full({1000}, 250, DType::u8)).item(), 250000);
  EXPECT_EQ(sum(Tensor::zeros({0, 3})).item(), 0);
  EXPECT_EQ(values(sum(Tensor::zeros({0, 3}), {0})), (Values{0, 0, 0}));
  EXPECT_EQ(sum(Tensor::zeros({3, 0}), {0}).shape(), (Shape{0}));
  EXPECT_TRUE(std::isnan(mean(Tensor::zeros({0})).item()));
  EXPECT_EQ(sum(Tensor::scalar(2.5)).item(), 2.5);
  EXPECT_EQ(mean(Tensor::scalar(2.5, DType::f64)).item(), 2.5);
  EXPECT_NEAR(sum(Tensor::full({100}, 0.5, DType::bf16)).item(), 50, 0.5);
  EXPECT_THAT(error_of<ShapeError>([] { sum(Tensor::zeros({2}), {1}); }),
              HasSubstr("sum: dimension 1 is outside rank 1"));
  EXPECT_THAT(error_of<DTypeError>([] { mean(Tensor::zeros({2}, DType::i64)); }),
              HasSubstr("mean"));
}

TEST(Max, FirstOfEqualAndNan) {
  const Tensor x = Tensor::from<float>({1, 5, 5, 0, -1, -2, -1, -3}, {2, 4});
  EXPECT_EQ(values(max(x, 1)), (Values{5, -1}));
  EXPECT_EQ(values(argmax(x, 1)), (Values{1, 0}));
  EXPECT_EQ(values(argmax(x, 0)), (Values{0, 0, 0, 0}));
  EXPECT_EQ(max(x, -2, true).shape(), (Shape{1, 4}));
  EXPECT_EQ(argmax(Tensor::from<float>({1, NAN, 7}, {1, 3}), 1).item(), 1);
  EXPECT_EQ(argmax(x, 1).dtype(), DType::i64);
  const Tensor r = sample({2, 3, 4, 5}, 9);
  const Values v = values(r), m = values(max(r, 1)), a = values(argmax(r, 1));
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t q = 0; q < 20; ++q) {
      double best = -1e9;
      for (int64_t c = 0; c < 3; ++c)
        best = std::max(best, v[static_cast<size_t>((n * 3 + c) * 20 + q)]);
      const size_t o = static_cast<size_t>(n * 20 + q);
      EXPECT_EQ(m[o], best);
      EXPECT_EQ(v[static_cast<size_t>((n * 3 + static_cast<int64_t>(a[o])) * 20 + q)], best);
    }
  EXPECT_THAT(error_of<ShapeError>([] {
                argmax(Tensor::zeros({2, 0}), 1);
              }),
              HasSubstr("has no maximum"));
}

TEST(Norm, IsEuclideanAndDoesNotOverflow) {
  EXPECT_NEAR(norm(Tensor::from<float>({3, 4}, {2})).item(), 5, 1e-6);
  EXPECT_NEAR(norm(Tensor::full({100000}, 1e18)).item(), 1e18 * std::sqrt(1e5), 1e14 * 1e3);
  EXPECT_EQ(norm(Tensor::zeros({0})).item(), 0);
}

TEST(Broadcast, AndSumToAreAdjoint) {
  const Shape big{2, 3, 4, 5};
  for (const Shape& small : {Shape{2, 3, 4, 5}, Shape{1, 3, 1, 5}, Shape{3, 1, 1}, Shape{5},
                             Shape{1}, Shape{}, Shape{2, 1, 1, 1}}) {
    const Tensor x = sample(small, 1), g = sample(big, 2);
    const Tensor y = broadcast_to(x, big), back = sum_to(g, small);
    EXPECT_EQ(y.shape(), big);
    EXPECT_EQ(back.shape(), small);
    EXPECT_NEAR(sum(mul(y, g)).item(), sum(mul(x, back)).item(), 1e-12) << small;
    EXPECT_TRUE(near(y, add(Tensor::zeros(big, DType::f64), x), 0));
  }
  const Shape blocks{2, 2 * kChannelBlock, 3, 4};
  for (const Shape& small : {Shape{2, 2 * kChannelBlock, 1, 1}, Shape{2 * kChannelBlock, 1, 1},
                             Shape{}, Shape{3, 4}, Shape{1, 2 * kChannelBlock, 3, 1}}) {
    const Tensor x = sample(small, 3), want = broadcast_to(x, blocks);
    for (const Layout layout : {Layout::channels_last, Layout::blocked}) {
      const Tensor y = broadcast_to(x, blocks, layout);
      EXPECT_EQ(y.layout(), layout);
      EXPECT_TRUE(identical(y.plain(), want)) << small;
    }
  }
  EXPECT_EQ(broadcast_to(Tensor::zeros({1, 3}), {0, 3}).shape(), (Shape{0, 3}));
  EXPECT_THAT(error_of<ShapeError>([] { broadcast_to(Tensor::zeros({2}), {3}); }),
              HasSubstr("does not broadcast to [3]"));
  EXPECT_THAT(error_of<ShapeError>([] { sum_to(Tensor::zeros({2}), {3}); }),
              HasSubstr("is no broadcast of [3]"));
}

TEST(TopK, TiesCountForTheSmallerIndexAndNanNever) {
  const Tensor x = Tensor::from<float>({1, 3, 3, 0, 2, 2, 2, 2, NAN, 1, 0, 0}, {3, 4});
  const auto count = [&](std::vector<int64_t> labels, int k) {
    return count_topk_correct(x, Tensor::from(labels, {3}), k);
  };
  EXPECT_EQ(count({1, 0, 1}, 1), 3);  // rank of label 1 in the last row: NaN does not beat it
  EXPECT_EQ(count({2, 1, 0}, 1), 0);
  EXPECT_EQ(count({2, 1, 0}, 2), 2);
  EXPECT_EQ(count({3, 3, 0}, 3), 0);
  EXPECT_EQ(count({3, 3, 3}, 4), 3);
  EXPECT_THAT(error_of<Error>([&] { count({0, 0, 4}, 1); }), HasSubstr("label 4 of row 2"));
}

TEST(Cat, AlongEveryDimension) {
  for (int dim = 0; dim < 4; ++dim) {
    Shape sa{2, 3, 4, 5}, sb = sa;
    sb.set(dim, 2);
    const Tensor a = sample(sa, 1, DType::f32), b = sample(sb, 2, DType::f32);
    const Tensor y = cat({a, b, a}, dim);
    EXPECT_EQ(y.shape()[dim], 2 * sa[dim] + 2);
    EXPECT_TRUE(identical(narrow(y, dim, 0, sa[dim]), a));
    EXPECT_TRUE(identical(narrow(y, dim, sa[dim], sa[dim] + 2), b));
    EXPECT_TRUE(identical(narrow(y, dim - 4, sa[dim] + 2, 2 * sa[dim] + 2), a));
  }
  const Tensor x = sample({2, kChannelBlock, 2, 2}, 1, DType::f32).to(Layout::blocked);
  EXPECT_EQ(cat({x, x}).layout(), Layout::blocked);
  EXPECT_TRUE(identical(cat({x, x.plain()}).slice(2, 4), x));
  const Tensor wide = sample({2, 2 * kChannelBlock, 2, 2}, 2, DType::f32).to(Layout::blocked);
  const Tensor channels = cat({x, wide}, 1), rows = cat({x, x}, 2);
  EXPECT_EQ(channels.layout(), Layout::blocked);
  EXPECT_TRUE(identical(channels.plain(), cat({x.plain(), wide.plain()}, 1)));
  EXPECT_EQ(rows.layout(), Layout::plain);
  EXPECT_TRUE(identical(rows, cat({x.plain(), x.plain()}, 2)));
  EXPECT_EQ(cat({Tensor::zeros({0, 3}), Tensor::zeros({2, 3})}).shape(), (Shape{2, 3}));
  EXPECT_THAT(error_of<ShapeError>([] {
                cat({Tensor::zeros({2, 3}), Tensor::zeros({2, 4})});
              }),
              HasSubstr("cat: parts need equal sizes except in dimension 0"));
}

TEST(Narrow, GradientIsTheAdjoint) {
  for (int dim = 0; dim < 3; ++dim) {
    const Tensor x = sample({4, 5, 6}, 1), y = narrow(x, dim, 1, 3), g = sample(y.shape(), 2);
    const Tensor gx = narrow_grad(g, x.shape(), dim, 1);
    EXPECT_NEAR(sum(mul(y, g)).item(), sum(mul(x, gx)).item(), 1e-12);
    EXPECT_NEAR(norm(gx).item(), norm(g).item(), 1e-12);
  }
  const int64_t b = kChannelBlock;
  const Tensor x = sample({2, 3 * b, 2, 2}, 1, DType::f32), blocked = x.to(Layout::blocked);
  for (const int64_t begin : {b, b / 2}) {  // whole blocks, and others
    const Tensor y = narrow(blocked, 1, begin, 2 * b);
    EXPECT_EQ(y.layout(), begin == b ? Layout::blocked : Layout::plain);
    EXPECT_TRUE(identical(y.plain(), narrow(x, 1, begin, 2 * b)));
    EXPECT_TRUE(identical(narrow_grad(y, x.shape(), 1, begin).plain(),
                          narrow_grad(y.plain(), x.shape(), 1, begin)));
    // Added to a sum in either layout, in its memory or, where somebody holds it, beside it.
    for (const Layout layout : {Layout::plain, Layout::blocked}) {
      const Tensor sum = sample(x.shape(), 3, DType::f32).to(layout);
      const Tensor want = add(sum, narrow_grad(y, x.shape(), 1, begin)).plain();
      EXPECT_TRUE(identical(narrow_grad(y, x.shape(), 1, begin, sum).plain(), want));
      EXPECT_TRUE(identical(narrow_grad(y, x.shape(), 1, begin, mul(sum, 1.0)).plain(), want));
    }
  }
  const Tensor part = narrow(x, 1, 0, 1), other = Tensor::zeros({1, 1, 1, 1});
  EXPECT_THROW(narrow_grad(part, x.shape(), 1, 0, other), ShapeError);
  EXPECT_TRUE(identical(narrow(blocked, 2, 1, 2).plain(), narrow(x, 2, 1, 2)));
  EXPECT_EQ(narrow(Tensor::zeros({3, 2}), 0, 1, 1).shape(), (Shape{0, 2}));
  EXPECT_THAT(error_of<ShapeError>([] { narrow(Tensor::zeros({3}), 0, 2, 4); }),
              HasSubstr("[2, 4) is outside dimension 0"));
}

TEST(IndexSelect, InEveryLayout) {
  for (Layout layout : layouts(kChannelBlock))
    for (DType dtype : {DType::f32, DType::bf16, DType::u8}) {
      const Tensor x = abs(steps({5, kChannelBlock, 3, 3})).to(dtype).to(layout);
      const Tensor index = Tensor::from<int64_t>({4, 0, 4}, {3});
      const Tensor y = index_select(x, index);
      EXPECT_EQ(y.layout(), layout);
      EXPECT_TRUE(identical(y.slice(0, 1), x.slice(4, 5)));
      EXPECT_TRUE(identical(y.slice(1, 2), x.slice(0, 1)));
    }
  EXPECT_THAT(error_of<Error>([] {
                index_select(Tensor::zeros({3, 2}), Tensor::from<int64_t>({0, 3}, {2}));
              }),
              HasSubstr("index 3 at position 1 is outside 0..2"));
}

TEST(IndexSelect, GradientAddsRepeatedRows) {
  const Tensor g = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  const Tensor index = Tensor::from<int64_t>({3, 0, 3}, {3});
  EXPECT_EQ(values(index_select_grad(g, index, {4, 2})), (Values{3, 4, 0, 0, 0, 0, 6, 8}));
  EXPECT_EQ(values(index_select_grad(g.to(DType::bf16), index, {4, 2})),
            (Values{3, 4, 0, 0, 0, 0, 6, 8}));
  EXPECT_THAT(error_of<Error>([&] {
                index_select_grad(g, index, {3, 2});
              }),
              HasSubstr("index 3 at position 0 is outside 0..2"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                index_select_grad(g, index, {4, 3});
              }),
              HasSubstr("no selection of rows of [4, 3]"));
}

TEST(TopK, IsATensorOnTheDevice) {
  const Tensor x = Tensor::from<float>({1, 3, 2, 0}, {2, 2});
  const Tensor count = topk_correct(x, Tensor::from<int64_t>({1, 1}, {2}), 1);
  EXPECT_EQ(count.shape(), Shape{});
  EXPECT_EQ(count.dtype(), DType::i64);
  EXPECT_EQ(count.item(), 1);
}

TEST(Permute, MovesEveryElement) {
  const Tensor x = sample({2, 3, 4, 5}, 1);
  const Tensor y = permute(x, {3, 1, 0, 2});
  EXPECT_EQ(y.shape(), (Shape{5, 3, 2, 4}));
  const Values vx = values(x), vy = values(y);
  for (int64_t n = 0; n < 2; ++n)
    for (int64_t c = 0; c < 3; ++c)
      for (int64_t h = 0; h < 4; ++h)
        for (int64_t w = 0; w < 5; ++w)
          EXPECT_EQ(vy[static_cast<size_t>(((w * 3 + c) * 2 + n) * 4 + h)],
                    vx[static_cast<size_t>(((n * 3 + c) * 4 + h) * 5 + w)]);
  EXPECT_EQ(values(transpose(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}))),
            (Values{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(transpose(Tensor::zeros({0, 3})).shape(), (Shape{3, 0}));
  EXPECT_THAT(error_of<Error>([&] { permute(x, {0, 0, 1, 2}); }), HasSubstr("exactly once"));
}

TEST(OneHot, MarksLabels) {
  EXPECT_EQ(values(one_hot(Tensor::from<int64_t>({2, 0}, {2}), 3)), (Values{0, 0, 1, 1, 0, 0}));
  EXPECT_THAT(error_of<Error>([] { one_hot(Tensor::from<int64_t>({3}, {1}), 3); }),
              HasSubstr("label 3 at position 0 is outside 0..2"));
}

TEST(SubsamplePad, IsTheOptionAShortcut) {
  for (int64_t c : {int64_t{2}, kChannelBlock})
    for (Layout layout : layouts(c)) {
      const int64_t before = c / 2, after = c - c / 2;
      const Tensor x = sample({2, c, 5, 4}, 1), in = x.to(layout);
      const Tensor y = subsample_pad_channels(in, 2, before, after);
      ASSERT_EQ(y.shape(), (Shape{2, 2 * c, 3, 2}));
      const Values vx = values(x), vy = values(y);
      for (int64_t n = 0; n < 2; ++n)
        for (int64_t k = 0; k < 2 * c; ++k)
          for (int64_t h = 0; h < 3; ++h)
            for (int64_t w = 0; w < 2; ++w) {
              const int64_t from = k - before;
              const double want =
                  from < 0 || from >= c
                      ? 0
                      : vx[static_cast<size_t>(((n * c + from) * 5 + 2 * h) * 4 + 2 * w)];
              EXPECT_EQ(vy[static_cast<size_t>(((n * 2 * c + k) * 3 + h) * 2 + w)], want);
            }
      const Tensor g = sample(y.shape(), 2);
      const Tensor gx = subsample_pad_channels_grad(g.to(y.layout()), x.shape(), 2, before);
      EXPECT_NEAR(sum(mul(y.plain(), g)).item(), sum(mul(x, gx.plain())).item(), 1e-11);
    }
}

}  // namespace
}  // namespace mtcki
