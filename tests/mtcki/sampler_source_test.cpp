// The loop of DAFL, DFQ and ZSKT: one generator lives on, a student sees fresh samples of it. The numbers
// in data/generative_step.safetensors are those of the field's own loop (its metadata says how).
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>

#include "autograd/functions.h"
#include "data/formats/state_file.h"
#include "mtcki/config/config.h"
#include "mtcki/run/pipeline.h"
#include "mtcki/synthesis/synthesizer.h"
#include "mtcki/training/stage_control.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::sampler_source_test {
namespace {

namespace fs = std::filesystem;

const data::Normalization kNormalization{{0.4914, 0.4822, 0.4465}, {0.2023, 0.1994, 0.2010}};

class GenerativeStep : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ =
        data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/generative_step.safetensors").tensors;
    const nn::ModelSpec spec{"resnet8", 3, 32, 10};
    nn::Init init(0);
    auto net = nn::make_classifier(spec, init);
    net->load_state_dict(under(file_, "teacher."));
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, kNormalization, 1.0, -1},
                                            std::move(net)));
    student_ = std::make_unique<Student>("s", spec, kNormalization, 0);
    student_->net().load_state_dict(under(file_, "student."));
    config_.source = "sampler";
    config_.generator = "large";
    config_.nz = 16;
    config_.ngf = 4;
    config_.batch_size = 12;
    config_.g_steps = 1;
    config_.lr_g = 1e-3;
    config_.pad = 0;
    config_.flip = false;
    config_.bn_reduce = BnReduce::sum;
    for (const LossTermRow& row : inversion_terms()) config_.loss[row.key] = 0;
  }
  Tensor get(const std::string& name) const {
    const Tensor t = entry(file_, name);
    EXPECT_TRUE(t.defined()) << name;
    return t;
  }

  // One step of the generator on z0; what its state is then.
  StageState step(const std::string& method) {
    source_ = make_source(config_, {3, 32, kNormalization, 1, {}});
    source_->begin_batch(0);
    StageState state;
    State saving = State::saving(state);
    source_->visit(saving, true);
    for (auto& [name, tensor] : state.tensors) {
      if (name == "latents") tensor = get("z0");
      if (name.rfind("weights.", 0) == 0) tensor = get("generator." + name.substr(8));
    }
    State loading = State::loading(state);
    source_->visit(loading, true);

    InversionLoss loss(teachers_, config_, 12, 0);
    InversionLoss::Step s;
    s.labels = Tensor::zeros({12}, DType::i64);
    s.asked = {0};
    s.student = student_.get();
    StepInputs inputs;
    loss.draw(s, Rng{}, inputs);
    source_->zero_grad();
    MetricRing ring;
    const InversionLoss::Result r = loss.evaluate(source_->images({0, 12}), s, ring);
    ring.commit(0);
    const double want = get("expected." + method + ".loss").item();
    EXPECT_NEAR(r.total.item(), want, 2e-5 * std::abs(want));
    for (const auto& [name, value] : ring.read()) values_[name] = value;
    r.total.backward();
    source_->update();
    StageState after;
    State saved = State::saving(after);
    source_->visit(saved, true);
    return after;
  }

  static void compare(const Tensor& got, const Tensor& want, double tolerance,
                      const std::string& what) {
    double worst = 0, scale = 0;
    for (const float v : sub(got, want).to_vector<float>())
      worst = std::max<double>(worst, std::abs(v));
    for (const float v : want.to_vector<float>()) scale = std::max<double>(scale, std::abs(v));
    EXPECT_LT(worst, tolerance * scale) << what;
  }
  // Of every parameter that the file has: the first step leaves half the gradient in Adam's mean.
  void compare_gradients(const StageState& after, const std::string& method) const {
    int compared = 0;
    for (const auto& [name, gradient] : under(file_, "expected." + method + ".grad.")) {
      const Tensor mean = entry(after.tensors, "adam." + name + ".exp_avg");
      ASSERT_TRUE(mean.defined()) << name;
      compare(mul(mean, 2.0), gradient, 1e-3, method + ": gradient of " + name);
      ++compared;
    }
    EXPECT_GE(compared, 11);
  }

  data::NamedTensors file_;
  Teachers teachers_;
  std::unique_ptr<Student> student_;
  SynthesisConfig config_;
  std::unique_ptr<ImageSource> source_;
  std::map<std::string, double> values_;
};

