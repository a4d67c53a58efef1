// Batch normalisation and the BN-statistics loss on the GPU: against the CPU in f64, in every
// layout and type, with odd channel counts and large means; repeated runs and captured ones give
// equal bits.
#include <gmock/gmock.h>

#include "tensor/ops/bn_statistics.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class NormCuda : public CudaTest {};

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16};
constexpr Layout kLayouts[] = {Layout::plain, Layout::channels_last};
constexpr int64_t kChannels[] = {1, 3, 7, 16, 33, 64};

const std::vector<Activation>& activations() {
  static const std::vector<Activation> all{Activation::none(), Activation::relu(),
                                           Activation::leaky_relu(0.2),
                                           Activation::bounded_relu(0.5)};
  return all;
}

Tensor f64(const Tensor& t) { return t.defined() ? t.to(Device::cpu()).to(DType::f64) : t; }
Tensor on_gpu(const Tensor& t) { return t.defined() ? t.to(kGpu) : t; }

// Operands on the CPU; bf16 activations with f32 parameters, as in training.
struct Case {
  Tensor x, w, b, rm, rv, residual, gy;
  Case map(const std::function<Tensor(const Tensor&)>& f) const {
    return {f(x), f(w), f(b), f(rm), f(rv), f(residual), f(gy)};
  }
};
Case make_case(const Shape& shape, DType dtype, bool residual) {
  const Shape c{shape[1]};
  const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
  return {add(mul(sample(shape, 1, dtype), 1.5), 0.25),
          add(mul(sample(c, 2, wide), 0.3), 1.0),
          sample(c, 3, wide),
          sample(c, 4, wide),
          add(square(sample(c, 5, wide)), 0.1),
          residual ? sample(shape, 6, dtype) : Tensor(),
          sample(shape, 7, dtype)};
}
Case to_gpu(const Case& k, Layout layout) {
  return k.map([layout](const Tensor& t) {
    return t.defined() && t.rank() == 4 ? t.to(kGpu).to(layout) : on_gpu(t);
  });
}

struct Results {
  Tensor y, mean, invstd, rm, rv, gx, gw, gb, gr;
  std::vector<Tensor> all() const { return {y, mean, invstd, rm, rv, gx, gw, gb, gr}; }
};
Results run(const Case& k, bool train, Activation act) {
  Results r;
  BatchNormGrads g;
  const bool keep_y = k.residual.defined();
  if (train) {
    r.rm = k.rm.clone();
    r.rv = k.rv.clone();
    const BatchNormTrain f =
        batch_norm_train(k.x, k.w, k.b, r.rm, r.rv, 0.1, 1e-5, act, k.residual);
    r.y = f.y;
    r.mean = f.mean;
    r.invstd = f.invstd;
    g = batch_norm_train_grad(k.gy, k.x, k.w, k.b, f.mean, f.invstd, act, keep_y ? f.y : Tensor(),
                              true, true, keep_y);
  } else {
    r.y = batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, act, k.residual);
    g = batch_norm_eval_grad(k.gy, k.x, k.w, k.b, k.rm, k.rv, 1e-5, act, keep_y ? r.y : Tensor(),
                             true, true, keep_y);
  }
  r.gx = g.x;
  r.gw = g.weight;
  r.gb = g.bias;
  r.gr = g.residual;
  return r;
}

// Values near the mask's edge may fall on its other side: they are moved away from it.
void avoid_edge(Case& k, bool train, Activation act) {
  if (act.kind == Activation::Kind::none) return;
  const Case wide = k.map(f64);
  const Values y = values(run(wide, train, Activation::none()).y);
  Tensor& moved = k.residual.defined() ? k.residual : k.gy;
  Values v = values(moved);
  for (size_t i = 0; i < v.size(); ++i)
    if (std::fabs(y[i]) < 0.05 ||
        (act.kind == Activation::Kind::bounded_relu && std::fabs(y[i] - act.parameter) < 0.05))
      v[i] = k.residual.defined() ? v[i] + 1 : 0.0;
  moved = Tensor::from(v, moved.shape()).to(moved.dtype());
}

