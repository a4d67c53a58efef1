// Batch normalisation against plain loops, PyTorch's numbers and numerical derivatives.
#include "tensor/ops/norm.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "tensor/ops/bn_statistics.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/parallel.h"
#include "tests/tensor/ops/norm_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

double activated(double v, Activation act) {
  if (act.kind == Activation::Kind::relu) return v > 0 ? v : 0;
  if (act.kind == Activation::Kind::leaky_relu) return v > 0 ? v : act.parameter * v;
  if (act.kind == Activation::Kind::bounded_relu) return std::clamp(v, 0.0, act.parameter);
  return v;
}

Values normalised(const Tensor& x, const Values& mean, const Values& var, const Values& w,
                  const Values& b, double eps, Activation act, const Values& residual) {
  Values v = values(x);
  const int64_t c = x.size(1), inner = x.numel() / (x.size(0) * c);
  for (size_t i = 0; i < v.size(); ++i) {
    const size_t k = i / static_cast<size_t>(inner) % static_cast<size_t>(c);
    const double z = (v[i] - mean[k]) / std::sqrt(var[k] + eps) * w[k] + b[k];
    v[i] = activated(z + (residual.empty() ? 0 : residual[i]), act);
  }
  return v;
}

const std::vector<Activation>& activations() {
  static const std::vector<Activation> all{Activation::none(), Activation::relu(),
                                           Activation::leaky_relu(0.2),
                                           Activation::bounded_relu(0.5)};
  return all;
}

TEST(ChannelMoments, EveryLayoutAndSize) {
  for (int64_t c : channel_counts())
    for (const Shape& shape : {Shape{2, c, 5, 7}, Shape{1, c, 1, 1}, Shape{3, c, 1, 1},
                               Shape{70, c, 2, 2}, Shape{2, c, 33, 31}})
      for (DType dtype : {DType::f32, DType::f64}) {
        const Tensor x = sample(shape, 1, dtype);
        const Stats want = stats_reference(x);
        for (Layout layout : layouts(c)) {
          const ChannelMoments m = channel_moments(x.to(layout));
          EXPECT_TRUE(near(m.mean, want.mean, tolerance(dtype))) << shape << name_of(layout);
          EXPECT_TRUE(near(m.var, want.var, tolerance(dtype))) << shape << name_of(layout);
        }
      }
  const Tensor rows = sample({77, 13}, 2, DType::f32);
  EXPECT_TRUE(near(channel_moments(rows).var, stats_reference(rows).var, 2e-6));
}

TEST(ChannelMoments, LargeMeanSmallVariance) {
  // Mean 10,000 and deviation 1: E[x^2] - E[x]^2 in f32 has no correct digit.
  for (int64_t c : {int64_t{3}, kChannelBlock})
    for (Layout layout : layouts(c)) {
      const Tensor x = add(sample({16, c, 32, 32}, 1, DType::f64), 10000.0).to(DType::f32);
      const Stats want = stats_reference(x);
      const ChannelMoments m = channel_moments(x.to(layout));
      for (size_t k = 0; k < want.var.size(); ++k)
        EXPECT_NEAR(values(m.var)[k], want.var[k], 2e-6 * want.var[k]) << name_of(layout);
      const Tensor y = batch_norm_train(x.to(layout), {}, {}, {}, {}, 0.1, 0.0).y;
      EXPECT_TRUE(near(y,
                       normalised(x, want.mean, want.var, Values(static_cast<size_t>(c), 1.0),
                                  Values(static_cast<size_t>(c), 0.0), 0, {}, {}),
                       1e-3));
    }
  // A first image that is far away from the rest.
  Tensor x = sample({64, 2, 8, 8}, 3, DType::f64);
  x.slice(0, 1).fill_(1000.0);
  const Stats want = stats_reference(x);
  EXPECT_TRUE(near(channel_moments(x.to(DType::f32)).var, want.var, 1e-5));
}

