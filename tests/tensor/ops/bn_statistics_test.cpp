// The BN-statistics loss against plain loops, hand-worked values and numerical derivatives.
#include "tensor/ops/bn_statistics.h"

#include <gmock/gmock.h>

#include "tensor/ops/norm.h"
#include "tests/tensor/ops/norm_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

TEST(BnStatistics, OfSeveralLayersIsTheSumOfTheirs) {
  std::vector<BnStatisticsLayer> layers;
  double want = 0;
  for (const int64_t c : {3, 16, 7}) {
    const NormCase k = make_case({4, c, 5, 3}, DType::f32, Layout::plain, false);
    MomentSums known;  // of every second one
    if (c != 16) batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, {}, {}, &known);
    layers.push_back({k.x, k.rm, k.rv, {}, {}, known});
    want += bn_statistics(k.x, k.rm, k.rv).loss.item();
  }
  const BnStatisticsSum sum = bn_statistics(layers);
  EXPECT_NEAR(sum.loss.item(), want, 1e-5 * want);
  for (size_t i = 0; i < layers.size(); ++i) {
    const BnStatisticsLayer& l = layers[i];
    const BnStatistics alone = bn_statistics(l.x, l.running_mean, l.running_var);
    EXPECT_TRUE(near(sum.layers[i].scale, values(alone.scale), 1e-6)) << i;
    EXPECT_TRUE(near(sum.layers[i].shift, values(alone.shift), 1e-6)) << i;
  }
  EXPECT_THAT(error_of<Error>([] { bn_statistics(std::vector<BnStatisticsLayer>{}); }),
              HasSubstr("bn_statistics: no layers"));
  layers[1].x = layers[1].x.to(DType::f64);
  EXPECT_THAT(error_of<DTypeError>([&] { bn_statistics(layers); }), HasSubstr("first input"));
  layers[1] = layers[0];
  layers[1].known = layers[2].known;
  EXPECT_THAT(error_of<ShapeError>([&] { bn_statistics(layers); }),
              HasSubstr("known moments needs shape [3]"));
}

TEST(BnStatistics, HandWorkedValues) {
  const Tensor x = Tensor::from<double>({1, 2, 3, 4}, {1, 1, 2, 2});
  const Tensor one = Tensor::full({1}, 1.0, DType::f64);
  const BnStatistics s = bn_statistics(x, one, one);
  EXPECT_TRUE(near(s.mean, {2.5}, 1e-15));
  EXPECT_TRUE(near(s.var, {1.25}, 1e-15));
  EXPECT_NEAR(s.loss.item(), 1.75, 1e-15);
  const Tensor gx = bn_statistics_grad(one, x, s.scale, s.shift);
  EXPECT_TRUE(near(gx, {-0.5, 0, 0.5, 1}, 1e-15));
}

TEST(BnStatistics, GradientMatchesNumericInBothForms) {
  const Tensor rm = sample({3}, 2), rv = add(square(sample({3}, 3)), 0.2);
  const Tensor em = sample({3}, 4), ev = add(square(sample({3}, 5)), 0.2);
  const Tensor x = sample({2, 3, 2, 2}, 1), g = Tensor::scalar(-1.5, DType::f64);
  for (double momentum : {0.0, 0.9}) {
    const BnStatistics s = bn_statistics(x, rm, rv, momentum, em, ev);
    EXPECT_TRUE(matches_numeric(
        [&](const Tensor& t) { return bn_statistics(t, rm, rv, momentum, em, ev).loss; }, x, g,
        bn_statistics_grad(g, x, s.scale, s.shift)));
  }
  // Momentum blends inside the norms; mean and var stay those of the batch.
  const BnStatistics s = bn_statistics(x, rm, rv, 0.9, em, ev);
  const Stats batch = stats_reference(x);
  double dm = 0, dv = 0;
  for (size_t c = 0; c < 3; ++c) {
    dm += std::pow(0.1 * batch.mean[c] + 0.9 * values(em)[c] - values(rm)[c], 2);
    dv += std::pow(0.1 * batch.var[c] + 0.9 * values(ev)[c] - values(rv)[c], 2);
  }
  EXPECT_NEAR(s.loss.item(), std::sqrt(dm) + std::sqrt(dv), 1e-12);
  EXPECT_TRUE(near(s.mean, batch.mean, 1e-12));
}

TEST(BnStatistics, EveryLayoutAndPerfectMatch) {
  for (int64_t c : channel_counts()) {
    const Tensor x = sample({3, c, 5, 3}, 1), rm = sample({c}, 2), rv = abs(sample({c}, 3));
    const BnStatistics want = bn_statistics(x, rm, rv);
    const Tensor g = Tensor::scalar(2.0, DType::f32);
    const Tensor gx = bn_statistics_grad(g.to(DType::f64), x, want.scale, want.shift);
    for (Layout layout : layouts(c)) {
      const Tensor in = x.to(DType::f32).to(layout);
      const BnStatistics s = bn_statistics(in, rm.to(DType::f32), rv.to(DType::f32));
      EXPECT_TRUE(near(s.loss, want.loss, 1e-5));
      const Tensor got = bn_statistics_grad(g, in, s.scale, s.shift);
      EXPECT_EQ(got.layout(), layout);
      EXPECT_TRUE(near(got, gx, 1e-5));
    }
    // Equal statistics: loss 0 and a finite gradient (of 0).
    const BnStatistics zero = bn_statistics(x, want.mean, want.var);
    EXPECT_NEAR(zero.loss.item(), 0, 1e-12);
    EXPECT_TRUE(all_finite(zero.scale));
  }
}

TEST(BnStatistics, Errors) {
  const Tensor x = Tensor::zeros({2, 3, 2, 2}), c = Tensor::zeros({3});
  EXPECT_THAT(error_of<ShapeError>([&] { bn_statistics(x, Tensor::zeros({2}), c); }),
              HasSubstr("bn_statistics: running_mean needs shape [3]"));
  EXPECT_THAT(error_of<ShapeError>([&] { bn_statistics(x.slice(0, 0), c, c); }),
              HasSubstr("the batch is empty"));
  EXPECT_THAT(error_of<Error>([&] { bn_statistics(x, c, c, 1.0, c, c); }),
              HasSubstr("momentum needs to be in [0, 1), got 1"));
}

}  // namespace
}  // namespace mtcki