void expect_reference(const Shape& shape, DType dtype, const Activation& act, bool residual,
                      bool train) {
  Case k = make_case(shape, dtype, residual);
  avoid_edge(k, train, act);
  const Results want = run(k.map(f64), train, act);
  for (const Layout layout : kLayouts) {
    if (shape.rank() == 2 && layout != Layout::plain) continue;
    const Case there = to_gpu(k, layout);
    const Results got = run(there, train, act);
    EXPECT_EQ(got.y.layout(), layout);
    EXPECT_EQ(got.y.dtype(), dtype);
    EXPECT_EQ(got.gx.dtype(), dtype);
    EXPECT_EQ(got.gw.dtype(), k.w.dtype());
    const double half = dtype == DType::bf16 ? 1e-2 : tolerance(dtype);
    const double wide = dtype == DType::f64 ? 1e-11 : 1e-4;
    const std::string where = str(there.x.describe(), " train ", train, " residual ", residual,
                                  " act ", static_cast<int>(act.kind));
    EXPECT_TRUE(near(got.y, want.y, half)) << where;
    EXPECT_TRUE(near(got.gx, want.gx, half)) << where;
    EXPECT_TRUE(near(got.gw, want.gw, wide)) << where;
    EXPECT_TRUE(near(got.gb, want.gb, wide)) << where;
    if (residual) {
      EXPECT_TRUE(near(got.gr, want.gr, half)) << where;
    }
    if (train) {
      EXPECT_TRUE(near(got.mean, want.mean, wide)) << where;
      EXPECT_TRUE(near(got.invstd, want.invstd, wide)) << where;
      EXPECT_TRUE(near(got.rm, want.rm, wide)) << where;
      EXPECT_TRUE(near(got.rv, want.rv, wide)) << where;
    }
  }
}

TEST_F(NormCuda, EqualsTheReferenceEverywhere) {
  for (const int64_t c : kChannels)
    for (const Shape& shape : {Shape{3, c, 5, 7}, Shape{70, c}})
      for (const DType dtype : kTypes)
        for (const Activation& act : activations())
          for (const bool residual : {false, true})
            for (const bool train : {true, false})
              expect_reference(shape, dtype, act, residual, train);
}

// Channel sums in several parts, eight channels of bf16 to a load.
TEST_F(NormCuda, EqualsTheReferenceInSeveralParts) {
  for (const bool train : {true, false})
    expect_reference({40, 64, 9, 8}, DType::bf16, Activation::relu(), true, train);
}

TEST_F(NormCuda, TheSameBitsOnceMore) {
  for (const DType dtype : kTypes)
    for (const Layout layout : kLayouts)
      for (const Activation& act : activations()) {
        const Case k = to_gpu(make_case({3, 8, 5, 7}, dtype, false), layout);
        const BatchNormTrain out = batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5, act);
        EXPECT_TRUE(identical(batch_norm_apply(k.x, k.w, k.b, out.mean, out.invstd, act), out.y));
        const BatchStatistics only = batch_norm_statistics(k.x, {}, {}, 0.1, 1e-5);
        EXPECT_TRUE(identical(only.mean, out.mean) && identical(only.invstd, out.invstd));
      }
}

TEST_F(NormCuda, ParametersInBf16FollowTheCpu) {
  Case k = make_case({4, 8, 3, 3}, DType::bf16, false);
  for (Tensor* t : {&k.w, &k.b, &k.rm, &k.rv}) *t = t->to(DType::bf16);
  const Results want = run(k, true, Activation::none());
  const Results got = run(to_gpu(k, Layout::channels_last), true, Activation::none());
  EXPECT_EQ(got.gw.dtype(), DType::bf16);
  EXPECT_TRUE(near(got.y, want.y, 2e-2));
  EXPECT_TRUE(near(got.rv, want.rv, 1e-2));
}