TEST(BatchNormTrain, EveryLayoutActivationAndResidual) {
  for (int64_t c : channel_counts())
    for (const Shape& shape : {Shape{3, c, 5, 7}, Shape{2, c, 1, 1}})
      for (DType dtype : {DType::f32, DType::f64, DType::bf16})
        for (const Activation& act : activations())
          for (bool residual : {false, true})
            for (Layout layout : layouts(c)) {
              const NormCase k = make_case(shape, dtype, layout, residual);
              const Stats s = stats_reference(k.x);
              const Tensor rm = k.rm.clone(), rv = k.rv.clone();
              const BatchNormTrain out =
                  batch_norm_train(k.x, k.w, k.b, rm, rv, 0.1, 1e-5, act, k.residual);
              EXPECT_EQ(out.y.layout(), layout);
              EXPECT_EQ(out.y.dtype(), dtype);
              const double loose = shape[2] == 1 ? 20 : 1;  // two values: a tiny variance
              EXPECT_TRUE(near(out.y,
                               normalised(k.x, s.mean, s.var, values(k.w), values(k.b), 1e-5, act,
                                          residual ? values(k.residual) : Values()),
                               loose * tolerance(dtype)))
                  << k.x.describe() << residual;
              const Tensor rm2 = k.rm.clone(), rv2 = k.rv.clone();
              const BatchStatistics only = batch_norm_statistics(k.x, rm2, rv2, 0.1, 1e-5);
              EXPECT_TRUE(identical(only.mean, out.mean) && identical(only.invstd, out.invstd));
              EXPECT_TRUE(identical(rm2, rm) && identical(rv2, rv));
              if (!residual) {
                const Tensor again = batch_norm_apply(k.x, k.w, k.b, out.mean, out.invstd, act);
                EXPECT_TRUE(identical(again, out.y)) << k.x.describe();
              }
              const double n = static_cast<double>(shape.numel() / c);
              Values want_rm = values(k.rm), want_rv = values(k.rv);
              for (size_t i = 0; i < want_rm.size(); ++i) {
                want_rm[i] = 0.9 * want_rm[i] + 0.1 * s.mean[i];
                want_rv[i] = 0.9 * want_rv[i] + 0.1 * s.var[i] * n / (n - 1);
              }
              const double tol = dtype == DType::f64 ? 1e-12 : 1e-5;
              EXPECT_TRUE(near(rm, want_rm, tol));
              EXPECT_TRUE(near(rv, want_rv, tol));
              EXPECT_TRUE(near(out.mean, s.mean, tol));
            }
}

TEST(BatchNormEval, EveryLayoutActivationAndResidual) {
  for (int64_t c : channel_counts())
    for (DType dtype : {DType::f32, DType::f64})
      for (const Activation& act : activations())
        for (bool residual : {false, true})
          for (Layout layout : layouts(c)) {
            const NormCase k = make_case({2, c, 3, 5}, dtype, layout, residual);
            const Tensor y = batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, act, k.residual);
            EXPECT_EQ(y.layout(), layout);
            EXPECT_TRUE(near(y,
                             normalised(k.x, values(k.rm), values(k.rv), values(k.w), values(k.b),
                                        1e-5, act, residual ? values(k.residual) : Values()),
                             tolerance(dtype)));
          }
}

// Gradients of every operand by central differences, f64, plain.
TEST(BatchNormGrad, MatchesNumericDerivatives) {
  for (bool train : {true, false})
    for (const Activation& act : activations())
      for (bool residual : {false, true}) {
        const NormCase k = make_case({3, 2, 2, 3}, DType::f64, Layout::plain, residual);
        const Tensor g = sample({3, 2, 2, 3}, 9);
        const auto run = [&](const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& r) {
          return train ? batch_norm_train(x, w, b, {}, {}, 0.1, 1e-5, act, r).y
                       : batch_norm_eval(x, w, b, k.rm, k.rv, 1e-5, act, r);
        };
        const BatchNormTrain f =
            batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5, act, k.residual);
        const Tensor y = residual ? run(k.x, k.w, k.b, k.residual) : Tensor();
        const BatchNormGrads grads = train
                                         ? batch_norm_train_grad(g, k.x, k.w, k.b, f.mean, f.invstd,
                                                                 act, y, true, true, residual)
                                         : batch_norm_eval_grad(g, k.x, k.w, k.b, k.rm, k.rv, 1e-5,
                                                                act, y, true, true, residual);
        const double tol = 1e-6;
        const Tensor& r = k.residual;
        EXPECT_TRUE(matches_numeric([&](const Tensor& t) { return run(t, k.w, k.b, r); }, k.x, g,
                                    grads.x, tol));
        EXPECT_TRUE(matches_numeric([&](const Tensor& t) { return run(k.x, t, k.b, r); }, k.w, g,
                                    grads.weight, tol));
        EXPECT_TRUE(matches_numeric([&](const Tensor& t) { return run(k.x, k.w, t, r); }, k.b, g,
                                    grads.bias, tol));
        if (residual) {
          EXPECT_TRUE(matches_numeric([&](const Tensor& t) { return run(k.x, k.w, k.b, t); }, r, g,
                                      grads.residual, tol));
        }
      }
}

