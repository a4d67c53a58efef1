// What every family has to do, on narrow members of each: one pass for all layers, features and
// stages, a training step, taps that end the pass, precision.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>

#include "nn/init.h"
#include "nn/models/model.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::nn::nn_models_test_families {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr int64_t kSize = 32;

std::unique_ptr<Classifier> network(const std::string& name, int64_t size = kSize) {
  Init init(1);
  return make_classifier({name, 3, size, 7}, init);
}

// One training step moves statistics, and batch norms do something.
std::unique_ptr<Classifier> settled(const std::string& name) {
  auto net = network(name);
  const NoGradScope no_grad;
  for (uint64_t i = 0; i < 3; ++i) (*net)(Variable(randn({8, 3, kSize, kSize}, Rng{2, 0, i})));
  for (BatchNorm2d* bn : net->batch_norms()) {
    uniform_(bn->weight, 0.5, 1.5, Rng{3});
    uniform_(bn->bias, -0.3, 0.3, Rng{4});
  }
  net->eval();
  return net;
}

std::vector<Module*> modules(const std::vector<BatchNorm2d*>& norms) {
  return {norms.begin(), norms.end()};
}

class Family : public ::testing::TestWithParam<const char*> {};

TEST_P(Family, EvaluatesInOnePassWhatItsLayersCompute) {
  const auto net = settled(GetParam());
  const NoGradScope no_grad;
  const Variable x(randn({4, 3, kSize, kSize}, Rng{5}));
  const auto tapped = net->features(x, net->batch_norms());
  EXPECT_TRUE(allclose((*net)(x).data(), tapped.logits.data(), 1e-4, 1e-5));
  EXPECT_EQ(tapped.logits.shape(), (Shape{4, 7}));
  EXPECT_EQ(tapped.feature.shape(), (Shape{4, net->feature_dim()}));
  for (size_t i = 0; i < tapped.taps.size(); ++i)
    EXPECT_EQ(tapped.taps[i].size(1), net->batch_norms()[i]->weight.numel());
  const auto stages = net->taps(x, net->stages());
  EXPECT_GE(stages.size(), 3u);
  for (const Variable& s : stages) EXPECT_EQ(s.shape().rank(), 4);
}

TEST_P(Family, TrainsAsItsLayersDo) {
  const auto net = network(GetParam()), listened = network(GetParam());
  std::vector<HookHandle> hooks;  // layers with hooks run one after the other
  for (BatchNorm2d* bn : listened->batch_norms())
    hooks.push_back(bn->add_after_hook([](const Module&, const Variable&, const Variable&) {}));
  const Variable x(randn({8, 3, kSize, kSize}, Rng{6}), true), seen(x.data(), true);
  const Tensor seed = randn({8, 7}, Rng{7});
  (*net)(x).backward(seed);
  (*listened)(seen).backward(seed);
  const auto near = [](const Tensor& a, const Tensor& b) {
    double most = 0;
    for (const double v : b.to_vector<double>()) most = std::max(most, std::abs(v));
    return all_finite(a) && allclose(a, b, 1e-3, 1e-3 * most + 1e-6);
  };
  EXPECT_TRUE(near(x.grad(), seen.grad()));
  const auto mine = net->named_parameters(), others = listened->named_parameters();
  for (size_t i = 0; i < mine.size(); ++i) {
    ASSERT_TRUE(mine[i].second->grad().defined()) << mine[i].first;
    EXPECT_TRUE(near(mine[i].second->grad(), others[i].second->grad())) << mine[i].first;
  }
  for (BatchNorm2d* bn : net->batch_norms()) EXPECT_EQ(bn->num_batches_tracked.item(), 1.0);
}

