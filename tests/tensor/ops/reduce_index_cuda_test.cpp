// Reductions, index ops and copy_if_less_ on the GPU against the CPU.
#include <gmock/gmock.h>

#include <limits>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/keep_best.h"
#include "tensor/ops/reduce.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::kGpu;
using testing::near;
using testing::sample;
using testing::Values;
using testing::values;

class ReduceIndexCuda : public testing::CudaTest {};
const std::vector<DType> kFloats{DType::f32, DType::f64, DType::bf16};
const std::vector<Layout> kLayouts{Layout::plain, Layout::channels_last};

double tolerance(DType dtype) {
  return dtype == DType::bf16 ? 8e-3 : dtype == DType::f32 ? 1e-6 : 1e-13;
}

TEST_F(ReduceIndexCuda, SumsEverySubsetOfDimensionsInBothLayouts) {
  for (const Shape& shape : {Shape{3, 5, 4, 7}, Shape{1, 40, 1, 9}})
    for (const DType dtype : kFloats) {
      const Tensor x = sample(shape, 1, dtype);
      for (unsigned mask = 1; mask < 16; ++mask) {
        std::vector<int> dims;
        for (int d = 0; d < 4; ++d)
          if (mask >> d & 1u) dims.push_back(d);
        const Tensor want = sum(x, dims), average = mean(x, dims, true);
        for (const Layout layout : kLayouts) {
          const Tensor in = x.to(kGpu).to(layout);
          // Both round one f64 sum once.
          EXPECT_TRUE(near(sum(in, dims), want, tolerance(dtype))) << mask << in.describe();
          EXPECT_TRUE(near(mean(in, dims, true), average, tolerance(dtype))) << mask;
        }
      }
    }
}

TEST_F(ReduceIndexCuda, LongSumsKeepTheirDigitsAndRepeat) {
  const int64_t n = 100003;
  const Tensor x = Tensor::full({n}, 0.1).to(kGpu);
  const double tenth = static_cast<double>(0.1f);
  EXPECT_NEAR(sum(x).item(), static_cast<double>(n) * tenth, 1e-3);
  EXPECT_NEAR(mean(x).item(), tenth, 1e-8);
  for (const Shape& shape : {Shape{3, 20011}, Shape{20011, 3}, Shape{1100, 100}, Shape{5, 2000}}) {
    const Tensor y = sample(shape, 2, DType::f32), there = y.to(kGpu);
    for (const int d : {0, 1}) {
      EXPECT_TRUE(near(sum(there, {d}), sum(y, {d}), 1e-6)) << shape << d;
      EXPECT_TRUE(identical(sum(there, {d}), sum(there, {d})));
    }
    EXPECT_TRUE(near(norm(there), norm(y), 1e-6));
  }
}

TEST_F(ReduceIndexCuda, SumsOfIntegersEmptyAndSingle) {
  EXPECT_EQ(sum(Tensor::full({1000}, 250, DType::u8, kGpu)).item(), 250000);
  EXPECT_EQ(sum(Tensor::full({70, 40}, 1, DType::boolean, kGpu), {0}).to_vector<int64_t>()[39], 70);
  EXPECT_EQ(sum(Tensor::full({20000}, -3, DType::i64, kGpu)).item(), -60000);
  EXPECT_EQ(sum(Tensor::zeros({0, 3}, DType::f32, kGpu)).item(), 0);
  EXPECT_EQ(values(sum(Tensor::zeros({0, 3}, DType::f32, kGpu), {0})), (Values{0, 0, 0}));
  EXPECT_EQ(sum(Tensor::zeros({3, 0}, DType::f32, kGpu), {0}).shape(), (Shape{0}));
  EXPECT_TRUE(std::isnan(mean(Tensor::zeros({0}, DType::f32, kGpu)).item()));
  EXPECT_EQ(mean(Tensor::full({}, 2.5, DType::bf16, kGpu)).item(), 2.5);
  EXPECT_EQ(norm(Tensor::zeros({0}, DType::f64, kGpu)).item(), 0);
  EXPECT_NEAR(norm(Tensor::full({100000}, 1e18, DType::f32, kGpu)).item(), 1e18 * std::sqrt(1e5),
              1e15);
}