// The plain f64 gradient is checked above; here every layout, type and choice of outputs follows
// it.
TEST(BatchNormGrad, LayoutsTypesAndWantedOutputsAgree) {
  for (int64_t c : channel_counts())
    for (bool train : {true, false})
      for (const Activation& act : activations())
        for (bool residual : {false, true})
          for (DType dtype : {DType::f32, DType::f64})
            for (Layout layout : layouts(c)) {
              const Shape shape{3, c, 5, 3};
              const auto grads = [&](const NormCase& k, const Tensor& g, bool wx, bool wp,
                                     bool wr) {
                const BatchNormTrain f =
                    batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5, act, k.residual);
                if (train)
                  return batch_norm_train_grad(g, k.x, k.w, k.b, f.mean, f.invstd, act,
                                               residual ? f.y : Tensor(), wx, wp, wr);
                const Tensor y =
                    residual ? batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, act, k.residual)
                             : Tensor();
                return batch_norm_eval_grad(g, k.x, k.w, k.b, k.rm, k.rv, 1e-5, act, y, wx, wp, wr);
              };
              const NormCase ref = make_case(shape, DType::f64, Layout::plain, residual);
              const NormCase k = make_case(shape, dtype, layout, residual);
              const Tensor g64 = sample(shape, 9);
              const Tensor g = g64.to(dtype).to(layout);
              const BatchNormGrads want = grads(ref, g64, true, true, true);
              const BatchNormGrads got = grads(k, g, true, true, true);
              const double tol = dtype == DType::f64 ? 1e-11 : 2e-4;
              EXPECT_EQ(got.x.layout(), layout);
              EXPECT_TRUE(near(got.x, want.x, tol)) << k.x.describe();
              EXPECT_TRUE(near(got.weight, want.weight, tol));
              EXPECT_TRUE(near(got.bias, want.bias, tol));
              EXPECT_TRUE(near(got.residual, want.residual, tol));
              const BatchNormGrads only_x = grads(k, g, true, false, false);
              EXPECT_TRUE(identical(only_x.x, got.x));
              EXPECT_FALSE(only_x.weight.defined() || only_x.bias.defined() ||
                           only_x.residual.defined());
              const BatchNormGrads no_x = grads(k, g, false, true, true);
              EXPECT_FALSE(no_x.x.defined());
              EXPECT_TRUE(identical(no_x.weight, got.weight));
              EXPECT_TRUE(identical(no_x.residual, got.residual));
            }
}

// Other gradients of x, those of a statistics loss among them, are added in the same pass.
TEST(BatchNormGrad, AddsWhatWasGathered) {
  for (int64_t c : channel_counts())
    for (DType dtype : {DType::f32, DType::f64})
      for (Layout layout : layouts(c))
        for (bool train : {true, false})
          for (bool residual : {false, true})
            for (int parts = 1; parts < 4; ++parts) {
              const NormCase k = make_case({3, c, 5, 3}, dtype, layout, residual);
              const Tensor gy = sample(k.x.shape(), 9, dtype).to(layout), one = Tensor::scalar(0.7);
              const Tensor sum = sample(k.x.shape(), 10, dtype).to(layout);
              const BnStatistics s = bn_statistics(k.x, k.rm, k.rv);
              const Activation act = Activation::relu();
              const BatchNormTrain f =
                  batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5, act, k.residual);
              const auto grads = [&](Tensor g, const GradientSum& gathered) {
                const Tensor y = residual ? f.y : Tensor();
                return train ? batch_norm_train_grad(std::move(g), k.x, k.w, k.b, f.mean, f.invstd,
                                                     act, y, true, true, residual, gathered)
                             : batch_norm_eval_grad(std::move(g), k.x, k.w, k.b, k.rm, k.rv, 1e-5,
                                                    act, y, true, true, residual, gathered);
              };
              const BatchNormGrads plain = grads(gy, {});
              Tensor want = plain.x;
              GradientSum gathered;
              if (parts & 1) {
                want = add(want, sum);
                gathered.add(sum);
              }
              if (parts & 2) {
                want = add(want, bn_statistics_grad(one, k.x, s.scale, s.shift));
                gathered.add_statistics(one, k.x, s.scale, s.shift);
              }
              const BatchNormGrads got = grads(gy, gathered);
              const double tol = dtype == DType::f64 ? 1e-12 : 1e-5;
              EXPECT_TRUE(near(got.x, values(want), tol)) << k.x.describe() << " parts " << parts;
              EXPECT_TRUE(identical(got.weight, plain.weight));
              if (residual) {
                EXPECT_TRUE(identical(got.residual, plain.residual));
              }
              EXPECT_TRUE(near(gathered.take(), values(sub(want, plain.x)), tol));
              // In the memory of a gradient that nobody else sees, with the same values.
              Tensor own = gy.clone();
              const void* const memory = own.raw();
              const BatchNormGrads reused = grads(std::move(own), {});
              EXPECT_EQ((residual ? reused.residual : reused.x).raw(), memory);
              EXPECT_TRUE(identical(reused.x, plain.x));
              if (residual) {
                EXPECT_TRUE(identical(reused.residual, plain.residual));
              }
            }
}

