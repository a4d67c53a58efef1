// Each function over ranks against its plain counterpart over all rows: values, gradients, moved
// statistics.
#include "autograd/parallel.h"
#include "tests/mpi/mpi_testing.h"

namespace mtcki {
namespace {

using namespace testing;

struct BnCase {
  Shape shape;
  Activation act;
  bool residual;
  DType dtype;
};

// y, running statistics and all gradients of sum(y * g).
struct BnResult {
  Tensor y, mean, var, gx, gw, gb, gr;
};
template <class Norm>
BnResult run_bn(const BnCase& c, const Tensor& x, const Tensor& residual, const Tensor& g,
                Layout layout, const Norm& norm) {
  const int64_t channels = c.shape[1];
  const Variable vx(x.to(layout), true);
  const Variable vr = c.residual ? Variable(residual.to(layout), true) : Variable();
  const Variable w(add(mul(sample({channels}, 3, c.dtype), 0.3), 1.0), true);
  const Variable b(sample({channels}, 4, c.dtype), true);
  const Tensor rm = sample({channels}, 5, c.dtype), rv = Tensor::full({channels}, 2, c.dtype);
  const Variable y = norm(vx, w, b, rm, rv, c.act, vr);
  y.backward(g.to(layout));
  return {y.data(), rm, rv, vx.grad(), w.grad(), b.grad(), c.residual ? vr.grad() : Tensor()};
}

void check_bn(const BnCase& c, Layout layout) {
  // A mean far from 0 shows cancellation in the variance.
  const Tensor x = add(mul(sample(c.shape, 1, c.dtype), 0.7), 5.0);
  const Tensor r = sample(c.shape, 2, c.dtype), g = sample(c.shape, 6, c.dtype);
  const BnResult want = run_bn(c, x, r, g, layout, [](auto&&... a) {
    const auto all = std::forward_as_tuple(a...);
    return batch_norm_train(std::get<0>(all), std::get<1>(all), std::get<2>(all), std::get<3>(all),
                            std::get<4>(all), 0.1, 1e-5, std::get<5>(all), std::get<6>(all));
  });
  const BnResult got = run_bn(c, own_rows(x), own_rows(r), own_rows(g), layout, [](auto&&... a) {
    const auto all = std::forward_as_tuple(a...);
    return batch_norm_train(std::get<0>(all), std::get<1>(all), std::get<2>(all), std::get<3>(all),
                            std::get<4>(all), 0.1, 1e-5, std::get<5>(all), std::get<6>(all),
                            world());
  });
  const double tolerance = c.dtype == DType::f64 ? 1e-12 : 2e-6;
  SCOPED_TRACE(str(c.shape, " ", name_of(c.dtype), " ", name_of(layout), " residual ", c.residual));
  EXPECT_TRUE(close(got.y, own_rows(want.y.plain()), tolerance));
  EXPECT_TRUE(close(got.mean, want.mean, tolerance));
  EXPECT_TRUE(close(got.var, want.var, tolerance));
  EXPECT_TRUE(close(got.gx, own_rows(want.gx.plain()), tolerance));
  // The mean of 5 is rounded by up to 2e-7 in f32, every xhat alike, and the weight gradient sums
  // that over all gradients.
  EXPECT_TRUE(close(summed(got.gw), want.gw, c.dtype == DType::f64 ? 1e-12 : 1e-5));
  EXPECT_TRUE(close(summed(got.gb), want.gb, tolerance));
  if (c.residual) {
    EXPECT_TRUE(close(got.gr, own_rows(want.gr.plain()), tolerance));
  }
  EXPECT_TRUE(same_on_all_ranks(got.mean));
  EXPECT_TRUE(same_on_all_ranks(got.var));
}

TEST(ParallelFunctions, BatchNormEqualsOneProcess) {
  const int64_t n = 2 * world().size();
  for (const DType dtype : {DType::f64, DType::f32})
    for (const bool residual : {false, true})
      for (const Activation act :
           {Activation::none(), Activation::relu(), Activation::leaky_relu(0.2)}) {
        check_bn({{n, 3, 5, 4}, act, residual, dtype}, Layout::plain);
        check_bn({{n, 2 * kChannelBlock, 4, 4}, act, residual, dtype}, Layout::blocked);
        check_bn({{n, kChannelBlock, 3, 3}, act, residual, dtype}, Layout::channels_last);
        check_bn({{n, 7}, act, residual, dtype}, Layout::plain);
      }
}

// A single row per rank: alone, each would have no variance.
TEST(ParallelFunctions, BatchNormOfOneRowPerRank) {
  check_bn({{world().size(), 6}, Activation::none(), false, DType::f64}, Layout::plain);
}

TEST(ParallelFunctions, BatchStatisticsEqualOneProcess) {
  const int64_t n = 3 * world().size(), channels = 5;
  for (const DType dtype : {DType::f64, DType::f32})
    for (const double momentum : {0.0, 0.7}) {
      const Shape shape{n, channels, 4, 3};
      const Tensor x = add(sample(shape, 1, dtype), 2.0);
      const Tensor rm = sample({channels}, 2, dtype);
      const Tensor rv = add(square(sample({channels}, 3, dtype)), 0.1);
      const Tensor em = sample({channels}, 4, dtype), ev = square(sample({channels}, 5, dtype));
      const Variable vx(x, true), own(own_rows(x), true);
      Tensor mean, var, own_mean, own_var;
      const Variable want = bn_statistics(vx, rm, rv, momentum, em, ev, &mean, &var);
      const Variable got =
          bn_statistics(own, rm, rv, momentum, em, ev, &own_mean, &own_var, world());
      mul(want, 3.0).backward();
      mul(got, 3.0).backward();
      const double tolerance = dtype == DType::f64 ? 1e-12 : 2e-6;
      EXPECT_TRUE(close(got.data(), want.data(), tolerance));
      EXPECT_TRUE(close(own_mean, mean, tolerance));
      EXPECT_TRUE(close(own_var, var, tolerance));
      EXPECT_TRUE(close(own.grad(), own_rows(vx.grad()), tolerance));
      EXPECT_TRUE(same_on_all_ranks(got.data()));
    }
}

TEST(ParallelFunctions, BatchMeansEqualOneProcess) {
  const int64_t n = 4 * world().size(), classes = 6;
  const Tensor x = sample({n, classes}, 1, DType::f64);
  const Tensor labels = randint(0, classes, {n}, Rng{2, 2, 0});
  const Variable all(x, true), own(own_rows(x), true);
  const Variable want = cross_entropy(all, labels, 0.1);
  const Variable got = mean_over_ranks(cross_entropy(own, own_rows(labels), 0.1), world());
  want.backward();
  got.backward();
  EXPECT_TRUE(close(got.data(), want.data(), 1e-12));
  EXPECT_TRUE(close(own.grad(), own_rows(all.grad()), 1e-12));
  EXPECT_TRUE(same_on_all_ranks(got.data()));
}

// Every row against every other: the loss is that of the gathered rows, with gradients on both
// sides.
TEST(ParallelFunctions, ContrastOfGatheredRowsEqualsOneProcess) {
  const int64_t n = 3 * world().size(), d = 8;
  const Tensor a = sample({n, d}, 1, DType::f64), b = sample({n, d}, 2, DType::f64);
  const Tensor weights = Tensor::full({n}, 1.0 / static_cast<double>(n), DType::f64);
  const auto loss = [&](const Variable& u, const Variable& v) {
    return info_nce(normalize(u), normalize(v), 0.2, weights);
  };
  const Variable ua(a, true), va(b, true), u(own_rows(a), true), v(own_rows(b), true);
  const Variable want = loss(ua, va);
  const Variable got = loss(gather_over_ranks(u, world()), gather_over_ranks(v, world()));
  want.backward();
  got.backward();
  EXPECT_TRUE(close(got.data(), want.data(), 1e-12));
  EXPECT_TRUE(close(u.grad(), own_rows(ua.grad()), 1e-12));
  EXPECT_TRUE(close(v.grad(), own_rows(va.grad()), 1e-12));
  EXPECT_TRUE(same_on_all_ranks(got.data()));
}

TEST(ParallelFunctions, BatchNormComputedAgainGivesTheSameBits) {
  const int64_t c = kChannelBlock;
  const Tensor x = own_rows(sample({4 * world().size(), c, 5, 5}, 1, DType::f32));
  const Tensor weight = sample({c, c, 3, 3}, 2, DType::f32);
  const Variable one(Tensor::full({c}, 1)), zero(Tensor::zeros({c}));
  const auto gradients = [&](bool again) {
    const Variable v(x, true), w(weight, true);
    const Variable a =
        batch_norm_train(v, one, zero, {}, {}, 0.1, 1e-5, Activation::relu(), {}, world(), again);
    sum(square(conv2d(a, w, {}, Conv2dOptions(1, 1)))).backward();
    return std::pair(v.grad(), w.grad());
  };
  const auto kept = gradients(false), again = gradients(true);
  EXPECT_TRUE(identical(again.first, kept.first));
  EXPECT_TRUE(identical(again.second, kept.second));
}

TEST(ParallelFunctions, OneRankChangesNothing) {
  const Communicator& self = Communicator::self();
  const Variable x(sample({4, 3, 2, 2}, 1, DType::f32), true);
  EXPECT_EQ(mean_over_ranks(x, self).impl(), x.impl());
  EXPECT_EQ(gather_over_ranks(x, self).impl(), x.impl());
  const Variable one(Tensor::full({3}, 1)), zero(Tensor::zeros({3}));
  EXPECT_TRUE(identical(batch_norm_train(x, one, zero, {}, {}, 0.1, 1e-5, {}, {}, self).data(),
                        batch_norm_train(x, one, zero, Tensor(), Tensor(), 0.1, 1e-5).data()));
}

}  // namespace
}  // namespace mtcki