TEST_F(ReduceIndexCuda, MaximumIsTheFirstOfTheLargest) {
  const Tensor ties = Tensor::from<float>({1, 5, 5, 0, -1, -2, -1, -3, 0, NAN, 7, NAN}, {3, 4});
  const Tensor there = ties.to(kGpu);
  EXPECT_EQ(values(argmax(there, 1)), (Values{1, 0, 1}));
  EXPECT_EQ(values(argmax(there, 0)), values(argmax(ties, 0)));
  EXPECT_TRUE(std::isnan(max(there, 1).to_vector<double>()[2]));
  EXPECT_EQ(argmax(Tensor::full({1, 5000}, 3, DType::f32, kGpu), 1).item(), 0);
  EXPECT_EQ(argmax(Tensor::full({1, 3}, -INFINITY, DType::f32, kGpu), 1).item(), 0);
  for (const Shape& shape : {Shape{2, 3, 4, 5}, Shape{7, 33}, Shape{3, 2500}, Shape{1, 1}})
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::u8}) {
      const Tensor x = abs(mul(sample(shape, 3), 20.0)).to(dtype);
      for (int d = 0; d < shape.rank(); ++d) {
        EXPECT_TRUE(identical(max(x.to(kGpu), d, true), max(x, d, true))) << shape << d;
        EXPECT_TRUE(identical(argmax(x.to(kGpu), d), argmax(x, d))) << shape << d;
      }
    }
  const Tensor images = sample({2, 6, 3, 4}, 4, DType::f32);
  EXPECT_TRUE(identical(argmax(images.to(kGpu).to(Layout::channels_last), 1), argmax(images, 1)));
  EXPECT_THAT(error_of<ShapeError>([] {
                argmax(Tensor::zeros({2, 0}, DType::f32, kGpu), 1);
              }),
              HasSubstr("has no maximum"));
}

TEST_F(ReduceIndexCuda, BroadcastsAndSumsBack) {
  const Shape big{2, 3, 4, 5};
  for (const Shape& small : {Shape{1, 3, 1, 5}, Shape{3, 1, 1}, Shape{5}, Shape{1}, Shape{},
                             Shape{2, 1, 1, 1}, Shape{2, 3, 1, 1}}) {
    for (const DType dtype : {DType::f32, DType::u8}) {
      const Tensor x = abs(mul(sample(small, 5), 9.0)).to(dtype);
      for (const Layout layout : kLayouts) {
        const Tensor y = broadcast_to(x.to(kGpu), big, layout);
        EXPECT_EQ(y.layout(), layout);
        EXPECT_TRUE(identical(y.plain(), broadcast_to(x, big))) << small;
      }
    }
    const Tensor g = sample(big, 6);
    for (const Layout layout : kLayouts)
      EXPECT_TRUE(near(sum_to(g.to(kGpu).to(layout), small), sum_to(g, small), 1e-13)) << small;
  }
  const Tensor row = sample({1, 9}, 7);
  EXPECT_TRUE(identical(broadcast_to(row.to(kGpu), {4, 9}), broadcast_to(row, {4, 9})));
  EXPECT_EQ(broadcast_to(Tensor::zeros({1, 3}, DType::f32, kGpu), {0, 3}).shape(), (Shape{0, 3}));
}

TEST_F(ReduceIndexCuda, CountsTopkLikeTheCpuAndSkipsBadLabels) {
  const Tensor x = Tensor::from<float>({1, 3, 3, 0, 2, 2, 2, 2, NAN, 1, 0, 0}, {3, 4});
  const std::vector<std::vector<int64_t>> all{{1, 0, 1}, {2, 1, 0}, {3, 3, 3}};
  for (const auto& labels : all)
    for (const int k : {1, 2, 3, 4})
      for (const DType dtype : kFloats) {
        const Tensor y = Tensor::from(labels, {3});
        const Tensor count = topk_correct(x.to(dtype).to(kGpu), y.to(kGpu), k);
        EXPECT_EQ(count.device(), kGpu);
        EXPECT_EQ(count.dtype(), DType::i64);
        EXPECT_EQ(static_cast<int64_t>(count.item()), count_topk_correct(x, y, k));
      }
  const Tensor bad = Tensor::from<int64_t>({-1, 4, int64_t{1} << 62}, {3}).to(kGpu);
  EXPECT_EQ(count_topk_correct(x.to(kGpu), bad, 4), 0);
  const Tensor wide = sample({9, 3000}, 8, DType::f32), label = argmax(wide, 1);
  EXPECT_EQ(count_topk_correct(wide.to(kGpu), label.to(kGpu), 1), 9);
  EXPECT_THAT(error_of<DeviceError>([&] { topk_correct(wide.to(kGpu), label, 1); }),
              HasSubstr("different devices"));
}

