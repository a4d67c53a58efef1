// Fast: two rounds of its meta-generator are those of the field's own code, by FOMAML and by Reptile
// (tests/data/fast_rounds.safetensors; teacher and student of generative_step.safetensors).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "data/formats/state_file.h"
#include "mtcki/synthesis/sources/source.h"
#include "mtcki/synthesis/synthesizer.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki::meta_generator_test {
namespace {

using ::testing::HasSubstr;

const data::Normalization kNormalization{{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}};
constexpr int64_t kBatch = 12, kSteps = 3;

class MetaGenerator : public ::testing::TestWithParam<Meta> {
 protected:
  void SetUp() override {
    file_ = data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/fast_rounds.safetensors").tensors;
    const auto nets =
        data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/generative_step.safetensors").tensors;
    const nn::ModelSpec spec{"resnet8", 3, 32, 10};
    nn::Init init(0);
    auto net = nn::make_classifier(spec, init);
    net->load_state_dict(under(nets, "teacher."));
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, kNormalization, 1.0, -1},
                                            std::move(net)));
    student_ = std::make_unique<Student>("s", spec, kNormalization, 0);
    student_->net().load_state_dict(under(nets, "student."));
    config_.source = "meta_generator";
    config_.meta = GetParam();
    config_.nz = 16;
    config_.ngf = 4;
    config_.batch_size = kBatch;
    config_.g_steps = kSteps;
    config_.lr_g = 3e-3;
    config_.lr_z = 0.01;
    config_.pad = 4;
    config_.bn_reduce = BnReduce::sum;
    config_.bn_mmt = 0.9;
    for (const LossTermRow& row : inversion_terms()) config_.loss[row.key] = 0;
    config_.loss["bn"] = 10;
    config_.loss["cls"] = 0.4;
  }
  Tensor get(const std::string& name) const {
    const Tensor t = entry(file_, name);
    EXPECT_TRUE(t.defined()) << name;
    return t;
  }
  double number(const std::string& name) const { return get(name).item(); }

  static StageState state_of(ImageSource& source, bool in_batch) {
    StageState state;
    State saving = State::saving(state);
    source.visit(saving, in_batch);
    for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
    return state;
  }
  static void load_into(ImageSource& source, const StageState& state, bool in_batch) {
    State loading = State::loading(state);
    source.visit(loading, in_batch);
  }

  static void compare(const Tensor& got, const Tensor& want, double tolerance,
                      const std::string& what) {
    const Tensor part = got.slice(0, want.size(0));
    double worst = 0, scale = 0;
    for (const float v : sub(part, want).to_vector<float>())
      worst = std::max<double>(worst, std::abs(v));
    for (const float v : want.to_vector<float>()) scale = std::max<double>(scale, std::abs(v));
    EXPECT_LT(worst, tolerance * scale) << what;
  }

  void take_theta_of_the_field(ImageSource& source, const std::string& form) const;

  data::NamedTensors file_;
  Teachers teachers_;
  std::unique_ptr<Student> student_;
  SynthesisConfig config_;
};

// The first step of Adam moves every weight by the rate, whatever the size of its gradient, so that
// rounding decides where weights go whose gradient is nearly 0; the others must agree. From there the
// second round starts at the field's own θ.
void MetaGenerator::take_theta_of_the_field(ImageSource& source, const std::string& form) const {
  const double rate = config_.lr_g * kSteps;
  StageState state = state_of(source, false);
  int64_t weights = 0, elsewhere = 0;
  for (auto& [name, tensor] : state.tensors) {
    if (name.rfind("weights.", 0) != 0) continue;
    const Tensor want = entry(file_, str("expected.", form, ".round0.theta.", name.substr(8)));
    if (!want.defined()) continue;  // a buffer
    for (const float v : sub(tensor, want).to_vector<float>()) {
      ++weights;
      elsewhere += std::abs(v) > 0.1 * rate;
    }
    tensor = want;
  }
  EXPECT_GT(weights, 5000);
  EXPECT_LT(static_cast<double>(elsewhere), 0.1 * static_cast<double>(weights)) << form;
  load_into(source, state, false);
}