TEST(BatchNormEval, AlsoGivesTheMomentsOfItsInput) {
  for (int64_t c : channel_counts())
    for (DType dtype : {DType::bf16, DType::f32, DType::f64})
      for (Layout layout : layouts(c))
        for (bool residual : {false, true}) {
          const NormCase k = make_case({3, c, 5, 3}, dtype, layout, residual);
          MomentSums sums;
          const Tensor y = batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, Activation::relu(),
                                           k.residual, &sums);
          const ChannelMoments moments = moments_of(sums, 45);
          EXPECT_TRUE(identical(
              y, batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, Activation::relu(), k.residual)));
          const ChannelMoments want = channel_moments(k.x);
          const double tol = dtype == DType::f64 ? 1e-12 : 1e-6;
          EXPECT_EQ(moments.mean.dtype(), DType::f64);
          EXPECT_TRUE(near(moments.mean, values(want.mean), tol));
          EXPECT_TRUE(near(moments.var, values(want.var), tol));
          const BnStatistics known = bn_statistics(k.x, k.rm, k.rv, 0.0, {}, {}, sums);
          const BnStatistics found = bn_statistics(k.x, k.rm, k.rv);
          EXPECT_TRUE(near(known.loss, values(found.loss), tol));
          EXPECT_TRUE(near(known.scale, values(found.scale), tol));
          EXPECT_TRUE(near(known.shift, values(found.shift), tol));
        }
}

TEST(BatchNormGrad, FrozenEvalNeedsNeitherInputNorOutput) {
  const NormCase k = make_case({2, kChannelBlock, 3, 3}, DType::f32, Layout::blocked, false);
  const Tensor g = sample(k.x.shape(), 9, DType::f32).to(Layout::blocked);
  const BatchNormGrads with_x =
      batch_norm_eval_grad(g, k.x, k.w, k.b, k.rm, k.rv, 1e-5, {}, {}, true, false, false);
  const BatchNormGrads without =
      batch_norm_eval_grad(g, {}, k.w, k.b, k.rm, k.rv, 1e-5, {}, {}, true, false, false);
  EXPECT_TRUE(identical(with_x.x, without.x));
}

// x, residual and gradient are steps() of torch 2.x's F.batch_norm + leaky_relu(0.2) in double.
TEST(BatchNormGrad, EqualsPyTorch) {
  const Shape shape{3, 2, 2, 1};
  const Tensor x = steps(shape);
  const Tensor residual = [&] {  // steps flipped over the batch
    Values v = values(x), r;
    for (size_t n : {8u, 4u, 0u}) r.insert(r.end(), v.begin() + n, v.begin() + n + 4);
    return Tensor::from(r, shape);
  }();
  Values gv;
  for (int i = 0; i < 12; ++i) gv.push_back((i - 4) / 3.0);
  const Tensor w = Tensor::from<double>({1.5, -0.5}, {2}),
               b = Tensor::from<double>({0.1, 0.2}, {2});
  const Tensor rm = Tensor::from<double>({0.5, -0.5}, {2}), rv = Tensor::from<double>({2, 1}, {2});
  const Activation act = Activation::leaky_relu(0.2);
  const BatchNormTrain f = batch_norm_train(x, w, b, rm, rv, 0.1, 1e-5, act, residual);
  EXPECT_TRUE(
      near(f.y,
           {-0.219176506, 0.960045639, 0.414827386, 0.175287691, 2.77348447, 0.0272398055,
            -0.0269194466, 0.284597233, -0.181864272, -0.181113206, -0.00505753812, -0.0529654771},
           1e-8));
  EXPECT_TRUE(near(rm, {0.454166667, -0.4625}, 1e-8));
  EXPECT_TRUE(near(rv, {1.88854167, 0.951875}, 1e-8));
  const BatchNormGrads g = batch_norm_train_grad(Tensor::from(gv, shape), x, w, b, f.mean, f.invstd,
                                                 act, f.y, true, true, true);
  EXPECT_TRUE(
      near(g.x,
           {-0.707532658, -0.893265753, 0.720755545, 0.235165779, 0.696572296, 0.653027379,
            -0.177741446, -0.430626798, 0.380204449, -0.129005713, -0.0323763647, -0.315176715},
           1e-8));
  EXPECT_TRUE(near(g.weight, {-1.84649205, 1.20406215}, 1e-8));
  EXPECT_TRUE(near(g.bias, {-0.333333333, 1}, 1e-8));
}