TEST_F(GenerativeStep, DaflsIsThatOfTheField) {
  config_.loss["one_hot"] = 1;
  config_.loss["activation"] = 1e-3;
  config_.loss["balance"] = 20;
  const StageState after = step("dafl");
  EXPECT_NEAR(values_["one_hot"], get("expected.loss_oh").item(), 1e-5);
  EXPECT_NEAR(values_["activation_loss"], get("expected.loss_act").item(), 1e-6);
  EXPECT_NEAR(values_["class_balance"], get("expected.loss_balance").item(), 1e-5);
  compare_gradients(after, "dafl");
  // Running statistics have moved by this one step; samples in evaluation mode leave them.
  const auto statistics = [&](const StageState& state) {
    int compared = 0;
    for (const auto& [name, want] : under(file_, "expected.dafl.after."))
      if (name.find("running") != std::string::npos) {
        compare(entry(state.tensors, "weights." + name), want, 1e-5, name);
        ++compared;
      }
    EXPECT_EQ(compared, 6);
  };
  statistics(after);
  const Tensor x = source_->samples(get("z1"));
  const Tensor normalised =
      normalize_channels(Variable(x), kNormalization.mean_tensor(), kNormalization.std_tensor())
          .data();
  compare(normalised.slice(0, 4).plain(), get("expected.dafl.sample_images_normalised"), 2e-4,
          "samples");
  StageState later;
  State saving = State::saving(later);
  source_->visit(saving, true);
  statistics(later);
}

TEST_F(GenerativeStep, ZsktsIsThatOfTheField) {
  config_.loss["adv_kl"] = 1;
  const StageState after = step("zskt");
  EXPECT_NEAR(values_["adversarial_kl"], get("expected.loss_adv").item(), 1e-4);
  compare_gradients(after, "zskt");
}

TEST_F(GenerativeStep, DfqsIsThatOfTheField) {
  config_.loss["bn"] = config_.loss["one_hot"] = config_.loss["adv_kl"] = 1;
  config_.loss["balance"] = 20;
  const StageState after = step("dfq");
  EXPECT_NEAR(values_["bn_statistics"], get("expected.loss_bn").item(), 1e-3);
  compare_gradients(after, "dfq");
}

// From the file itself, on a small scale: no image is kept, samples are fresh, and a run that is killed
// or stopped anywhere ends with the same bits.
class Dafl : public ::testing::Test {
 protected:
  static RunConfig config() {
    RunConfig c = load_config(
        {MTCKI_SOURCE_DIR "/configs/methods/dafl.toml"},
        {"data.name=synth10", "data.train_limit=48", "data.test_limit=20", "train.epochs=1",
         "train.batch_size=16", "train.lr=0.05", "teachers.0.model=vgg8_w0.125",
         "students.0.model=vgg8_w0.125", "synthesis.nz=8", "synthesis.ngf=4",
         "synthesis.batch_size=8", "rounds.per_epoch=3", "distill.steps_per_epoch=6",
         "distill.epochs=2", "distill.batch_size=6", "name=x"});
    return c;
  }
  static std::string folder(const std::string& name) {
    const fs::path dir = fs::temp_directory_path() / str("mtcki_dafl_", getpid(), name);
    fs::remove_all(dir);
    fs::create_directories(dir);
    return dir.string();
  }
  static Tensor weights(const std::string& folder) {
    Tensor last;
    for (const auto& [name, t] :
         data::read_safetensors(folder + "/students/vgg8_w0.125/model.safetensors").tensors)
      if (name == "classifier.weight") last = t;
    EXPECT_TRUE(last.defined());
    return last;
  }
};

TEST_F(Dafl, RunsWithoutAPoolAndResumesExactly) {
  const RunConfig c = config();
  const std::string whole = folder("whole");
  RunLog log;
  const PipelineResult r = run_pipeline(c, whole, log);
  std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_EQ(metrics["generator_steps"], 6);  // one to two of the student
  EXPECT_EQ(metrics["kd_steps"], 12);
  EXPECT_EQ(metrics.count("diversity"), 0u);
  EXPECT_EQ(r.synthetic_images, -1);  // no set of its own
  EXPECT_FALSE(fs::exists(whole + "/synth"));
  EXPECT_FALSE(fs::exists(whole + "/students/vgg8_w0.125/synth"));
  for (const bool kill : {true, false}) {
    const std::string cut = folder(kill ? "killed" : "stopped");
    RunConfig often = c;
    often.distill.checkpoint_every = 4;
    int attempts = 0;
    for (bool done = false; !done && attempts < 60; ++attempts) {
      (kill ? kill_after_polls : stop_after_polls)(8);
      try {
        run_pipeline(often, cut, log);
        done = true;
      } catch (const SimulatedKill&) {
      } catch (const Stopped&) {
      }
    }
    (kill ? kill_after_polls : stop_after_polls)(0);
    EXPECT_GT(attempts, 2);
    EXPECT_TRUE(identical(weights(cut), weights(whole)));
    fs::remove_all(cut);
  }
  fs::remove_all(whole);
}

TEST_F(Dafl, EveryStepOfTheStudentSeesOtherImages) {
  const RunConfig c = config();
  SynthesisConfig s = c.synthesis;
  const auto source = make_source(s, {1, 28, {{0.5}, {0.5}}, 1, {}});
  source->begin_batch(0);
  const Tensor a = source->samples(source->draw_samples(3, Rng{1, 2, 0})),
               b = source->samples(source->draw_samples(3, Rng{1, 2, 1})),
               again = source->samples(source->draw_samples(3, Rng{1, 2, 0}));
  EXPECT_FALSE(identical(a, b));
  EXPECT_TRUE(identical(a, again));
}

}  // namespace
}  // namespace mtcki::sampler_source_test
