// The check without data: statistics tell a network from its variant and a normalisation from
// another.
#include "mtcki/networks/statistics_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "mtcki/networks/natural_noise.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/norm.h"

namespace mtcki {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const data::Normalization kPixels{{0.49, 0.48, 0.45}, {0.25, 0.24, 0.26}};
const data::Normalization kSmall{{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}};
const data::Normalization kImageNet{{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};

// Images with the moments of kPixels, normalised by n; another spectrum than the check's noise.
Tensor images(int64_t batch, int64_t size, const data::Normalization& n) {
  const Tensor z = natural_noise(32, 3, size, 1.25 + 0.02 * static_cast<double>(batch));
  Tensor x = Tensor::empty(z.shape());
  const int64_t plane = size * size;
  for (int64_t i = 0; i < z.numel(); ++i) {
    const auto c = static_cast<size_t>(i / plane % 3);
    const double pixel = kPixels.mean[c] + kPixels.std[c] * z.data<float>()[i];
    x.data<float>()[i] = static_cast<float>((pixel - n.mean[c]) / n.std[c]);
  }
  return x;
}

// Leaves memory of so many floats to be taken up again, full of NaN.
void poison(int64_t floats) {
  std::vector<float> values(static_cast<size_t>(floats), NAN);
  volatile float* seen = values.data();  // so that it is really written
  (void)seen[0];
}

// A network whose running statistics are those of such images.
std::unique_ptr<nn::Classifier> settled(const nn::ModelSpec& spec, const data::Normalization& n) {
  nn::Init init(5);
  auto net = nn::make_classifier(spec, init);
  net->train();
  const NoGradScope no_grad;
  for (int64_t i = 0; i < 40; ++i) (*net)(Variable(images(i % 6, spec.image_size, n)));
  net->eval();
  return net;
}

TEST(NaturalNoise, HasUnitVarianceAndRelatedNeighbours) {
  const Tensor z = natural_noise(16, 3, 32, 1.0);
  const ChannelMoments m = channel_moments(z);
  for (const float v : m.var.to_vector<float>()) EXPECT_NEAR(v, 1.0, 0.25);
  double with_next = 0, white = 0;
  const Tensor w = natural_noise(16, 1, 32, 0.0);
  for (int64_t i = 0; i + 1 < 32 * 32; ++i) {
    with_next += double{z.data<float>()[i]} * z.data<float>()[i + 1] / 1024;
    white += double{w.data<float>()[i]} * w.data<float>()[i + 1] / 1024;
  }
  EXPECT_GT(with_next, 0.3);
  EXPECT_LT(std::abs(white), 0.15);
  EXPECT_EQ(natural_noise(2, 3, 8, 1.0).to_vector<float>(),
            natural_noise(2, 3, 8, 1.0).to_vector<float>());
}

// The grid of an octave has room for its shift where the size is no multiple of the cell, too.
TEST(NaturalNoise, IsTheSameInMemoryThatHeldSomethingElse) {
  for (const int64_t size : {12, 20, 28, 56}) {
    const auto first = natural_noise(4, 1, size, 1.0).to_vector<float>();
    for (int64_t n = 4; n < 2 * size; ++n) poison(n * n);
    EXPECT_EQ(natural_noise(4, 1, size, 1.0).to_vector<float>(), first) << size;
  }
}

TEST(Statistics, TellANetworkFromItsVariant) {
  for (const char* name :
       {"vgg8_w0.25", "vgg8_w0.25_pool", "resnet18_w0.25", "resnet18_w0.25_pool"}) {
    const int64_t size = std::string(name).starts_with("vgg") ? 32 : 16;
    const nn::ModelSpec spec{name, 3, size, 10};
    const auto net = settled(spec, kPixels);
    const auto before = net->state_dict();
    const std::vector<VariantFit> right = variant_fits(*net, spec);
    ASSERT_EQ(right.size(), 2u) << name;
    EXPECT_LT(right[0].fit.score(), 0.8 * right[1].fit.score()) << name;
    EXPECT_THAT(variant_doubts(right), IsEmpty()) << name;
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_EQ(before[i].second.to(DType::f64).to_vector<double>(),
                net->state_dict()[i].second.to(DType::f64).to_vector<double>())
          << before[i].first << ": the check changes nothing";
    // The same weights under the other name.
    const std::vector<VariantFit> wrong{right[1], right[0]};
    const auto doubts = variant_doubts(wrong);
    ASSERT_EQ(doubts.size(), 1u) << name;
    EXPECT_THAT(doubts[0], AllOf(HasSubstr(std::string("fit ") + name + " "),
                                 HasSubstr("not " + right[1].model + " ")));
  }
  EXPECT_THAT(variants_of("resnet18"), ElementsAre("resnet18_pool"));
  EXPECT_THAT(variants_of("vgg16_pool"), ElementsAre("vgg16"));
  EXPECT_THAT(variants_of("wrn40_2"), IsEmpty());
  EXPECT_THAT(variants_of("resnet50_in"), IsEmpty());  // another size of the first convolution
  EXPECT_THAT(variants_of("mobilenet_v2_in"), ElementsAre("mobilenet_v2"));
  EXPECT_THAT(variants_of("densenet121_w0.25_pool"), ElementsAre("densenet121_w0.25"));
}

TEST(Statistics, TellTheNormalisation) {
  const nn::ModelSpec spec{"resnet8", 3, 32, 10};
  for (const auto& [truth, name] :
       {std::pair{kSmall, "CIFAR-10, small std"}, std::pair{kImageNet, "ImageNet"}}) {
    const auto net = settled(spec, truth);
    const auto seen = input_moments(*net, spec);
    ASSERT_TRUE(seen.has_value());
    for (size_t c = 0; c < 3; ++c)
      EXPECT_NEAR(seen->mean[c], (kPixels.mean[c] - truth.mean[c]) / truth.std[c], 0.05);
    EXPECT_NEAR(seen->std, 0.25 / truth.std[0], 0.1);
    const auto fits = normalization_fits(*seen, kPixels, {{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}});
    EXPECT_EQ(fits[1].name, name);
    EXPECT_GT(fits[0].distance, 0.5);
    EXPECT_THAT(statistics_doubts(*net, spec, kPixels, {{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}),
                ElementsAre(HasSubstr(name)));
    EXPECT_THAT(statistics_doubts(*net, spec, kPixels, truth), IsEmpty());
  }
}

}  // namespace
}  // namespace mtcki
