// NAYER: the generator of the field's own code (tests/data/noisy_generator.safetensors), steps from the
// formula (noisy_steps.safetensors, made by tests/data/make/noisy_steps.py), and what lives how long.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "autograd/functions.h"
#include "data/formats/state_file.h"
#include "mtcki/synthesis/sources/source.h"
#include "mtcki/synthesis/synthesizer.h"
#include "nn/models/graph.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;

// Teachers whose last linear layer has these rows [K,d].
void add_teacher(Teachers& teachers, const Tensor& rows, int64_t size = 32) {
  // d of 512 features: the registry reads eight digits of a factor.
  const std::string factor = std::to_string(static_cast<double>(rows.size(1)) / 512);
  const nn::ModelSpec spec{"vgg8_w" + factor, 1, size, rows.size(0)};
  nn::Init init(static_cast<uint64_t>(teachers.size()));
  auto net = nn::make_classifier(spec, init);
  for (auto& [name, p] : net->named_parameters())
    if (name == "classifier.weight") p->data().copy_(rows);
  teachers.add(std::make_unique<Teacher>(
      Teacher::Options{str("t", teachers.size()), spec, {{0.5}, {0.5}}, 1.0, -1}, std::move(net)));
}

SynthesisConfig config_of(int64_t batch, int64_t nz, int64_t ngf) {
  SynthesisConfig c;
  c.source = "noisy";
  c.batch_size = batch;
  c.nz = nz;
  c.ngf = ngf;
  c.lr_g = 0.05;
  c.bn_reduce = BnReduce::sum;
  for (const LossTermRow& row : inversion_terms()) c.loss[row.key] = 0;
  c.loss["cls"] = 1;
  return c;
}

StageState state_of(ImageSource& source, bool in_batch = true) {
  StageState state;
  State saving = State::saving(state);
  source.visit(saving, in_batch);
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  return state;
}

// The weights of a file, which has them as the authors' state dict.
void load_weights(ImageSource& source, const data::NamedTensors& weights) {
  StageState state = state_of(source);
  size_t loaded = 0;
  for (auto& [name, tensor] : state.tensors)
    for (const char* part : {"weights.", "noisy.", "norm."}) {
      if (name.rfind(part, 0) != 0) continue;
      const std::string rest = name.substr(std::string(part).size());
      const Tensor t = entry(weights, std::string(part) == "norm." ? "n1." + rest : rest);
      if (!t.defined()) continue;  // running statistics
      tensor = t;
      ++loaded;
    }
  EXPECT_GE(loaded, 20u);
  State loading = State::loading(state);
  source.visit(loading, true);
}

void expect_close(const Tensor& got, const Tensor& want, double tolerance,
                  const std::string& what) {
  double worst = 0, scale = 0;
  for (const float v : sub(got, want).to_vector<float>())
    worst = std::max<double>(worst, std::abs(v));
  for (const float v : want.to_vector<float>()) scale = std::max<double>(scale, std::abs(v));
  EXPECT_LT(worst, tolerance * scale) << what;
}

TEST(NoisySource, ImagesAndGradientsAreThoseOfTheField) {
  const auto file =
      data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/noisy_generator.safetensors").tensors;
  Teachers teachers;
  add_teacher(teachers, entry(file, "label_emb"));
  const SynthesisConfig c = config_of(25, 40, 4);
  const auto source = make_source(c, {3, 32, {}, 1, {}, 10, &teachers});
  source->set_labels(entry(file, "targets"));
  source->begin_batch(0);
  load_weights(*source, under(file, "generator."));
  const Variable x = source->images({0, 25});
  const Tensor want = entry(file, "expected.images");
  const int64_t rows[] = {0, 10, 20, 24};
  for (int64_t i = 0; i < 4; ++i)
    expect_close(x.data().slice(rows[i], rows[i] + 1).plain(), want.slice(i, i + 1), 1e-5,
                 str("image ", rows[i]));
  source->zero_grad();
  sum(mul(x, Variable(entry(file, "grad_out")))).backward();
  source->update();
  const StageState after = state_of(*source);
  int compared = 0;
  for (const auto& [name, gradient] : under(file, "expected.grad.")) {
    const Tensor mean = entry(after.tensors, "adam." + name + ".exp_avg");
    ASSERT_TRUE(mean.defined()) << name;
    // The biases of l1.0 stand before a batch norm: all but their differences is rounding.
    expect_close(mul(mean, 2.0), gradient, 1e-3, name);
    ++compared;
  }
  EXPECT_EQ(compared, 20);
}

