// With one teacher and the switches that turn the method into CMI, one inversion step gives the
// losses and gradients of an independent PyTorch computation (scripts/make_cmi_fixture.py).
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "data/formats/state_file.h"
#include "mtcki/synthesis/inversion_loss.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::cmi_reduction_test {
namespace {

constexpr int64_t kBatch = 4, kSize = 28;
const data::Normalization kNormalization{{0.2860}, {0.3530}};

class CmiReduction : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/cmi_step.safetensors").tensors;
    const nn::ModelSpec spec{"vgg8_w0.125", 1, kSize, 10};
    nn::Init init(0);
    auto net = nn::make_classifier(spec, init);
    net->load_state_dict(under(file_, "teacher."));
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, kNormalization, 1.0, -1},
                                            std::move(net)));
    student_ = std::make_unique<Student>("s", nn::ModelSpec{"vgg8_w0.0625", 1, kSize, 10},
                                         kNormalization, 0);
    student_->net().load_state_dict(under(file_, "student."));

    config_.loss["bn"] = 1.0;
    config_.loss["cr"] = 0.8;
    config_.bn_reduce = BnReduce::sum;
    config_.bn_mmt = 0.0;
    config_.cr_mode = CrMode::first;
    config_.cr_features = CrFeatures::bn;
    config_.adv_mode = AdvMode::kl_agree;
    config_.targets = Targets::uniform;
    config_.best = Best::total;
    config_.cr_tau = 0.1;
    config_.pad = 2;
    config_.head_dim = 16;
    config_.bank_size = config_.bank_draw = get("bank_local").size(0);
  }
  Tensor get(const char* name) const {
    const Tensor t = entry(file_, name);
    EXPECT_TRUE(t.defined()) << name;
    return t;
  }
  double expected(const std::string& name) const {
    return get(("expected." + name).c_str()).item();
  }

  data::NamedTensors file_;
  Teachers teachers_;
  std::unique_ptr<Student> student_;
  SynthesisConfig config_;
};

TEST_F(CmiReduction, OneStepEqualsPyTorch) {
  config_.loss["cls"] = config_.loss["adv"] = 0.5;
  InversionLoss loss(teachers_, config_, 1000, 0);
  loss.contrast()->head(0).load_state_dict(under(file_, "head."));
  loss.contrast()->add({get("bank_local")}, {get("bank_global")});
  InversionLoss::Step step;
  step.labels = get("labels");
  step.views = {get("offset"), get("flip"), get("box"), get("local_flip")};
  step.asked = {0};
  step.student = student_.get();
  StepInputs inputs;
  loss.draw(step, Rng{1, 2, 3}, inputs);  // all rows, in an order that does not matter
  const Variable images(get("images").clone(), true);
  MetricRing ring;
  const InversionLoss::Result r = loss.evaluate(images, step, ring);
  ring.commit(0);

  const Values terms = ring.read();
  ASSERT_EQ(terms.size(), 5u);
  const double keys = static_cast<double>(images.size(0) + get("bank_local").size(0));
  for (const auto& [name, value] : terms) {
    const double want = name == "history_contrast.chance" ? 2 * std::log(keys) : expected(name);
    EXPECT_NEAR(value, want, 2e-5 * std::abs(want)) << name;
  }
  EXPECT_NEAR(r.total.item(), expected("total"), 2e-5 * expected("total"));
  EXPECT_NEAR(r.selected.item(), expected("total") - 0.5 * expected("adversarial"),
              2e-5 * expected("total"));

  r.total.backward();
  const auto compare = [](const Tensor& got, const Tensor& want, const char* what) {
    const Tensor reference = want.to(DType::f32);
    const Tensor error = sub(got, reference);
    double worst = 0, scale = 0;
    for (const float v : error.to_vector<float>()) worst = std::max<double>(worst, std::abs(v));
    for (const float v : reference.to_vector<float>()) scale = std::max<double>(scale, std::abs(v));
    EXPECT_LT(worst, 1e-4 * scale) << what;
  };
  compare(images.grad(), get("expected.grad_images"), "gradient of the images");
  for (auto& [name, p] : loss.contrast()->head(0).named_parameters())
    if (name == "2.weight") compare(p->grad(), get("expected.grad_head"), "gradient of the head");
  for (auto& [name, p] : student_->net().named_parameters())
    EXPECT_FALSE(p->grad().defined()) << "the student is only asked: " << name;
}

}  // namespace
}  // namespace mtcki::cmi_reduction_test
