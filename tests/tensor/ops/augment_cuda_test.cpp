// Augmentation on the GPU against the CPU, adjoints against their forward, and the fused batch
// against the separate steps, bit for bit.
#include <gmock/gmock.h>

#include "tensor/ops/augment.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tests/cuda_testing.h"
#include "tests/tensor/ops/ops_testing.h"

namespace mtcki {
namespace {

using namespace testing;
using ::testing::HasSubstr;

class AugmentCuda : public CudaTest {};

constexpr DType kTypes[] = {DType::f32, DType::f64, DType::bf16};
constexpr Layout kLayouts[] = {Layout::plain, Layout::channels_last};

double close(DType dtype) { return dtype == DType::bf16 ? 1e-2 : tolerance(dtype); }
Tensor f64(const Tensor& t) { return t.to(DType::f64); }
Tensor on_gpu(const Tensor& t) { return t.defined() ? t.to(kGpu) : t; }

double dot(const Tensor& a, const Tensor& b) {
  const Values x = values(a), y = values(b);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

Tensor offsets(int64_t n, int64_t pad) {
  return randint(0, 2 * pad + 1, {n, 2}, Rng{5, 0, 0}).to(DType::i32);
}
Tensor flips(int64_t n) { return randint(0, 2, {n}, Rng{6, 0, 0}).to(DType::boolean); }

TEST_F(AugmentCuda, PadCropFlipMovesBitsAsTheCpu) {
  for (const int64_t c : {1, 3, 7})
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts)
        for (const int64_t pad : {0, 2, 9}) {
          const Tensor x = sample({9, c, 6, 5}, 1, dtype);
          for (const auto& [o, f] :
               std::vector<std::pair<Tensor, Tensor>>{{offsets(9, pad), flips(9)},
                                                      {Tensor(), flips(9)},
                                                      {offsets(9, pad), Tensor()}}) {
            const Tensor there = x.to(kGpu).to(layout);
            const Tensor y = pad_crop_flip(there, pad, on_gpu(o), on_gpu(f));
            EXPECT_EQ(y.layout(), layout);
            EXPECT_TRUE(identical(y.plain(), pad_crop_flip(x, pad, o, f)));
            const Tensor gx = pad_crop_flip_grad(there, pad, on_gpu(o), on_gpu(f));
            EXPECT_TRUE(identical(gx.plain(), pad_crop_flip_grad(x, pad, o, f)));
          }
        }
}

// Boxes inside, across the border, tiny, huge, and far outside.
Tensor boxes() {
  return Tensor::from<float>(
      {0, 0, 6,     5,    1,  2,  3,  2,  2.5f, 0.25f, 1.5f, 3.5f, 5, 4,  1, 1,
       1, 1, 0.01f, 0.1f, -4, -3, 20, 15, -9,   2,     2,    2,    3, 30, 2, 4},
      {8, 4});
}

TEST_F(AugmentCuda, ResizedCropFlipFollowsTheCpu) {
  const Tensor box = boxes(), flip = flips(8);
  for (const int64_t c : {1, 3})
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts)
        for (const auto& [oh, ow] :
             std::vector<std::pair<int64_t, int64_t>>{{6, 5}, {3, 7}, {1, 1}, {19, 2}}) {
          const Tensor x = sample({8, c, 6, 5}, 1, dtype), there = x.to(kGpu).to(layout);
          const Tensor y = resized_crop_flip(there, on_gpu(box), on_gpu(flip), oh, ow);
          EXPECT_EQ(y.layout(), layout);
          EXPECT_TRUE(near(y, resized_crop_flip(f64(x), box, flip, oh, ow), close(dtype)));
          const Tensor g = sample(y.shape(), 2, dtype), g_there = g.to(kGpu).to(layout);
          const auto grad = [&] {
            return resized_crop_flip_grad(g_there, on_gpu(box), on_gpu(flip), x.shape());
          };
          const Tensor gx = grad();
          const Tensor want = resized_crop_flip_grad(f64(g), box, flip, x.shape());
          EXPECT_TRUE(near(gx, want, dtype == DType::f32 ? 1e-4 : close(dtype)));
          EXPECT_TRUE(identical(grad(), gx));
          if (dtype == DType::f64) {
            EXPECT_NEAR(dot(gx, x), dot(g, y), 1e-10 * std::max(1.0, std::fabs(dot(g, y))));
          }
        }
}

TEST_F(AugmentCuda, BadParametersReadNothingOutside) {
  const Tensor x = sample({2, 3, 4, 4}, 1, DType::f32).to(kGpu);
  const Tensor far = Tensor::from<int32_t>({-1000000, 7, 2000000000, -5}, {2, 2}).to(kGpu);
  EXPECT_TRUE(all_finite(pad_crop_flip(x, 1, far, {})));
  const Tensor box = Tensor::from<float>({NAN, 0, 0, -1, INFINITY, 1e30f, NAN, 0}, {2, 4}).to(kGpu);
  EXPECT_EQ(resized_crop_flip(x, box, {}, 3, 3).to(Device::cpu()).size(2), 3);
  EXPECT_EQ(resized_crop_flip_grad(x, box, {}, x.shape()).to(Device::cpu()).size(2), 4);
}

TEST_F(AugmentCuda, NormalizeChannelsFollowsTheCpu) {
  for (const int64_t c : {1, 3, 16})
    for (const DType dtype : kTypes)
      for (const Layout layout : kLayouts) {
        const DType wide = dtype == DType::bf16 ? DType::f32 : dtype;
        const Tensor x = sample({4, c, 5, 3}, 1, dtype), mean = sample({c}, 2, wide);
        const Tensor std = add(abs(sample({c}, 3, wide)), 0.5), there = x.to(kGpu).to(layout);
        const Tensor y = normalize_channels(there, on_gpu(mean), on_gpu(std));
        EXPECT_EQ(y.layout(), layout);
        EXPECT_TRUE(near(y, normalize_channels(f64(x), f64(mean), f64(std)), close(dtype)));
        EXPECT_TRUE(near(normalize_channels_grad(there, on_gpu(std)),
                         normalize_channels_grad(f64(x), f64(std)), close(dtype)));
      }
}

TEST_F(AugmentCuda, GatherAugmentEqualsTheSeparateSteps) {
  for (const int64_t c : {1, 3})
    for (const bool normalised : {false, true}) {
      const Tensor images = randint(0, 256, {20, c, 8, 7}, Rng{1, 0, 0}).to(DType::u8);
      const Tensor index = randint(0, 20, {11}, Rng{2, 0, 0});
      const Tensor o = offsets(11, 3), f = flips(11);
      const Tensor mean = normalised ? abs(sample({c}, 3, DType::f32)) : Tensor();
      const Tensor std = normalised ? add(abs(sample({c}, 4, DType::f32)), 0.2) : Tensor();
      // Zero bytes outside the image: the padding comes before the normalisation.
      Tensor want = pad_crop_flip(u8_to_unit(index_select(images, index)), 3, o, f);
      if (normalised) want = normalize_channels(want, mean, std);
      EXPECT_TRUE(identical(
          gather_augment(images, index, 3, o, f, mean, std, DType::f32, Layout::plain), want));
      for (const Layout layout : kLayouts)
        for (const DType dtype : {DType::f32, DType::bf16}) {
          const Tensor got = gather_augment(on_gpu(images), on_gpu(index), 3, on_gpu(o), on_gpu(f),
                                            on_gpu(mean), on_gpu(std), dtype, layout);
          EXPECT_EQ(got.layout(), layout);
          EXPECT_EQ(got.dtype(), dtype);
          EXPECT_TRUE(identical(got.to(Device::cpu()).plain(), want.to(dtype)));
        }
    }
}

TEST_F(AugmentCuda, GatherAugmentChecksItsOperands) {
  const Tensor images = Tensor::zeros({4, 3, 5, 5}, DType::u8);
  const Tensor index = Tensor::from<int64_t>({1, 4}, {2});
  const auto run = [](const Tensor& i, const Tensor& n) {
    return gather_augment(i, n, 0, {}, {}, {}, {}, DType::f32, Layout::plain);
  };
  EXPECT_THAT(error_of<Error>([&] { run(images, index); }), HasSubstr("index 4 is outside 0..3"));
  EXPECT_THAT(error_of<DTypeError>([&] { run(images.to(DType::f32), index); }),
              HasSubstr("images need dtype u8"));
  EXPECT_THAT(error_of<DeviceError>([&] { run(on_gpu(images), index); }),
              HasSubstr("operands on two devices"));
  // The GPU cannot look: it reads nothing outside.
  EXPECT_EQ(values(run(on_gpu(images), on_gpu(index)))[80], 0.0);
}

}  // namespace
}  // namespace mtcki