TEST_F(ReduceIndexCuda, CutsAndJoinsInBothLayouts) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::u8})
    for (const int64_t c : {int64_t{3}, int64_t{16}})
      for (const Layout layout : kLayouts)
        for (int dim = 0; dim < 4; ++dim) {
          const Shape shape{2, c, 4, 5};
          Shape other = shape;
          other.set(dim, 3);
          const Tensor a = abs(mul(sample(shape, 1), 50.0)).to(dtype);
          const Tensor b = abs(mul(sample(other, 2), 50.0)).to(dtype);
          const Tensor ga = a.to(kGpu).to(layout), gb = b.to(kGpu).to(layout);
          const Tensor y = cat({ga, gb, ga}, dim), want = cat({a, b, a}, dim);
          EXPECT_EQ(y.layout(), layout);
          EXPECT_TRUE(identical(y.plain(), want)) << dim;
          const Tensor part = narrow(y, dim, 1, 3);
          EXPECT_EQ(part.layout(), layout);
          EXPECT_TRUE(identical(part.plain(), narrow(want, dim, 1, 3))) << dim;
          const Tensor back = narrow_grad(part, y.shape(), dim, 2);
          EXPECT_EQ(back.layout(), layout);
          EXPECT_TRUE(
              identical(back.plain(), narrow_grad(part.to(Device::cpu()), y.shape(), dim, 2)));
        }
  const Tensor x = Tensor::zeros({0, 3}, DType::f32, kGpu);
  EXPECT_EQ(cat({x, Tensor::zeros({2, 3}, DType::f32, kGpu)}).shape(), (Shape{2, 3}));
  EXPECT_EQ(narrow(cat({x, x}), 0, 0, 0).shape(), (Shape{0, 3}));
}

TEST_F(ReduceIndexCuda, SelectsCopiesAndAddsRows) {
  for (const Layout layout : kLayouts)
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::u8}) {
      const Tensor x = abs(testing::steps({5, 3, 3, 3})).to(dtype);
      const Tensor index = Tensor::from<int64_t>({4, 0, 4, 4}, {4}), there = index.to(kGpu);
      const Tensor y = index_select(x.to(kGpu).to(layout), there), want = index_select(x, index);
      EXPECT_EQ(y.layout(), layout);
      EXPECT_TRUE(identical(y.plain(), want));
      const Tensor rows = abs(mul(sample(want.shape(), 3), 9.0)).to(dtype);
      if (!is_floating(dtype)) continue;
      const Tensor gx = index_select_grad(rows.to(kGpu).to(layout), there, x.shape());
      EXPECT_EQ(gx.layout(), layout);
      EXPECT_TRUE(identical(gx.plain(), index_select_grad(rows, index, x.shape())));
    }
}

TEST_F(ReduceIndexCuda, BadIndicesTouchNothing) {
  const int64_t far = int64_t{1} << 60;
  const Tensor x = sample({3, 4}, 1, DType::f32).to(kGpu);
  const Tensor index = Tensor::from<int64_t>({3, 1, -1, far, -far}, {5}).to(kGpu);
  const Tensor y = index_select(x, index);
  EXPECT_TRUE(identical(y.slice(1, 2), x.slice(1, 2)));
  for (const int64_t row : {0, 2, 3, 4})
    EXPECT_TRUE(identical(y.slice(row, row + 1), Tensor::zeros({1, 4})));
  EXPECT_EQ(values(index_select_grad(Tensor::full({5, 1}, 1.0, DType::f32, kGpu), index, {3, 1})),
            (Values{0, 1, 0}));
  EXPECT_EQ(values(one_hot(index, 3)), (Values{0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  EXPECT_THAT(error_of<DeviceError>([&] { index_select(x, index.to(Device::cpu())); }),
              HasSubstr("different devices"));
}

TEST_F(ReduceIndexCuda, PermutesAndMarks) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::i64, DType::u8}) {
    const Tensor x = abs(mul(sample({2, 3, 4, 5}, 1), 9.0)).to(dtype);
    for (const std::vector<int>& order :
         {std::vector<int>{3, 1, 0, 2}, std::vector<int>{0, 2, 3, 1}, std::vector<int>{0, 1, 2, 3}})
      for (const Layout layout : kLayouts)
        EXPECT_TRUE(identical(permute(x.to(kGpu).to(layout), order), permute(x, order)));
    const Tensor m = abs(mul(sample({33, 70}, 1), 9.0)).to(dtype);
    EXPECT_TRUE(identical(transpose(m.to(kGpu)), transpose(m)));
    EXPECT_TRUE(identical(permute(m.to(kGpu), {0, 1}), m));
  }
  EXPECT_EQ(transpose(Tensor::zeros({0, 3}, DType::f32, kGpu)).shape(), (Shape{3, 0}));
  const Tensor labels = Tensor::from<int64_t>({2, 0}, {2});
  for (const DType dtype : {DType::f32, DType::bf16, DType::u8, DType::i64})
    EXPECT_TRUE(identical(one_hot(labels.to(kGpu), 3, dtype), one_hot(labels, 3, dtype)));
}

