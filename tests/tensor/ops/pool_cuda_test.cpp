// Pooling and upsampling on the GPU against the CPU in f64, in both layouts, with windows that
// overlap, leave gaps, or reach over the border.
#include "tensor/ops/elementwise.h"
#include "tensor/ops/pool.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;

class PoolCuda : public CudaTest {};

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16};
constexpr Layout kLayouts[] = {Layout::plain, Layout::channels_last};
constexpr int64_t kChannels[] = {1, 3, 8, 16, 33};

double close(DType dtype) { return dtype == DType::bf16 ? 1e-2 : tolerance(dtype); }
Tensor f64(const Tensor& t) { return t.to(DType::f64); }

// f(x) on the GPU follows f(x) on the CPU in f64, in shape, type and layout; three times the same.
void expect_same(const Tensor& x, Layout layout, const std::function<Tensor(const Tensor&)>& f) {
  const Tensor there = x.to(kGpu).to(layout);
  const Tensor got = f(there);
  EXPECT_EQ(got.dtype(), x.dtype());
  EXPECT_EQ(got.device(), kGpu);
  if (got.rank() == 4) {
    EXPECT_EQ(got.layout(), layout);
  }
  EXPECT_TRUE(near(got, f(f64(x)), close(x.dtype()))) << there.describe();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(identical(f(there), got));
}

std::vector<Pool2dOptions> options() {
  Pool2dOptions ceil(3, 2, 1), inside(3, 2, 1);
  ceil.ceil_mode = true;
  inside.count_include_pad = false;
  Pool2dOptions skew(2);
  skew.kernel = {3, 2};
  skew.stride = {1, 3};
  return {Pool2dOptions(2),
          Pool2dOptions(3, 2, 1),
          Pool2dOptions(3, 1, 1),
          Pool2dOptions(2, 3, 0),
          ceil,
          inside,
          skew};
}

TEST_F(PoolCuda, MaxPoolAndItsGradient) {
  for (const int64_t c : kChannels)
    for (const DType dtype : kTypes)
      for (const Pool2dOptions& o : options()) {
        const Tensor x = sample({2, c, 7, 8}, 1, dtype);
        const MaxPool want = max_pool2d(x, o);
        for (const Layout layout : kLayouts) {
          const MaxPool got = max_pool2d(x.to(kGpu).to(layout), o);
          EXPECT_TRUE(identical(got.y, want.y));
          EXPECT_TRUE(identical(got.index, want.index));
          expect_same(sample(want.y.shape(), 2, dtype), layout, [&](const Tensor& g) {
            return max_pool2d_grad(g, got.index.to(g.device()), x.shape(), o);
          });
        }
      }
}

TEST_F(PoolCuda, MaxPoolTakesTheFirstMaximumAndKeepsNan) {
  Tensor x = Tensor::zeros({1, 2, 4, 4});
  x.data<float>()[5] = NAN;
  const MaxPool want = max_pool2d(x, Pool2dOptions(2)),
                got = max_pool2d(x.to(kGpu), Pool2dOptions(2));
  EXPECT_TRUE(identical(got.index, want.index));
  EXPECT_TRUE(std::isnan(values(got.y)[0]));
}

TEST_F(PoolCuda, AveragesAndTheirGradients) {
  for (const int64_t c : kChannels)
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts) {
        const Tensor x = sample({2, c, 7, 8}, 1, dtype);
        for (const Pool2dOptions& o : options()) {
          expect_same(x, layout, [&](const Tensor& t) { return avg_pool2d(t, o); });
          const Tensor g = sample(avg_pool2d(x, o).shape(), 2, dtype);
          expect_same(g, layout, [&](const Tensor& t) { return avg_pool2d_grad(t, x.shape(), o); });
        }
        for (const auto& [oh, ow] :
             std::vector<std::pair<int64_t, int64_t>>{{3, 5}, {1, 1}, {9, 8}}) {
          expect_same(x, layout, [&, h = oh, w = ow](const Tensor& t) {
            return adaptive_avg_pool2d(t, h, w);
          });
          expect_same(sample({2, c, oh, ow}, 3, dtype), layout,
                      [&](const Tensor& t) { return adaptive_avg_pool2d_grad(t, x.shape()); });
        }
      }
}

TEST_F(PoolCuda, GlobalAverage) {
  for (const Shape& shape : {Shape{3, 1, 5, 5}, Shape{2, 16, 4, 4}, Shape{2, 33, 7, 3},
                             Shape{1, 8, 200, 150}, Shape{2, 600, 2, 2}})
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts) {
        expect_same(sample(shape, 1, dtype), layout, global_avg_pool);
        const Tensor g = sample({shape[0], shape[1]}, 2, dtype);
        const Tensor gx = global_avg_pool_grad(g.to(kGpu), shape, layout);
        EXPECT_EQ(gx.layout(), layout);
        EXPECT_TRUE(near(gx, global_avg_pool_grad(f64(g), shape, Layout::plain), close(dtype)));
      }
}

TEST_F(PoolCuda, UpsamplingAndItsGradient) {
  for (const int64_t c : kChannels)
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts)
        for (const auto& [oh, ow] :
             std::vector<std::pair<int64_t, int64_t>>{{6, 8}, {7, 5}, {2, 3}}) {
          const Tensor x = sample({2, c, 3, 4}, 1, dtype);
          expect_same(x, layout,
                      [&, h = oh, w = ow](const Tensor& t) { return upsample_nearest2d(t, h, w); });
          expect_same(sample({2, c, oh, ow}, 2, dtype), layout,
                      [&](const Tensor& t) { return upsample_nearest2d_grad(t, x.shape()); });
        }
}

TEST_F(PoolCuda, EmptyBatches) {
  const Tensor x = Tensor::zeros({0, 3, 4, 4}, DType::f32, kGpu);
  EXPECT_EQ(max_pool2d(x, Pool2dOptions(2)).y.shape(), (Shape{0, 3, 2, 2}));
  EXPECT_EQ(global_avg_pool(x).shape(), (Shape{0, 3}));
  EXPECT_EQ(global_avg_pool_grad(Tensor::zeros({0, 3}, DType::f32, kGpu), x.shape(), Layout::plain)
                .numel(),
            0);
}

}  // namespace
}  // namespace mtcki