TEST_F(NormCuda, LargeMeansKeepTheVariance) {
  for (const int64_t c : {3, 8})
    for (const Layout layout : kLayouts)
      for (const double mean : {1e3, 1e4}) {
        const Tensor x = add(sample({16, c, 32, 32}, 1), mean).to(DType::f32);
        const ChannelMoments want = channel_moments(x.to(DType::f64));
        const ChannelMoments got = channel_moments(x.to(kGpu).to(layout));
        for (size_t k = 0; k < values(want.var).size(); ++k)
          EXPECT_NEAR(values(got.var)[k], values(want.var)[k], 3e-6 * values(want.var)[k]);
        EXPECT_TRUE(near(got.mean, want.mean, 1e-7));
        const Tensor y = batch_norm_train(x.to(kGpu).to(layout), {}, {}, {}, {}, 0.1, 0.0).y;
        EXPECT_TRUE(
            near(y, batch_norm_train(x.to(DType::f64), {}, {}, {}, {}, 0.1, 0.0).y, 1.2e-7 * mean));
      }
  // One value far from all others, where a thread begins.
  Tensor x = sample({64, 2, 8, 8}, 3);
  x.slice(0, 1).fill_(1000.0);
  EXPECT_TRUE(near(channel_moments(x.to(DType::f32).to(kGpu)).var, channel_moments(x).var, 1e-5));
}

TEST_F(NormCuda, ManyRowsAndManyChannels) {
  // More rows than one thread adds in f32, and more channels than one tile holds.
  for (const Shape& shape : {Shape{2, 1, 400, 500}, Shape{3, 700, 2, 3}, Shape{40, 1030}})
    for (const Layout layout : kLayouts) {
      if (shape.rank() == 2 && layout != Layout::plain) continue;
      const Case k = make_case(shape, DType::f32, false);
      const Results want = run(k.map(f64), true, Activation::none());
      const Results got = run(to_gpu(k, layout), true, Activation::none());
      EXPECT_TRUE(near(got.invstd, want.invstd, 2e-6)) << shape << name_of(layout);
      EXPECT_TRUE(near(got.gx, want.gx, 1e-4)) << shape << name_of(layout);
      EXPECT_TRUE(near(got.gw, want.gw, 2e-4)) << shape << name_of(layout);
    }
}

TEST_F(NormCuda, WantedOutputsAndMissingOperands) {
  const Case k = to_gpu(make_case({3, 8, 4, 4}, DType::f32, false), Layout::channels_last);
  const auto grads = [&](bool wx, bool wp) {
    const BatchNormTrain f = batch_norm_train(k.x, k.w, k.b, {}, {}, 0.1, 1e-5);
    return batch_norm_train_grad(k.gy, k.x, k.w, k.b, f.mean, f.invstd, {}, {}, wx, wp, false);
  };
  const BatchNormGrads all = grads(true, true);
  EXPECT_TRUE(identical(grads(true, false).x, all.x));
  EXPECT_FALSE(grads(true, false).weight.defined());
  EXPECT_TRUE(identical(grads(false, true).weight, all.weight));
  EXPECT_FALSE(grads(false, true).x.defined());
  // Frozen: neither input nor output.
  const Tensor with_x =
      batch_norm_eval_grad(k.gy, k.x, k.w, k.b, k.rm, k.rv, 1e-5, {}, {}, true, false, false).x;
  EXPECT_TRUE(identical(
      batch_norm_eval_grad(k.gy, {}, k.w, k.b, k.rm, k.rv, 1e-5, {}, {}, true, false, false).x,
      with_x));
  // Plain slices of one image start at addresses that 16-byte loads cannot take.
  const Tensor odd = sample({3, 3, 1, 5}, 1, DType::f32).to(kGpu).slice(1, 3);
  EXPECT_TRUE(near(batch_norm_train(odd, {}, {}, {}, {}, 0.1, 1e-5).y,
                   batch_norm_train(odd.to(Device::cpu()), {}, {}, {}, {}, 0.1, 1e-5).y, 1e-5));
  const Tensor rows = sample({3, 4}, 1, DType::bf16).reshape({12}).slice(4, 12).reshape({2, 4});
  EXPECT_TRUE(near(batch_norm_train(rows.to(kGpu), {}, {}, {}, {}, 0.1, 1.0).y,
                   batch_norm_train(rows, {}, {}, {}, {}, 0.1, 1.0).y, 1e-2));
}

