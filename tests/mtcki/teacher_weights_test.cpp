// What several teachers count: weights that rounds learn (Co-Boosting), images about which teachers
// differ, samples that are hard.
#include "mtcki/distillation/teacher_weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/fused_kd.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki::teacher_weights_test {
namespace {

using ::testing::ElementsAre;

Tensor logits(const std::vector<double>& v) { return Tensor::from(v, {2, 2}); }

// Two teachers of equal weight: t = [1,0],[0,2]; y = [0,1]. softmax t − y = [−.2689,.2689] and
// [.1192,−.1192]. Of teacher 1 (z − t) = [1,0],[0,−1]: −.2689 + .1192 < 0, so it gains.
TEST(LearntTeacherWeights, MoveByTheSignOfTheSlope) {
  const Tensor first = logits({2, 0, 0, 1}), second = logits({0, 0, 0, 3}),
               y = Tensor::from<int64_t>({0, 1}, {2});
  EXPECT_THAT(moved_weights({0.5, 0.5}, {first, second}, y, 0.01), ElementsAre(0.51, 0.49));
  const Tensor wrong = logits({0, 2, 1, 0});
  EXPECT_THAT(moved_weights({1.0, 0.004}, {first, wrong}, y, 0.01), ElementsAre(1.0, 0.0))
      << "within 0 and 1";
  EXPECT_THAT(moved_weights({0.5, 0.5}, {first, first}, y, 0.01), ElementsAre(0.5, 0.5))
      << "where they say the same";
}

// The slope itself: differences of the cross entropy of the weighted mean.
TEST(LearntTeacherWeights, GoDownhill) {
  const Tensor y = Tensor::from<int64_t>({0, 1}, {2});
  for (uint64_t i = 0; i < 20; ++i) {
    std::vector<Tensor> z;
    for (uint64_t m = 0; m < 3; ++m) z.push_back(randn({2, 2}, Rng{i, 3, m}, DType::f64));
    std::vector<double> w{0.7, 0.2, 0.4};
    const auto value = [&](const std::vector<double>& weights) {
      Tensor t = mul(z[0], weights[0]);
      for (size_t m = 1; m < 3; ++m) add_(t, z[m], weights[m]);
      const double mass = weights[0] + weights[1] + weights[2];
      return cross_entropy(Variable(mul(t, 1 / mass)), y).item();
    };
    const std::vector<double> moved = moved_weights(w, z, y, 0.01);
    for (size_t m = 0; m < 3; ++m) {
      std::vector<double> up = w, down = w;
      up[m] += 1e-6;
      down[m] -= 1e-6;
      const double slope = (value(up) - value(down)) / 2e-6;
      EXPECT_NEAR(moved[m] - w[m], slope > 0 ? -0.01 : 0.01, 1e-12) << i << " " << m;
    }
  }
}

TEST(LearntTeacherWeights, APassFavoursTheTeacherThatKnowsTheLabels) {
  Teachers teachers;
  const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
  for (uint64_t m = 0; m < 2; ++m) {
    nn::Init init(m + 1);
    teachers.add(
        std::make_unique<Teacher>(Teacher::Options{str("t", m), spec, {{0.3}, {0.4}}, 0.5, -1},
                                  nn::make_classifier(spec, init)));
  }
  data::ImageSet set;
  set.images = randint(0, 256, {30, 1, 28, 28}, Rng{1, 2, 3}).to(DType::f32).to(DType::u8);
  set.labels = argmax(
      teachers[1].forward_no_grad(mul(set.images.to(DType::f32), 1.0 / 255)).logits.data(), 1);
  learn_weights(teachers, set, 8, 0.01, Rng{5, 6, 1});
  EXPECT_NEAR(teachers[1].options().weight, 0.54, 1e-12);  // four batches
  EXPECT_NEAR(teachers[0].options().weight, 0.46, 1e-12);
}

TEST(AgreementWeights, CountImagesByTheShareThatAgrees) {
  // Of three teachers with weights 0.5, 0.3, 0.2: image 0 has all, image 1 the first and the last.
  const std::vector<Tensor> z{logits({2, 0, 3, 0}), logits({1, 0, 0, 1}), logits({4, 1, 2, 0})};
  const Tensor targets = fused_targets(Fuse::mean, z, {0.5, 0.3, 0.2}, 1, {});
  const auto counts = [&](double exponent) {
    return agreement_weights(targets, z, {0.5, 0.3, 0.2}, exponent).to_vector<double>();
  };
  EXPECT_NEAR(counts(1)[0], 1 / 0.85, 1e-9);
  EXPECT_NEAR(counts(1)[1], 0.7 / 0.85, 1e-9);
  EXPECT_NEAR(counts(100)[0], 2, 1e-9) << "a large exponent leaves out what is disputed";
  EXPECT_NEAR(counts(100)[1], 0, 1e-9);
  const Variable student(logits({0, 1, 1, 0}));
  const Tensor c = agreement_weights(targets, z, {0.5, 0.3, 0.2}, 100);
  const Tensor first = Tensor::from<double>({2, 0}, {2});
  EXPECT_NEAR(fused_kd(targets, student, 4, c).item(), fused_kd(targets, student, 4, first).item(),
              1e-9);
}

// The numbers of the field's own function for h = 1 (logits [2,0],[0,1], labels 0 and 1).
TEST(ClassPriorFocus, HardSamplesLead) {
  const Variable z(logits({2, 0, 0, 1}), true);
  const Tensor y = Tensor::from<int64_t>({0, 1}, {2});
  EXPECT_NEAR(class_prior_ens({z}, {1.0}, y, 1).item(), 0.0496896, 1e-7);
  EXPECT_NEAR(class_prior_ens({z}, {1.0}, y, 1e-9).item(), class_prior_ens({z}, {1.0}, y).item(),
              1e-7);
  const double p0 = 1 / (1 + std::exp(-2.0)), p1 = 1 / (1 + std::exp(-1.0));
  EXPECT_NEAR(class_prior_ens({z}, {1.0}, y, 2).item(),
              -(std::pow(1 - p0, 2) * std::log(p0) + std::pow(1 - p1, 2) * std::log(p1)) / 2, 1e-9);
  class_prior_ens({z}, {1.0}, y, 1).backward();
  // (1 − p_y) (p − y) / B: the factor is a constant.
  EXPECT_NEAR(z.grad().to_vector<double>()[0], (1 - p0) * (p0 - 1) / 2, 1e-9);
}

}  // namespace
}  // namespace mtcki::teacher_weights_test