TEST(BatchNorm, RankTwoAndNanAndThreads) {
  const NormCase k = make_case({7, 13}, DType::f32, Layout::plain, false);
  const Stats s = stats_reference(k.x);
  EXPECT_TRUE(near(batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5).y,
                   normalised(k.x, s.mean, s.var, values(k.w), values(k.b), 1e-5, {}, {}), 2e-5));
  Tensor bad = sample({4, 2, 3, 3}, 1, DType::f32);
  bad.data<float>()[0] = NAN;
  const Tensor y = batch_norm_train(bad, {}, {}, {}, {}, 0.1, 1e-5, Activation::relu()).y;
  EXPECT_TRUE(std::isnan(values(y)[1]));   // same channel
  EXPECT_FALSE(std::isnan(values(y)[9]));  // the other one

  const int threads = num_threads();
  const NormCase big = make_case({64, kChannelBlock, 16, 16}, DType::f32, Layout::blocked, false);
  set_num_threads(1);
  const Tensor one = batch_norm_train(big.x, big.w, big.b, {}, {}, 0.1, 1e-5).y;
  set_num_threads(3);
  EXPECT_TRUE(identical(one, batch_norm_train(big.x, big.w, big.b, {}, {}, 0.1, 1e-5).y));
  set_num_threads(threads);
}

TEST(BatchNorm, Errors) {
  const Tensor x = Tensor::zeros({1, 3, 1, 1}), c = Tensor::zeros({3});
  const std::string text =
      error_of<ShapeError>([&] { batch_norm_train(x, c, c, c, c, 0.1, 1e-5); });
  EXPECT_THAT(text, HasSubstr("batch_norm_train: needs more than one value per channel to train"));
  EXPECT_THAT(text, HasSubstr("[1, 3, 1, 1] f32 cpu"));
  EXPECT_THAT(error_of<ShapeError>([&] { batch_norm_eval(x, Tensor::zeros({4}), c, c, c, 1e-5); }),
              HasSubstr("weight needs shape [3], one value per channel"));
  EXPECT_THAT(error_of<ShapeError>([&] {
                batch_norm_eval(x, c, c, c, c, 1e-5, {}, Tensor::zeros({2, 3, 1, 1}));
              }),
              HasSubstr("residual needs the input's shape"));
  EXPECT_THAT(error_of<Error>([&] {
                batch_norm_eval_grad(x, {}, c, c, c, c, 1e-5, Activation::relu(), {}, true, false,
                                     false);
              }),
              HasSubstr("is needed for the activation's mask"));
  EXPECT_THAT(error_of<ShapeError>([&] { channel_moments(c); }), HasSubstr("[N,C,H,W] or [N,C]"));
}

TEST(BatchNormApply, NamesWhatIsWrong) {
  const Tensor x = Tensor::zeros({2, 3, 2, 2}), c = Tensor::zeros({3});
  EXPECT_THAT(error_of<ShapeError>([&] { batch_norm_apply(x, c, c, {}, c); }),
              HasSubstr("mean needs shape [3]"));
  EXPECT_THAT(error_of<ShapeError>([&] { batch_norm_apply(x, c, c, c, Tensor::zeros({2})); }),
              HasSubstr("invstd needs shape [3]"));
}

}  // namespace
}  // namespace mtcki