TEST_F(NormCuda, StaysNotANumber) {
  Tensor x = sample({4, 2, 3, 3}, 1, DType::f32);
  x.data<float>()[0] = NAN;
  const Values y =
      values(batch_norm_train(x.to(kGpu), {}, {}, {}, {}, 0.1, 1e-5, Activation::relu()).y);
  EXPECT_TRUE(std::isnan(y[1]));
  EXPECT_FALSE(std::isnan(y[9]));
}

TEST_F(NormCuda, RunsRepeatBitForBitCapturedOrNot) {
  const Case k = to_gpu(make_case({16, 24, 9, 9}, DType::bf16, true), Layout::channels_last);
  const Activation act = Activation::relu();
  const Results first = run(k, true, act);
  for (int i = 0; i < 2; ++i) {
    const Results again = run(k, true, act);
    for (size_t j = 0; j < first.all().size(); ++j)
      EXPECT_TRUE(identical(again.all()[j], first.all()[j])) << j;
  }
  cuda::Graph graph;
  graph.begin();
  const Results captured = run(k, true, act);
  graph.end();
  graph.launch();
  for (size_t j = 0; j < first.all().size(); ++j)
    EXPECT_TRUE(identical(captured.all()[j], first.all()[j])) << j;
}

TEST_F(NormCuda, OperandsOnTwoDevicesAreNamed) {
  const Tensor x = sample({2, 3, 2, 2}, 1, DType::f32).to(kGpu), w = Tensor::zeros({3});
  EXPECT_THAT(error_of<DeviceError>([&] { batch_norm_train(x, w, {}, {}, {}, 0.1, 1e-5); }),
              HasSubstr("operands on two devices"));
  EXPECT_THAT(error_of<DeviceError>([&] { bn_statistics(x, w, w); }),
              HasSubstr("operands on two devices"));
}

TEST_F(NormCuda, EvalAlsoGivesTheMomentsOfItsInput) {
  for (const int64_t c : kChannels)
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts)
        for (const bool residual : {false, true})
          for (const Shape& shape : {Shape{6, c, 5, 3}, Shape{40, c, 9, 8}}) {
            const Case k = to_gpu(make_case(shape, dtype, residual), layout);
            const auto eval = [&](MomentSums* moments) {
              return batch_norm_eval(k.x, k.w, k.b, k.rm, k.rv, 1e-5, Activation::leaky_relu(0.2),
                                     k.residual, moments);
            };
            MomentSums sums;
            EXPECT_TRUE(identical(eval(&sums), eval(nullptr))) << k.x.describe();
            const ChannelMoments moments = moments_of(sums, static_cast<double>(shape.numel() / c));
            const ChannelMoments want = channel_moments(f64(k.x));
            const double tol = dtype == DType::f64 ? 1e-12 : 1e-5;
            EXPECT_TRUE(near(moments.mean, want.mean, tol)) << k.x.describe();
            EXPECT_TRUE(near(moments.var, want.var, tol)) << k.x.describe();
            const BnStatistics known = bn_statistics(k.x, k.rm, k.rv, 0.0, {}, {}, sums);
            EXPECT_TRUE(near(known.loss, bn_statistics(f64(k.x), f64(k.rm), f64(k.rv)).loss, tol));
          }
}