TEST(NoisySource, StepsAreThoseOfTheFormula) {
  const auto file =
      data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/noisy_steps.safetensors").tensors;
  Teachers teachers;  // whose classifiers stand for the classes side by side
  add_teacher(teachers, entry(file, "rows0"), 8);
  add_teacher(teachers, entry(file, "rows1"), 8);
  const SynthesisConfig c = config_of(7, 4, 2);
  const auto source = make_source(c, {1, 8, {}, 1, {}, 3, &teachers});
  source->set_labels(entry(file, "labels"));
  source->begin_batch(0);
  load_weights(*source, file);
  for (int64_t t = 0; t < 4; ++t) {
    const Variable x = source->images({0, 7});
    expect_close(x.data().plain(), entry(file, str("images", t)), 1e-4, str("step ", t));
    if (t == 3) break;
    source->zero_grad();
    sum(mul(x, Variable(entry(file, str("grad", t))))).backward();
    source->update();
  }
}

TEST(NoisySource, LayersAreRedrawnAndTheGeneratorLivesOn) {
  SynthesisConfig c = config_of(6, 4, 2);
  c.class_embedding = ClassEmbedding::orthogonal;
  c.batches = 6;
  c.g_life_first = 3;
  c.g_life = 2;
  const auto source = make_source(c, {1, 8, {}, 1, {}, 3, nullptr});
  source->set_labels(Tensor::from<int64_t>({0, 0, 1, 1, 2, 2}, {6}));
  std::vector<int64_t> anew;
  for (int64_t batch = 0; batch < 11; ++batch) {
    const StageState before = state_of(*source);
    source->begin_batch(batch);
    const StageState begun = state_of(*source);
    const auto same = [&](const std::string& name) {
      EXPECT_TRUE(entry(begun.tensors, name).defined()) << name;
      return identical(entry(begun.tensors, name), entry(before.tensors, name));
    };
    EXPECT_FALSE(same("noisy.le1.0.weight"));
    EXPECT_FALSE(same("noisy.le1.1.weight"));
    EXPECT_TRUE(identical(entry(begun.tensors, "noisy.le1.0.bias"), Tensor::zeros({4})));
    if (batch > 0 && !same("weights.conv_blocks.2.weight")) anew.push_back(batch);
    // Batch norm in front of the layers lives as long as the generator, with what it has learnt.
    EXPECT_EQ(same("norm.weight"), batch == 0 || anew.empty() || anew.back() != batch);
    sum(source->images({0, 6})).backward();
    source->update();
    source->zero_grad();
  }
  EXPECT_EQ(anew, (std::vector<int64_t>{3, 6, 8, 10}));
  // Weights as PyTorch draws them: of the generator within 1/sqrt(fan in), of the noise N(0,1).
  source->begin_batch(12);
  double largest = 0, squares = 0;
  const StageState last = state_of(*source);
  for (const float v : entry(last.tensors, "weights.l1.0.weight").to_vector<float>())
    largest = std::max<double>(largest, std::abs(v));
  EXPECT_LE(largest, 0.5);
  EXPECT_GT(largest, 0.3);
  const auto noise = entry(last.tensors, "noisy.le1.0.weight").to_vector<float>();
  for (const float v : noise) squares += v * v;
  EXPECT_NEAR(squares / static_cast<double>(noise.size()), 1.0, 0.15);
}