// Neither the layers behind the last tap run, nor anything that they would have been given to.
TEST_P(Family, EndsAPassAtTheLastTap) {
  const auto net = settled(GetParam());
  const NoGradScope no_grad;
  const Variable x(randn({1, 3, kSize, kSize}, Rng{8}));
  const std::vector<Module*> norms = modules(net->batch_norms());
  const auto whole = net->features(x, norms);
  for (const size_t n : {size_t{1}, norms.size() / 2, norms.size() - 1, norms.size()}) {
    int ran = 0;
    std::vector<HookHandle> counters;
    for (Module* bn : norms)
      counters.push_back(
          bn->add_after_hook([&](const Module&, const Variable&, const Variable&) { ++ran; }));
    const auto taps = net->taps(x, {norms.begin(), norms.begin() + static_cast<int64_t>(n)});
    ASSERT_EQ(taps.size(), n);
    EXPECT_TRUE(identical(taps[n - 1].data(), whole.taps[n - 1].data())) << n;
    EXPECT_LT(ran, static_cast<int>(norms.size())) << n;
  }
}

TEST_P(Family, ComputesInBf16NearlyWhatItDoesInF32) {
  const auto net = settled(GetParam());
  const NoGradScope no_grad;
  const Variable x(randn({2, 3, kSize, kSize}, Rng{9}));
  const Tensor exact = (*net)(x).data();
  net->set_precision(Precision::bf16);
  const Tensor rounded = (*net)(x).data();
  EXPECT_EQ(rounded.dtype(), DType::f32);
  double difference = 0, size = 0;
  const auto a = exact.to_vector<double>(), b = rounded.to_vector<double>();
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += a[i] * a[i];
  }
  EXPECT_LT(difference, 0.05 * 0.05 * size);
  EXPECT_GT(difference, 0.0);
}

TEST_P(Family, TakesItsStateDictBack) {
  const auto net = settled(GetParam()), fresh = network(GetParam());
  fresh->load_state_dict(net->state_dict());
  fresh->eval();
  const NoGradScope no_grad;
  const Variable x(randn({2, 3, kSize, kSize}, Rng{10}));
  EXPECT_TRUE(identical((*net)(x).data(), (*fresh)(x).data()));
}