TEST_F(NormCuda, BnStatisticsEqualTheReference) {
  for (const int64_t c : kChannels)
    for (const DType dtype : kTypes)
      for (const double momentum : {0.0, 0.9})
        for (const Layout layout : kLayouts) {
          const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
          const Tensor x = sample({6, c, 5, 3}, 1, dtype), g = Tensor::scalar(-1.5, wide);
          std::vector<Tensor> s;
          for (uint64_t i = 0; i < 4; ++i) s.push_back(abs(sample({c}, 2 + i, wide)));
          const BnStatistics want =
              bn_statistics(f64(x), f64(s[0]), f64(s[1]), momentum, f64(s[2]), f64(s[3]));
          const Tensor there = x.to(kGpu).to(layout);
          const BnStatistics got = bn_statistics(there, on_gpu(s[0]), on_gpu(s[1]), momentum,
                                                 on_gpu(s[2]), on_gpu(s[3]));
          const double tol = dtype == DType::f64 ? 1e-12 : 1e-5;
          EXPECT_TRUE(near(got.loss, want.loss, tol));
          EXPECT_TRUE(near(got.mean, want.mean, tol));
          EXPECT_TRUE(near(got.var, want.var, tol));
          EXPECT_TRUE(near(got.scale, want.scale, tol));
          EXPECT_TRUE(near(got.shift, want.shift, tol));
          const Tensor gx = bn_statistics_grad(on_gpu(g), there, got.scale, got.shift);
          EXPECT_EQ(gx.layout(), layout);
          EXPECT_TRUE(near(gx, bn_statistics_grad(f64(g), f64(x), want.scale, want.shift),
                           dtype == DType::bf16 ? 1e-2 : tol));
        }
}

// More layers than one launch takes.
TEST_F(NormCuda, BnStatisticsOfManyLayers) {
  std::vector<BnStatisticsLayer> here, there;
  for (int64_t i = 0; i < 30; ++i) {
    const Case k = make_case({4, 1 + 11 * i, 3, 2}, DType::f32, false);
    const Case g = to_gpu(k, Layout::channels_last);
    MomentSums known;
    if (i % 2) batch_norm_eval(g.x, g.w, g.b, g.rm, g.rv, 1e-5, {}, {}, &known);
    here.push_back({f64(k.x), f64(k.rm), f64(k.rv), {}, {}, {}});
    there.push_back({g.x, g.rm, g.rv, {}, {}, known});
  }
  const BnStatisticsSum want = bn_statistics(here), got = bn_statistics(there);
  EXPECT_TRUE(near(got.loss, want.loss, 1e-5));
  for (size_t i = 0; i < here.size(); ++i) {
    EXPECT_TRUE(near(got.layers[i].loss, want.layers[i].loss, 1e-5)) << i;
    EXPECT_TRUE(near(got.layers[i].scale, want.layers[i].scale, 1e-5)) << i;
    EXPECT_TRUE(near(got.layers[i].shift, want.layers[i].shift, 1e-5)) << i;
  }
}

TEST_F(NormCuda, BnStatisticsOfAPerfectMatchAndInAGraph) {
  const Tensor x = sample({8, 16, 6, 6}, 1, DType::f32).to(kGpu).to(Layout::channels_last);
  const ChannelMoments own = channel_moments(x);
  const BnStatistics zero = bn_statistics(x, own.mean, own.var);
  EXPECT_NEAR(zero.loss.item(), 0, 1e-6);
  EXPECT_TRUE(all_finite(zero.scale));

  const Tensor rm = Tensor::full({16}, 0.1, DType::f32, kGpu),
               rv = Tensor::full({16}, 2.0, DType::f32, kGpu);
  const Tensor g = Tensor::full({}, 1.0, DType::f32, kGpu);
  for (int i = 0; i < 2; ++i) {  // a capture gets no memory from the driver
    const BnStatistics warm = bn_statistics(x, rm, rv);
    bn_statistics_grad(g, x, warm.scale, warm.shift);
  }
  cuda::Graph graph;
  graph.begin();
  const BnStatistics s = bn_statistics(x, rm, rv);
  const Tensor gx = bn_statistics_grad(g, x, s.scale, s.shift);
  graph.end();
  for (const double factor : {1.0, 2.5}) {  // the factor is read when the kernel runs
    g.fill_(factor);
    graph.launch();
    const BnStatistics eager = bn_statistics(x, rm, rv);
    EXPECT_TRUE(identical(s.loss, eager.loss));
    EXPECT_TRUE(identical(gx, bn_statistics_grad(g, x, eager.scale, eager.shift)));
  }
}

}  // namespace
}  // namespace mtcki