TEST(NoisySource, MoreClassesThanImagesHaveOneLayer) {
  SynthesisConfig c = config_of(4, 4, 2);
  c.class_embedding = ClassEmbedding::orthogonal;
  const auto source = make_source(c, {1, 8, {}, 1, {}, 10, nullptr});
  source->set_labels(Tensor::from<int64_t>({1, 1, 3, 9}, {4}));
  source->begin_batch(0);
  const StageState state = state_of(*source);
  EXPECT_TRUE(entry(state.tensors, "noisy.le1.0.weight").defined());
  EXPECT_FALSE(entry(state.tensors, "noisy.le1.1.weight").defined());
  // One layer gives the two images of a class the same.
  const Tensor x = source->images({0, 4}).data().plain();
  EXPECT_TRUE(allclose(x.slice(0, 1), x.slice(1, 2), 0, 1e-6));
  EXPECT_FALSE(allclose(x.slice(0, 1), x.slice(2, 3), 0, 1e-3));
}

TEST(NoisySource, ATeacherWithoutALinearLayerIsNamed) {
  nn::GraphSpec graph;
  graph.model = {"onnx", 1, 8, 10};
  graph.nodes = {{"conv", "c", {0}, {1, 10, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1}, {}},
                 {"mean", "", {1}, {0, 2, 3}, {}}};
  graph.feature = 2;
  Teachers teachers;
  teachers.add(
      std::make_unique<Teacher>(Teacher::Options{"odd", graph.model, {{0.5}, {0.5}}, 1.0, -1},
                                std::make_unique<nn::GraphClassifier>(graph)));
  SynthesisConfig c = config_of(4, 4, 2);
  EXPECT_THAT(
      [&] {
        make_source(c, {1, 8, {}, 1, {}, 10, &teachers});
      },
      ::testing::ThrowsMessage<UsageError>(
          HasSubstr("synthesis.class_embedding: teacher odd does not end with a linear")));
  c.class_embedding = ClassEmbedding::orthogonal;
  EXPECT_NO_THROW(make_source(c, {1, 8, {}, 1, {}, 10, &teachers}));
}

class NoisySynthesis : public ::testing::Test {
 protected:
  void SetUp() override {
    add_teacher(teachers_, randn({10, 16}, Rng{5, 1, 0}), 28);
    config_ = config_of(23, 6, 4);
    config_.pad = 0;
    config_.flip = false;
    options_.channels = 1;
    options_.image_size = 28;
    options_.most_batches = 5;
    options_.seed = 3;
  }
  static Synthesizer::Batch finish(Synthesizer& s) {
    while (!s.batch_done()) s.step();
    return s.finish();
  }

  Teachers teachers_;
  SynthesisConfig config_;
  Synthesizer::Options options_;
};

TEST_F(NoisySynthesis, ResumesInsideABatch) {
  config_.g_steps = 3;
  config_.g_life = 2;
  for (const int64_t before : {0, 1, 2}) {
    Synthesizer whole(teachers_, config_, options_), begun(teachers_, config_, options_),
        resumed(teachers_, config_, options_);
    for (int64_t b = 0; b < before; ++b) finish(whole), finish(begun);
    begun.step();
    StageState state;
    save(begun, state);
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
    load(resumed, state);
    for (int64_t b = 0; b < 2; ++b)
      EXPECT_TRUE(identical(finish(resumed).images, finish(whole).images)) << before;
  }
}

// The field's code keeps the best loss of the earlier loops of a round, so that a later loop's images
// are those of its first, untrained step unless it does better than all of them.
TEST_F(NoisySynthesis, EveryBatchOfARoundKeepsItsOwnBest) {
  config_.g_steps = 6;
  Synthesizer s(teachers_, config_, options_);
  double before = 1e30;
  int worse = 0;
  for (int64_t batch = 0; batch < 5; ++batch) {
    std::vector<double> losses;
    while (!s.batch_done())
      for (const auto& [name, value] : s.step())
        if (name == "loss") losses.push_back(value);
    ASSERT_EQ(losses.size(), 6u);
    const auto least = std::ranges::min_element(losses);
    EXPECT_NEAR(s.finish().select, *least, 1e-6);
    worse += *least > before && least != losses.begin();
    before = std::min(before, *least);
  }
  EXPECT_GT(worse, 0);  // where the two differ
}

}  // namespace
}  // namespace mtcki