TEST_P(MetaGenerator, TwoRoundsAreThoseOfTheField) {
  const std::string form = GetParam() == Meta::fomaml ? "fomaml" : "reptile";
  const auto source = make_source(config_, {3, 32, kNormalization, 1, {}});
  StageState begin = state_of(*source, false);
  for (auto& [name, tensor] : begin.tensors)
    if (name.rfind("weights.", 0) == 0) tensor = get("generator." + name.substr(8));
  load_into(*source, begin, false);
  InversionLoss first(teachers_, config_, kBatch, 0);
  config_.loss["adv"] = 1.1;  // from the second round on
  InversionLoss second(teachers_, config_, kBatch, 0);
  for (int64_t round = 0; round < 2; ++round) {
    InversionLoss& loss = round == 0 ? first : second;
    if (round == 1) {  // the average of the statistics goes on
      StageState averages;
      save(first, averages);
      load(second, averages);
      take_theta_of_the_field(*source, form);
    }
    source->begin_batch(round);
    StageState batch = state_of(*source, true);
    for (auto& [name, tensor] : batch.tensors)
      if (name == "latents") tensor = get(str("z", round));
    load_into(*source, batch, true);
    const StageState before = state_of(*source, true);
    InversionLoss::Step s;
    for (int64_t step = 0; step < kSteps; ++step) {
      const std::string at = str("round", round, ".step", step, ".");
      s.labels = get(str("labels", round));
      s.views = {};
      s.views.offset = get(at + "offset");
      s.views.flip = get(at + "flip").to(DType::boolean);
      s.asked = {0};
      s.student = student_.get();
      StepInputs inputs;
      loss.draw(s, Rng{}, inputs);
      source->zero_grad();
      MetricRing ring;
      const InversionLoss::Result r = loss.evaluate(source->images({0, kBatch}), s, ring);
      const double want = number("expected." + form + "." + at + "loss");
      EXPECT_NEAR(r.total.item(), want, 1e-4 * std::abs(want)) << at;
      r.total.backward();
      source->update();
    }
    loss.finish_batch(Tensor::zeros({kBatch, 3, 32, 32}), s.views);
    source->end_batch();
    // The outer gradient stands in the mean of the outer Adam: m' = 0.5 m + 0.5 g.
    const StageState after = state_of(*source, false);
    // Reptile's is the way that the inner Adam went, which rounding decides a little everywhere.
    const double tolerance = GetParam() == Meta::fomaml ? 5e-3 : 2e-2;
    int compared = 0;
    for (const auto& [name, want] :
         under(file_, str("expected.", form, ".round", round, ".outer_grad."))) {
      const std::string slot = "outer." + name + ".exp_avg";
      const Tensor mean = entry(after.tensors, slot), last = entry(before.tensors, slot);
      ASSERT_TRUE(mean.defined()) << slot;
      compare(mul(sub(mean, mul(last, 0.5)), 2.0), want, tolerance,
              str(form, " ", round, " ", name));
      ++compared;
    }
    EXPECT_GE(compared, 11);
  }
}

// A batch that is interrupted goes on exactly, and the next one starts where θ is then.
TEST_P(MetaGenerator, ResumesInsideABatch) {
  config_.g_steps = 2;
  config_.reset_first = 1;
  Synthesizer::Options o;
  o.most_batches = 2;
  o.seed = 3;
  o.normalization = kNormalization;
  Synthesizer whole(teachers_, config_, o), begun(teachers_, config_, o),
      resumed(teachers_, config_, o);
  const auto finish = [](Synthesizer& s) {
    while (!s.batch_done()) s.step();
    return s.finish().images;
  };
  finish(whole);
  begun.step();
  StageState state;
  save(begun, state);
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  load(resumed, state);
  finish(resumed);
  EXPECT_TRUE(identical(finish(resumed), finish(whole)));
}

// The authors' reset_l0: the first linear layer and the first batch norm, N(0, 0.02) and 0.
TEST_P(MetaGenerator, FirstLayersAreRedrawnAtTheirBatch) {
  config_.reset_first = 1;
  const auto source = make_source(config_, {});
  source->begin_batch(0);
  const StageState before = state_of(*source, false);
  source->begin_batch(1);
  int redrawn = 0;
  for (const auto& [name, tensor] : state_of(*source, false).tensors) {
    if (name.rfind("weights.", 0) != 0) continue;
    const bool first = name.rfind("weights.l1.0.", 0) == 0 ||
                       name == "weights.conv_blocks.0.weight" ||
                       name == "weights.conv_blocks.0.bias";
    const Tensor old = entry(before.tensors, name);
    if (!first) {
      EXPECT_TRUE(identical(tensor, old)) << name;
      continue;
    }
    ++redrawn;
    if (name.ends_with(".bias")) {
      EXPECT_TRUE(identical(tensor, Tensor::zeros_like(tensor))) << name;
      continue;
    }
    EXPECT_FALSE(identical(tensor, old)) << name;
    EXPECT_NEAR(std::sqrt(mean(square(tensor)).item()), 0.02, 0.01) << name;
  }
  EXPECT_EQ(redrawn, 4);

  config_.generator = "dcgan";
  EXPECT_THAT([&] { make_source(config_, {}); },
              ::testing::ThrowsMessage<UsageError>(
                  HasSubstr("synthesis.reset_first: the generator \"dcgan\" has no layers l1.0")));
}

INSTANTIATE_TEST_SUITE_P(Forms, MetaGenerator, ::testing::Values(Meta::fomaml, Meta::reptile),
                         [](const auto& row) {
                           return row.param == Meta::fomaml ? "fomaml" : "reptile";
                         });

}  // namespace
}  // namespace mtcki::meta_generator_test