INSTANTIATE_TEST_SUITE_P(Narrow, Family,
                         ::testing::Values("resnet18_w0.125_in", "resnet50_w0.0625",
                                           "resnet50_w0.0625_pool", "vgg11_bn_w0.125",
                                           "vgg11_bn_fc_w0.125", "vgg11_bn_w0.125_in",
                                           "mobilenet_v2_w0.1", "mobilenet_v2_w0.1_in",
                                           "shufflenet_v2_x0_5_w0.25",
                                           "shufflenet_v2_x0_5_w0.25_in", "densenet121_w0.125",
                                           "densenet121_w0.125_in", "repvgg_a0_w0.125"),
                         [](const auto& row) {
                           std::string name = row.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

std::vector<int64_t> stage_channels(const std::string& name) {
  const auto net = network(name);
  net->eval();
  const NoGradScope no_grad;
  std::vector<int64_t> out;
  for (const Variable& x : net->taps(Tensor::zeros({1, 3, kSize, kSize}), net->stages()))
    out.push_back(x.size(1));
  return out;
}

TEST(Families, StageInputsAreThoseOfTheStages) {
  EXPECT_THAT(stage_channels("resnet50_w0.125_in"), ElementsAre(8, 32, 64, 128));
  EXPECT_THAT(stage_channels("vgg16_bn_w0.125"), ElementsAre(8, 16, 32, 64));
  EXPECT_THAT(stage_channels("mobilenet_v2_w0.5"), ElementsAre(16, 8, 16, 16, 32, 48, 80));
  EXPECT_THAT(stage_channels("shufflenet_v2_x0_5"), ElementsAre(24, 48, 96, 192));
  EXPECT_THAT(stage_channels("densenet121_w0.25"), ElementsAre(16, 32, 64, 128));
  EXPECT_THAT(stage_channels("repvgg_a0_w0.25"), ElementsAre(12, 12, 24, 48));
}

// A narrow one of the same row of the registry where there is one.
std::string narrow(const std::string& name) {
  const bool has_suffix = name.ends_with("_pool") || name.ends_with("_in");
  const size_t at = has_suffix ? name.rfind('_') : name.size();
  const std::string out = name.substr(0, at) + "_w0.125" + name.substr(at);
  try {
    network(out);
  } catch (const UsageError&) {
    return name;
  }
  return out;
}

TEST(Families, EveryRegisteredNameBuildsAndRunsInEveryForm) {
  for (const std::string& registered : classifier_names()) {
    const std::string name = narrow(registered);
    if (name == "wrn28_10" || name.find("110") != std::string::npos) continue;  // large, same code
    if (registered == "densenet121_in") continue;  // 28 pixels are too few
    for (const int64_t channels : {1, 3}) {
      Init init(1);
      const auto model = make_classifier({name, channels, 28, 7}, init);
      model->eval();
      const NoGradScope no_grad;
      for (const int64_t size : {28, 64}) {
        if (size == 64 && channels == 3) continue;
        const auto out = model->features(Tensor::full({2, channels, size, size}, 0.5));
        EXPECT_EQ(out.logits.shape(), (Shape{2, 7})) << name;
        EXPECT_EQ(out.feature.shape(), (Shape{2, model->feature_dim()})) << name;
        EXPECT_TRUE(all_finite(out.logits.data())) << name;
      }
      EXPECT_EQ(model->num_classes(), 7);
    }
  }
}

TEST(Families, NamesThatAreNoVariantsAreRefused) {
  for (const char* bad : {"vgg11_bn_pool", "vgg11_in", "vgg8_bn", "resnet8_w0.5", "resnet8_in",
                          "resnet20_pool", "resnet50_a", "resnet18_in_w0.5", "mobilenet_v2_pool",
                          "shufflenet_v2", "densenet121_w", "repvgg_b0", "resnet18_pool_in"})
    EXPECT_THROW(network(bad), UsageError) << bad;
  EXPECT_THAT([] { network("mobilenetv2"); },
              ThrowsMessage<UsageError>(HasSubstr("did you mean \"mobilenet_v2\"?")));
}

// Three transitions halve what the stem leaves, without padding.
TEST(Families, DenseNetNamesTheSmallestImages) {
  EXPECT_THAT([] { network("densenet121_w0.125_in", 28); },
              ThrowsMessage<UsageError>(AllOf(HasSubstr("densenet121_w0.125_in"),
                                              HasSubstr("at least 29 pixels, got 28"))));
  const NoGradScope no_grad;
  for (const auto& [name, size] : {std::pair<const char*, int64_t>{"densenet121_w0.125", 8},
                                   {"densenet121_w0.125_pool", 15},
                                   {"densenet121_w0.125_in", 29}}) {
    const auto net = network(name, size);
    net->eval();
    EXPECT_EQ((*net)(Tensor::zeros({1, 3, size, size})).shape(), (Shape{1, 7})) << name;
    EXPECT_THROW(network(name, size - 1), UsageError) << name;
  }
}

double standard_deviation(const Variable& v) {
  double square = 0;
  const auto values = v.data().to_vector<double>();
  for (const double x : values) square += x * x;
  return std::sqrt(square / static_cast<double>(values.size()));
}

// torchvision's: a depthwise convolution has a fan_out of its channels times the kernel, too.
TEST(Families, InitialiseAsTorchvisionDoes) {
  const auto parameter = [](Classifier& net, const std::string& name) {
    for (const auto& [key, p] : net.named_parameters())
      if (key == name) return *p;
    throw Error(name);
  };
  const auto mobile = network("mobilenet_v2");
  EXPECT_NEAR(standard_deviation(parameter(*mobile, "features.17.conv.1.0.weight")),
              std::sqrt(2.0 / (960 * 9)), 1e-3);
  EXPECT_NEAR(standard_deviation(parameter(*mobile, "classifier.1.weight")), 0.01, 1e-3);
  const auto dense = network("densenet121_w0.25");
  EXPECT_NEAR(
      standard_deviation(parameter(*dense, "features.denseblock4.denselayer1.conv2.weight")),
      std::sqrt(2.0 / (32 * 9)), 5e-3);
  EXPECT_EQ(standard_deviation(parameter(*dense, "classifier.bias")), 0.0);
  const auto res = network("resnet18_w0.5_in");
  EXPECT_NEAR(standard_deviation(parameter(*res, "layer4.1.conv2.weight")),
              std::sqrt(2.0 / (256 * 9)), 1e-3);
}

}  // namespace
}  // namespace mtcki::nn::nn_models_test_families
