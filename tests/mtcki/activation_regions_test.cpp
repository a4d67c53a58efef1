// SpaceshipNet's losses on where networks look: values and the student's gradients from their formulas
// (data/activation_regions.safetensors, made by data/make/activation_regions.py).
#include "mtcki/losses/activation_regions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "autograd/gradients.h"
#include "data/formats/state_file.h"
#include "nn/state_dict.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace mtcki {
namespace {

using ::testing::HasSubstr;

const data::Normalization kNormalization{{0.5}, {0.25}};

TEST(ActivationRegions, MapsOfPixelsByHand) {
  // Two channels of 1x2 pixels, two classes.
  const Tensor map = Tensor::from<float>({1, 2, 3, 5}, {1, 2, 1, 2});
  const Tensor classifier = Tensor::from<float>({1, 0, 2, -1}, {2, 2});
  EXPECT_EQ(class_activation(Variable(map), classifier).data().to_vector<float>(),
            (std::vector<float>{1, 2, 2 * 1 - 3, 2 * 2 - 5}));
  const Tensor slope = Tensor::from<float>({2, 4, -1, 0}, {1, 2, 1, 2});  // α = 3 and −0.5
  EXPECT_EQ(activation_region(Variable(map), slope).data().to_vector<float>(),
            (std::vector<float>{3 * 1 - 0.5f * 3, 3 * 2 - 0.5f * 5}));
}

TEST(ActivationRegions, GradientsLeaveTheGraphAndTheLeavesAsTheyAre) {
  const Variable w(Tensor::from<double>({2, 3}, {2}), true);
  const Variable a = mul(w, 5.0), b = square(a), c = mul(b, w);
  const std::vector<Tensor> g = gradients(c, {a, b}, Tensor::full({2}, 1.0, DType::f64));
  EXPECT_EQ(g[1].to_vector<double>(), (std::vector<double>{2, 3}));  // dc/db = w
  EXPECT_EQ(g[0].to_vector<double>(), (std::vector<double>{2 * 10 * 2, 2 * 15 * 3}));
  EXPECT_FALSE(w.grad().defined());
  sum(c).backward();  // c = 25 w³
  EXPECT_EQ(w.grad().to_vector<double>(), (std::vector<double>{75 * 4, 75 * 9}));
  EXPECT_THROW(gradients(square(w), {a}, Tensor::full({2}, 1.0, DType::f64)), GradientError);
  EXPECT_THROW(gradients(mul(w, 2.0), {w}, Tensor::full({2}, 1.0, DType::f64)), GradientError);
}

class SpaceshipNetLosses : public ::testing::Test {
 protected:
  SpaceshipNetLosses()
      : file_(data::read_safetensors(MTCKI_SOURCE_DIR "/tests/data/activation_regions.safetensors")
                  .tensors),
        student_("s", {"vgg8_w0.03125", 1, 32, 10}, kNormalization, 0) {
    add_teacher("vgg8_w0.0625", under(file_, "teacher."));
    student_.net().load_state_dict(under(file_, "student."));
  }
  void add_teacher(const std::string& model, const nn::StateDict& weights = {}) {
    const nn::ModelSpec spec{model, 1, 32, 10};
    nn::Init init(1);
    auto net = nn::make_classifier(spec, init);
    if (!weights.empty()) net->load_state_dict(weights);
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{model, spec, kNormalization, 1.0, -1},
                                            std::move(net)));
  }
  StudentStep step() {
    const Tensor images = entry(file_, "images");
    const Variable x(images, true);
    StudentStep s;
    for (size_t m = 0; m < teachers_.size(); ++m) {
      s.views.push_back(teachers_[m].view(x, Teacher::kStages | Teacher::kMap));
      s.logits.push_back(s.views.back().logits.data());
    }
    s.weights = teachers_.weights();
    s.targets = s.logits[0];
    student_.net().train();
    s.student = student_.features(Variable(images), student_.net().stages(), true);
    return s;
  }

  data::NamedTensors file_;
  Teachers teachers_;
  Student student_;
  DistillConfig config_;
};

