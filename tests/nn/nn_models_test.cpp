// Networks against the field's: key lists with shapes (tests/data/state_dict_names), parameter
// counts, multiply-accumulates, batch norms; features, stages, input forms, initialisation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <fstream>
#include <sstream>

#include "nn/init.h"
#include "nn/models/model.h"
#include "nn/summary.h"
#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/elementwise.h"
#include "tensor/profiler.h"

namespace mtcki::nn {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// Without weights: for what depends on the structure only.
std::unique_ptr<Classifier> structure(const std::string& name, int64_t channels = 3,
                                      int64_t size = 32, int64_t classes = 10) {
  Init init = Init::none();
  return make_classifier({name, channels, size, classes}, init);
}

std::unique_ptr<Classifier> classifier(const std::string& name, int64_t channels = 3,
                                       int64_t size = 32, int64_t classes = 10) {
  Init init(1);
  return make_classifier({name, channels, size, classes}, init);
}

std::unique_ptr<Generator> generator(const std::string& name, int64_t nz, int64_t size,
                                     int64_t ngf = 64, int64_t channels = 3) {
  Init init(1);
  return make_generator({name, nz, ngf, channels, size}, init);
}

// The lines "key 64x3x3x3" below the file's header "# ... keys K parameters P macs M".
struct KeyFile {
  std::vector<std::string> lines;
  int64_t keys = 0, parameters = 0;
  double macs = 0;
};
KeyFile read_keys(const std::string& name) {
  KeyFile f;
  std::ifstream in(MTCKI_SOURCE_DIR "/tests/data/state_dict_names/" + name + ".txt");
  std::string line, word;
  std::getline(in, line);
  std::istringstream header(line);
  while (header >> word) {
    if (word == "keys") header >> f.keys;
    if (word == "parameters") header >> f.parameters;
    if (word == "macs") header >> f.macs;
  }
  while (std::getline(in, line)) f.lines.push_back(line);
  return f;
}

std::vector<std::string> key_lines(Module& module) {
  std::vector<std::string> out;
  for (const auto& [name, t] : module.state_dict()) {
    std::string shape;
    for (const int64_t d : t.shape()) shape += str(shape.empty() ? "" : "x", d);
    out.push_back(str(name, " ", shape.empty() ? "scalar" : shape));
  }
  return out;
}

void expect_keys(const std::string& file, Module& module, const Shape& input) {
  const KeyFile want = read_keys(file);
  ASSERT_GT(want.lines.size(), 0u) << file;
  EXPECT_EQ(key_lines(module), want.lines) << file;
  const ModelSummary s = summarize(module, input);
  EXPECT_EQ(s.state_keys, want.keys) << file;
  EXPECT_EQ(s.parameters, want.parameters) << file;
  EXPECT_EQ(s.macs, want.macs) << file;
}

class ClassifierKeys : public ::testing::TestWithParam<const char*> {};

TEST_P(ClassifierKeys, NamesOrderAndShapesEqualTheFields) {
  const auto model = structure(GetParam());
  expect_keys(GetParam(), *model, {1, 3, 32, 32});
}

std::string safe_name(std::string text) {
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

INSTANTIATE_TEST_SUITE_P(Golden, ClassifierKeys,
                         ::testing::Values("resnet18", "resnet34", "resnet8", "resnet20",
                                           "resnet56", "resnet110", "resnet20_a", "resnet56_a",
                                           "resnet8x4", "resnet32x4", "wrn10_1", "wrn16_1",
                                           "wrn16_2", "wrn40_1", "wrn40_2", "vgg8", "vgg11",
                                           "vgg13", "vgg16", "vgg8_w0.5", "resnet50", "resnet18_in",
                                           "resnet50_in", "vgg11_bn", "vgg11_bn_fc",
                                           "vgg16_bn_fc4096", "vgg11_bn_in", "vgg19_bn",
                                           "mobilenet_v2", "mobilenet_v2_in", "shufflenet_v2_x1_0",
                                           "shufflenet_v2_x1_0_in", "densenet121", "repvgg_a0"),
                         [](const auto& row) { return safe_name(row.param); });

TEST(GeneratorKeys, NamesOrderAndShapesEqualTheFields) {
  struct Row {
    const char *file, *name;
    int64_t nz, size;
  };
  for (const Row& r :
       {Row{"generator_cmi_28", "cmi", 256, 28}, Row{"generator_cmi_32", "cmi", 256, 32},
        Row{"generator_cmi_64", "cmi", 256, 64}, Row{"generator_large_32", "large", 256, 32},
        Row{"generator_large_32_nz512", "large", 512, 32},
        Row{"generator_dcgan_28", "dcgan", 256, 28}, Row{"generator_dcgan_32", "dcgan", 256, 32},
        Row{"generator_dcgan_64", "dcgan", 256, 64},
        Row{"generator_dcgan_64_nz100", "dcgan", 100, 64}}) {
    const auto g = generator(r.name, r.nz, r.size);
    expect_keys(r.file, *g, {1, r.nz});
  }
}

// The published table: parameters for 10, 100, 200 classes, MMAC at 32 and 64 pixels, BN layers,
// sum of BN-input channels, keys.
struct Count {
  const char* name;
  int64_t p10, p100, p200;
  double mmac32, mmac64;
  int64_t bn_layers, bn_channels, keys;
};
void PrintTo(const Count& c, std::ostream* out) { *out << c.name; }
const Count kCounts[] = {
    {"resnet18", 11173962, 11220132, 11271432, 555.4, 2221.8, 20, 4800, 122},
    {"resnet34", 21282122, 21328292, 21379592, 1159.4, 4637.7, 36, 8512, 218},
    {"wrn16_1", 175066, 180916, 187416, 26.7, 106.6, 13, 464, 82},
    {"wrn16_2", 691674, 703284, 716184, 101.1, 404.4, 13, 912, 83},
    {"wrn40_1", 563930, 569780, 576280, 83.3, 333.1, 37, 1360, 226},
    {"wrn40_2", 2243546, 2255156, 2268056, 327.6, 1310.4, 37, 2704, 227},
    {"vgg8", 3918858, 3965028, 4016328, 96.1, 271.4, 5, 1472, 37},
    {"vgg11", 9231114, 9277284, 9328584, 209.4, 611.2, 8, 2752, 58},
    {"vgg13", 9416010, 9462180, 9513480, 284.9, 913.1, 10, 2944, 72},
    {"vgg16", 14728266, 14774436, 14825736, 398.1, 1252.9, 13, 4224, 93},
};

class Counts : public ::testing::TestWithParam<Count> {};

TEST_P(Counts, ParametersMacsAndBatchNormsEqualThePublishedTable) {
  const Count& c = GetParam();
  const auto model = structure(c.name);
  const ModelSummary s = summarize(*model, {1, 3, 32, 32});
  EXPECT_EQ(s.parameters, c.p10);
  EXPECT_EQ(model->parameter_count(), c.p10);
  EXPECT_NEAR(s.macs / 1e6, c.mmac32, 0.0501);
  EXPECT_EQ(s.batch_norms, c.bn_layers);
  EXPECT_EQ(s.batch_norm_channels, c.bn_channels);
  EXPECT_EQ(s.state_keys, c.keys);
  // The column for 64 pixels is for 200 classes (Tiny-ImageNet).
  const auto tiny = structure(c.name, 3, 64, 200);
  EXPECT_EQ(tiny->parameter_count(), c.p200);
  EXPECT_NEAR(summarize(*tiny, {1, 3, 64, 64}).macs / 1e6, c.mmac64, 0.0501);
  EXPECT_EQ(structure(c.name, 3, 32, 100)->parameter_count(), c.p100);

  // The BN inputs that the statistics loss sees have those channels.
  int64_t channels = 0;
  model->eval();
  const Variable zeros(Tensor::zeros({1, 3, 32, 32}));
  for (const Variable& x : model->features(zeros, model->batch_norms()).taps) channels += x.size(1);
  EXPECT_EQ(channels, c.bn_channels);
}

INSTANTIATE_TEST_SUITE_P(Table, Counts, ::testing::ValuesIn(kCounts),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(Models, FeaturesGiveTheLogitsOfTheCallAndRunItsHooks) {
  const auto model = classifier("resnet8");
  model->eval();
  const Tensor x = rand({3, 3, 32, 32}, Rng{1, 1, 1});
  int runs = 0;
  const HookHandle hook = model->add_before_hook([&](const Module&, const Variable&) { ++runs; });
  const auto out = model->features(x);
  EXPECT_TRUE(identical(out.logits.data(), (*model)(x).data()));
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(out.feature.shape(), (Shape{3, 64}));
}

// Without gradients and listeners the convolutions apply batch norm, ReLU and residual themselves.
TEST(Models, EvaluationInOnePassEqualsTheLayersOneByOne) {
  for (const char* name : {"wrn16_1", "resnet8", "resnet8_a", "resnet18", "vgg8"}) {
    const auto net = classifier(name);
    const Variable x(randn({4, 3, 32, 32}, Rng{2}));
    const NoGradScope no_grad;
    for (int i = 0; i < 3; ++i) (*net)(x);  // running statistics away from 0 and 1
    for (BatchNorm2d* bn : net->batch_norms()) {
      uniform_(bn->weight, 0.5, 1.5, Rng{3});
      uniform_(bn->bias, -0.5, 0.5, Rng{4});
    }
    net->eval();
    profiler::start();
    const Tensor fused = (*net)(x).data();
    profiler::stop();
    size_t norms = 0;
    for (const profiler::Event& e : profiler::events()) {
      norms += e.op == "batch_norm_eval";
      EXPECT_NE(e.op, "add") << name;
    }
    // The first of a wide block stays where two convolutions read it, and the last layer's.
    EXPECT_EQ(norms, std::string(name) == "wrn16_1" ? 3u : 0u) << name;
    const auto tapped = net->features(x, net->batch_norms());
    const Tensor plain = tapped.logits.data();
    EXPECT_EQ(tapped.taps.size(), net->batch_norms().size());
    EXPECT_TRUE(allclose(fused, plain, 1e-5, 1e-5)) << name;
  }
}

TEST(Models, EvaluationThatWantsGradientsRecordsThem) {
  const auto net = classifier("resnet8");
  net->eval();
  const Variable x(randn({2, 3, 32, 32}, Rng{2}));
  sum((*net)(x)).backward();
  for (const Variable& p : net->parameters()) EXPECT_TRUE(p.grad().defined());
  net->set_requires_grad(false);
  const Variable images(x.data(), true);
  sum((*net)(images)).backward();
  EXPECT_TRUE(images.grad().defined());
  EXPECT_FALSE((*net)(x).requires_grad());
}

struct TrainedStep {
  std::vector<std::vector<float>> grads, buffers;
  size_t saved = 0, peak = 0;
};
TrainedStep train_once(Classifier& net) {
  const Variable x(randn({16, 3, 32, 32}, Rng{2}));
  TrainedStep out;
  reset_peak_memory();
  const size_t before = memory_stats().in_use;
  const Variable loss = sum(net(x));
  out.saved = saved_bytes(loss);
  loss.backward();
  out.peak = memory_stats().peak - before;
  for (const Variable& p : net.parameters()) out.grads.push_back(p.grad().to_vector<float>());
  for (const auto& [name, t] : net.named_buffers())
    out.buffers.push_back(t->to(DType::f32).to_vector<float>());
  return out;
}

TEST(Models, TrainingWithoutStoredNormsGivesTheSameBitsInLessMemory) {
  for (const char* name : {"wrn10_1", "resnet8", "resnet18"}) {
    const auto net = classifier(name), listened = classifier(name);
    std::vector<HookHandle> hooks;  // layers with hooks run one after the other
    for (BatchNorm2d* bn : listened->batch_norms())
      hooks.push_back(bn->add_after_hook([](const Module&, const Variable&, const Variable&) {}));
    const TrainedStep fused = train_once(*net), plain = train_once(*listened);
    EXPECT_EQ(fused.grads, plain.grads) << name;
    EXPECT_EQ(fused.buffers, plain.buffers) << name;
    EXPECT_LT(static_cast<double>(fused.saved), 0.9 * static_cast<double>(plain.saved)) << name;
  }
}

TEST(Models, RecomputedOutputsOfBatchNormGiveTheSameBitsInLessMemory) {
  math_settings().winograd = false;  // these kernels read stored outputs
  for (const char* name : {"wrn10_1", "resnet8"}) {
    const auto net = classifier(name), kept = classifier(name);
    net->set_recompute(true);
    const TrainedStep again = train_once(*net), stored = train_once(*kept);
    EXPECT_EQ(again.grads, stored.grads) << name;
    EXPECT_LT(static_cast<double>(again.saved), 0.8 * static_cast<double>(stored.saved)) << name;
    EXPECT_LT(static_cast<double>(again.peak), 0.85 * static_cast<double>(stored.peak)) << name;
  }
  math_settings().winograd = true;
}

// A block needs its input and what its first convolution makes; the second writes over the input.
// Nothing that came before is alive then.
TEST(Models, EvaluationHoldsTwoActivations) {
  for (const char* name : {"wrn16_1", "resnet18"}) {
    const auto net = classifier(name);
    net->eval();
    const NoGradScope no_grad;
    const Variable x(Tensor::zeros({64, 3, 32, 32}));
    (*net)(x);
    const size_t stem = std::string(name) == "wrn16_1" ? 16 : 64;
    const size_t activation = 64 * stem * 32 * 32 * sizeof(float), before = memory_stats().in_use;
    const size_t scratch = stem == 16 ? size_t{1} << 20 : size_t{8} << 20;
    reset_peak_memory();
    (*net)(x);
    EXPECT_LE(memory_stats().peak, before + 2 * activation + scratch) << name;
  }
}

TEST(Models, PathsAreTheCheckpointNames) {
  const auto model = classifier("wrn16_2");
  std::vector<std::string> paths;
  std::vector<HookHandle> handles;
  for (auto& [name, module] : model->named_modules())
    if (module->kind() == "Conv2d")
      handles.push_back(module->add_before_hook(
          [&](const Module&, const Variable&) { paths.push_back(context_path()); }));
  model->eval();
  (*model)(Tensor::zeros({1, 3, 32, 32}));
  EXPECT_THAT(paths, ::testing::Contains("block2.layer.0.convShortcut"));
  EXPECT_THAT(paths, ::testing::Contains("block1.layer.1.conv2"));
  EXPECT_EQ(paths.size(), 16u);  // 13 convolutions of 3x3 and three shortcuts

  const auto resnet = classifier("resnet18");
  EXPECT_THAT(
      [&] {
        (*resnet)(Tensor::zeros({2, 1, 32, 32}));
      },
      ThrowsMessage<ShapeError>(HasSubstr("conv1")));
}

std::vector<int64_t> stage_channels(const std::string& name) {
  const auto model = structure(name);
  model->eval();
  std::vector<int64_t> out;
  for (const Variable& x : model->taps(Tensor::zeros({1, 3, 32, 32}), model->stages()))
    out.push_back(x.size(1));
  return out;
}

TEST(Models, StageInputsAreTheOnesThatAreContrasted) {
  EXPECT_THAT(stage_channels("resnet34"), ElementsAre(64, 64, 128, 256));
  EXPECT_THAT(stage_channels("wrn40_2"), ElementsAre(16, 32, 64, 128));
  EXPECT_THAT(stage_channels("vgg11"), ElementsAre(64, 128, 256, 512));
  EXPECT_THAT(stage_channels("resnet20"), ElementsAre(16, 16, 32));
}

TEST(Models, OptionAShortcutHasNoParameters) {
  EXPECT_EQ(structure("resnet20_a")->parameter_count(), 269722);
  EXPECT_EQ(structure("resnet20")->parameter_count(), 272474);
  EXPECT_EQ(structure("resnet8x4")->state_dict().size(), 62u);
}

TEST(Models, UnknownNamesGetTheNearest) {
  const auto build = [](const std::string& name) { return [name] { classifier(name); }; };
  EXPECT_THAT(build("resnet45"),
              ThrowsMessage<UsageError>(HasSubstr("did you mean \"resnet44\"?")));
  EXPECT_THAT(build("wrn-40-2"), ThrowsMessage<UsageError>(HasSubstr("did you mean \"wrn40_2\"?")));
  for (const char* bad : {"", "wrn41_2", "wrn40_2x", "wrn4_1", "wrn40_0", "vgg8_w", "vgg8_w0",
                          "vgg8_w-1", "vgg8_wnan", "vgg8_w1e9", "vgg9", "resnet9", "resnet18_a"})
    EXPECT_THROW(classifier(bad), UsageError) << bad;
  EXPECT_THROW(classifier("resnet8", 0), UsageError);
  EXPECT_THROW(classifier("resnet8", 3, 32, 0), UsageError);
  EXPECT_THAT([] { generator("dcgn", 8, 32); },
              ThrowsMessage<UsageError>(HasSubstr("did you mean \"dcgan\"?")));
  EXPECT_THROW(generator("cmi", 8, 30), UsageError);
  EXPECT_THROW(generator("cmi", 0, 32), UsageError);
}

double standard_deviation(const Tensor& t) {
  double mean = 0, square_sum = 0;
  const auto v = t.to_vector<double>();
  for (const double x : v) mean += x / static_cast<double>(v.size());
  for (const double x : v) square_sum += (x - mean) * (x - mean);
  return std::sqrt(square_sum / static_cast<double>(v.size()));
}

Tensor value_of(Module& module, const std::string& name) {
  for (const auto& [key, t] : module.state_dict())
    if (key == name) return t;
  ADD_FAILURE() << name;
  return {};
}

TEST(Models, InitialisationOfEachFamily) {
  const auto wrn = classifier("wrn16_2");
  EXPECT_NEAR(standard_deviation(value_of(*wrn, "block3.layer.0.conv2.weight")),
              std::sqrt(2.0 / (9 * 128)), 1e-3);
  EXPECT_NEAR(standard_deviation(value_of(*wrn, "fc.bias")), 0.0, 1e-12);
  const auto vgg = classifier("vgg8");
  EXPECT_NEAR(standard_deviation(value_of(*vgg, "classifier.weight")), 0.01, 1e-3);
  EXPECT_NEAR(standard_deviation(value_of(*vgg, "block1.0.bias")), 0.0, 1e-12);
  EXPECT_NEAR(standard_deviation(value_of(*vgg, "block1.0.weight")), std::sqrt(2.0 / (9 * 128)),
              1e-3);
  const auto small = classifier("resnet20");
  EXPECT_NEAR(standard_deviation(value_of(*small, "layer3.0.conv1.weight")),
              std::sqrt(2.0 / (9 * 64)), 1e-3);
  const auto a = classifier("resnet20_a");
  EXPECT_NEAR(standard_deviation(value_of(*a, "layer3.0.conv1.weight")), std::sqrt(2.0 / (9 * 32)),
              1.5e-3);
  const auto large = classifier("resnet18");
  EXPECT_NEAR(standard_deviation(value_of(*large, "layer1.0.conv1.weight")),
              1.0 / std::sqrt(3.0 * 9 * 64), 1e-3);
}

TEST(Generators, MakeImagesOfEveryForm) {
  for (const std::string& name : generator_names())
    for (const int64_t channels : {1, 3})
      for (const int64_t size : {28, 32, 64}) {
        const auto g = generator(name, 12, size, 4, channels);
        EXPECT_EQ(g->nz(), 12);
        const Variable x = (*g)(randn({3, 12}, Rng{5, 1, 0}));
        EXPECT_EQ(x.shape(), (Shape{3, channels, size, size})) << name;
        for (const float v : x.data().to_vector<float>()) {
          ASSERT_GT(v, 0.0f);
          ASSERT_LT(v, 1.0f);
        }
      }
}

TEST(Generators, ResetDependsOnItsRandomnessOnly) {
  const auto a = generator("cmi", 16, 32, 8), b = generator("cmi", 16, 32, 8);
  const Rng rng{9, rng_stream("generator"), 4};
  (*a)(randn({4, 16}, Rng{1, 1, 1}));  // moves running statistics
  a->reset(rng);
  b->reset(rng);
  const StateDict x = a->state_dict(), y = b->state_dict();
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(identical(x[i].second, y[i].second)) << x[i].first;
  b->reset(rng.at(5));
  EXPECT_FALSE(identical(value_of(*a, "l1.0.weight"), value_of(*b, "l1.0.weight")));
  EXPECT_NEAR(standard_deviation(value_of(*a, "l1.0.weight")), 0.02, 5e-4);
  EXPECT_NEAR(standard_deviation(value_of(*a, "conv_blocks.2.weight")), 0.02, 2e-3);
  EXPECT_NEAR(standard_deviation(value_of(*a, "conv_blocks.9.bias")), 0.0, 1e-12);
  const Tensor gamma = value_of(*a, "conv_blocks.0.weight");
  EXPECT_GT(standard_deviation(gamma), 0.005);
  EXPECT_NEAR(gamma.to_vector<double>()[0], 1.0, 0.1);
}

// The weights of one are the weights of the other; the function is not.
TEST(Variants, PoolsTakeTheSameWeightsToOtherValues) {
  const Tensor x = randn({2, 3, 32, 32}, Rng{7, 0, 0});
  for (const char* name : {"resnet18", "vgg8_w0.5"}) {
    const auto plain = classifier(name, 3, 32, 10);
    const auto pooled = classifier(std::string(name) + "_pool", 3, 32, 10);
    StateDict state = plain->state_dict();
    const StateDict target = pooled->state_dict();
    ASSERT_EQ(state.size(), target.size());
    for (size_t i = 0; i < state.size(); ++i) {
      EXPECT_EQ(state[i].second.shape(), target[i].second.shape());
      state[i].first = target[i].first;
    }
    pooled->load_state_dict(state);
    plain->eval();
    pooled->eval();
    EXPECT_NE((*plain)(Variable(x)).data().to_vector<float>(),
              (*pooled)(Variable(x)).data().to_vector<float>());
  }
  const auto names = key_lines(*classifier("resnet18_pool", 3, 32, 10));
  for (const char* key : {"layer2.0.downsample.0.weight 128x64x1x1", "fc.weight 10x512"})
    EXPECT_THAT(names, ::testing::Contains(key));
}

TEST(Summary, RowsTotalsAndModes) {
  const auto model = classifier("resnet20_a", 3, 32, 10);
  model->set_requires_grad(false);
  model->batch_norms().front()->eval();
  const ModelSummary s = summarize(*model, {1, 3, 32, 32});
  ASSERT_EQ(s.layers.size(), 19u * 2 + 1);
  EXPECT_EQ(s.layers.front().name, "conv1");
  EXPECT_EQ(s.layers.front().parameters, 3 * 16 * 9);
  EXPECT_EQ(s.layers.front().macs, 3.0 * 16 * 9 * 1024);
  EXPECT_EQ(s.layers.front().activation_bytes, 16u * 1024 * 4);
  EXPECT_EQ(s.layers.back().name, "linear");
  EXPECT_EQ(s.trainable, 0);
  int64_t parameters = 0;
  for (const LayerRow& row : s.layers) parameters += row.parameters;
  EXPECT_EQ(parameters, s.parameters);
  EXPECT_EQ(s.parameter_bytes, 4u * 269722);
  // Nothing moved: modes are back, running statistics and counters untouched, no hook left.
  EXPECT_TRUE(model->training());
  EXPECT_TRUE(model->batch_norms()[1]->training());
  EXPECT_FALSE(model->batch_norms()[0]->training());
  EXPECT_EQ(model->batch_norms()[1]->num_batches_tracked.item(), 0.0);
  EXPECT_THAT(s.table(), AllOf(HasSubstr("layer3.2.bn2"), HasSubstr("269,722"), HasSubstr("40.6 M"),
                               HasSubstr("116 keys"), HasSubstr("[1, 16, 32, 32]")));
}

}  // namespace
}  // namespace mtcki::nn