TEST_F(ReduceIndexCuda, SubsamplesWithItsGradientInBothLayouts) {
  for (const DType dtype : kFloats)
    for (const int64_t stride : {1, 2, 3})
      for (const Layout layout : kLayouts) {
        const Tensor x = sample({2, 6, 5, 4}, 1, dtype);
        const Tensor want = subsample_pad_channels(x, stride, 2, 3);
        const Tensor y = subsample_pad_channels(x.to(kGpu).to(layout), stride, 2, 3);
        EXPECT_EQ(y.layout(), layout);
        EXPECT_TRUE(identical(y.plain(), want)) << stride;
        const Tensor g = sample(want.shape(), 2, dtype);
        const Tensor gx = subsample_pad_channels_grad(g.to(kGpu).to(layout), x.shape(), stride, 2);
        EXPECT_EQ(gx.layout(), layout);
        EXPECT_TRUE(identical(gx.plain(), subsample_pad_channels_grad(g, x.shape(), stride, 2)));
      }
}

TEST_F(ReduceIndexCuda, CopiesOnlyWhenLess) {
  for (const Device device : {Device::cpu(), kGpu}) {
    const auto put = [&](const Tensor& t) { return t.to(device).clone(); };
    const Tensor best = Tensor::full({}, INFINITY, DType::f32, device);
    const Tensor images = put(sample({2, 3, 4, 4}, 1, DType::f32)).to(Layout::channels_last);
    const Tensor kept = Tensor::zeros({2, 3, 4, 4}, DType::f32, device);
    const Tensor labels = put(Tensor::from<int64_t>({4, 5, 6}, {3}));
    const Tensor kept_labels = Tensor::zeros({3}, DType::i64, device);
    const Tensor odd = put(Tensor::from<uint8_t>({1, 2, 3, 4, 5}, {5})).slice(1, 4);
    const Tensor kept_odd = Tensor::zeros({3}, DType::u8, device);
    const auto step = [&](double score) {
      copy_if_less_(Tensor::full({}, score, DType::f32, device), best, {images, labels, odd},
                    {kept, kept_labels, kept_odd});
    };
    step(NAN);
    EXPECT_EQ(norm(kept).item(), 0);
    EXPECT_EQ(best.item(), INFINITY);
    step(2.0);
    EXPECT_TRUE(identical(kept, images.plain()));
    EXPECT_EQ(values(kept_labels), (Values{4, 5, 6}));
    EXPECT_EQ(values(kept_odd), (Values{2, 3, 4}));
    EXPECT_EQ(best.item(), 2);
    images.zero_();
    step(2.0);  // equal is not less
    EXPECT_NE(norm(kept).item(), 0);
    const uint32_t version = kept.version();
    step(-1.0);
    EXPECT_EQ(norm(kept).item(), 0);
    EXPECT_EQ(best.item(), -1);
    EXPECT_GT(kept.version(), version);
    EXPECT_THAT(error_of<ShapeError>([&] { copy_if_less_(best, best, {images}, {labels}); }),
                HasSubstr("copy_if_less_"));
    EXPECT_THAT(error_of<Error>([&] { copy_if_less_(best, best, {images}, {}); }),
                HasSubstr("1 sources for 0 destinations"));
  }
}

TEST_F(ReduceIndexCuda, CopyIfLessIsReplayedWithNewScores) {
  const Tensor score = Tensor::full({}, 3, DType::f32, kGpu), best = score.clone();
  const Tensor src = sample({7}, 1, DType::f32).to(kGpu), dst = Tensor::zeros_like(src);
  cuda::Graph graph;
  graph.begin();
  copy_if_less_(score, best, {src}, {dst});
  graph.end();
  graph.launch();
  EXPECT_EQ(norm(dst).item(), 0);
  score.fill_(1);
  graph.launch();
  EXPECT_TRUE(identical(dst, src));
  EXPECT_EQ(best.item(), 1);
}

}  // namespace
}  // namespace mtcki