TEST_F(SpaceshipNetLosses, AreThoseOfTheFormulas) {
  const StudentStep s = step();
  ActivationMaps maps({teachers_, student_, config_, 0});
  ActivationRegions regions;
  const Variable cam = maps.loss(s), grad_cam = regions.loss(s);
  const double want_cam = entry(file_, "expected.cam").item(),
               want_grad_cam = entry(file_, "expected.grad_cam").item();
  EXPECT_NEAR(cam.item(), want_cam, 1e-5 * want_cam);
  EXPECT_NEAR(grad_cam.item(), want_grad_cam, 1e-5 * want_grad_cam);
  add(cam, grad_cam).backward();
  const nn::StateDict expected = under(file_, "expected.grad.");
  double scale = 0, worst = 0;
  for (const auto& [name, want] : expected)
    for (const float v : want.to_vector<float>()) scale = std::max<double>(scale, std::abs(v));
  size_t compared = 0;
  for (auto& [name, p] : student_.net().named_parameters()) {
    const Tensor want = entry(expected, name);
    ASSERT_TRUE(want.defined()) << name;
    ++compared;
    if (!p->grad().defined()) {  // of the classifier, which is a constant in both
      EXPECT_EQ(name.rfind("classifier.", 0), 0u) << name;
      continue;
    }
    for (const float v : sub(p->grad().plain(), want).to_vector<float>())
      worst = std::max<double>(worst, std::abs(v));
  }
  EXPECT_EQ(compared, 22u);
  EXPECT_LT(worst, 1e-4 * scale);
}

TEST_F(SpaceshipNetLosses, AStudentThatSeesTheSameLosesNothing) {
  Teachers own;
  nn::Init init(1);
  auto net = nn::make_classifier(student_.spec(), init);
  net->load_state_dict(student_.net().state_dict());
  own.add(std::make_unique<Teacher>(Teacher::Options{"t", student_.spec(), kNormalization, 1.0, -1},
                                    std::move(net)));
  const Variable x(entry(file_, "images"), true);
  StudentStep s;
  s.views.push_back(own[0].view(x, Teacher::kStages | Teacher::kMap));
  s.weights = {1};
  s.targets = s.views[0].logits.data();
  student_.net().eval();
  s.student = student_.features(x, student_.net().stages(), true);
  EXPECT_EQ(ActivationMaps({own, student_, config_, 0}).loss(s).item(), 0.0);
  EXPECT_EQ(ActivationRegions().loss(s).item(), 0.0);
  // The mean of a class's map is its logit without the bias.
  const Tensor c = class_activation(s.views[0].map, own[0].class_weights()).data();
  const Tensor bias = entry(own[0].state_dict(), "classifier.bias");
  EXPECT_TRUE(allclose(add(mean(c.plain(), {2, 3}), bias), s.targets, 1e-4, 1e-5));
}

// Maps of other families are compared where they have a size in common; of several teachers the
// weighted mean counts.
TEST_F(SpaceshipNetLosses, OfSeveralTeachersTheMeanCounts) {
  ActivationRegions regions;
  const auto values = [&](const std::vector<double>& weights) {
    StudentStep s = step();
    s.weights = weights;
    return std::pair{ActivationMaps({teachers_, student_, config_, 0}).loss(s).item(),
                     regions.loss(s).item()};
  };
  add_teacher("resnet8");  // maps of 32, 16 and 8 pixels
  const auto [cam_a, region_a] = values({1, 0});
  const auto [cam_b, region_b] = values({0, 1});
  const auto [cam, region] = values({0.25, 0.75});
  EXPECT_GT(cam_b, 0);
  EXPECT_GT(region_b, 0);
  EXPECT_NEAR(cam, 0.25 * cam_a + 0.75 * cam_b, 1e-5 * cam);
  EXPECT_NEAR(region, 0.25 * region_a + 0.75 * region_b, 1e-5 * region);
}

TEST_F(SpaceshipNetLosses, RefuseNetworksWithoutSuchMaps) {
  StudentStep s = step();
  s.student.taps = {s.student.taps[0]};  // 16 pixels
  s.views[0].stage_inputs.erase(s.views[0].stage_inputs.begin());
  try {
    ActivationRegions().loss(s);
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), HasSubstr("maps of one size"));
  }
  // Hidden layers stand between the pooling and the classes.
  Student hidden("h", {"vgg11_bn_fc", 1, 32, 10}, kNormalization, 0);
  s.student = hidden.features(Variable(entry(file_, "images")), hidden.net().stages(), true);
  ActivationMaps maps({teachers_, hidden, config_, 0});
  try {
    maps.loss(s);
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), HasSubstr("student h does not end with global average pooling"));
  }
}

}  // namespace
}  // namespace mtcki
