// The loss terms of the method against values worked by hand (method reference 2.7) and finite
// differences.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "autograd/gradcheck.h"
#include "mtcki/losses/activation_loss.h"
#include "mtcki/losses/adversarial.h"
#include "mtcki/losses/class_balance.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/losses/history_contrast.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/losses/teacher_consensus.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/softmax.h"

namespace mtcki {
namespace {

Tensor f64(const std::vector<double>& v, const Shape& shape) { return Tensor::from(v, shape); }
Tensor labels(const std::vector<int64_t>& v) {
  return Tensor::from(v, {static_cast<int64_t>(v.size())});
}

const Tensor kTeacher = f64({2, 0, 0, 1}, {2, 2});
const Tensor kStudent = f64({1, 0, 1, 0}, {2, 2});

TEST(Losses, BnStatisticsOfOneChannel) {
  const Variable x(f64({1, 2, 3, 4}, {4, 1, 1, 1}), true);
  const Variable loss = bn_statistics(x, f64({1}, {1}), f64({1}, {1}));
  EXPECT_NEAR(loss.item(), 1.75, 1e-12);  // |2.5 − 1| + |1.25 − 1|
  loss.backward();
  const auto g = x.grad().to_vector<double>();
  const double expected[] = {-0.5, 0, 0.5, 1};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(g[static_cast<size_t>(i)], expected[i], 1e-12);
}

TEST(Losses, AdversarialAgreeMaskedKl) {
  const Variable t(kTeacher, true), s(kStudent, true);
  EXPECT_NEAR(adversarial(AdvMode::kl_agree, t, s).item(), -0.0335654, 1e-7);
  const auto rows = kl_rows(kTeacher, kStudent).to_vector<double>();
  EXPECT_NEAR(rows[0], 0.0671308, 1e-7);
  EXPECT_NEAR(rows[1], 0.4621172, 1e-7);
}

TEST(Losses, AdversarialOnlyMovesSamplesOnWhichBothAgree) {
  const Variable t(kTeacher, true), s(kStudent, true);
  adversarial(AdvMode::kl_agree, t, s).backward();
  const auto g = t.grad().to_vector<double>();
  EXPECT_NE(g[0], 0.0);
  EXPECT_EQ(g[2], 0.0);
  EXPECT_EQ(g[3], 0.0);
}

TEST(Losses, AdversarialJs) {
  EXPECT_NEAR(adversarial(AdvMode::js, kTeacher, kStudent).item(), 0.9877720, 1e-6);
}

// The peer's number for these logits.
TEST(Losses, AdversarialOfAdaptiveDeepInversion) {
  EXPECT_NEAR(adversarial(AdvMode::adi, kTeacher, kStudent).item(), 0.9914564, 1e-7);
}

TEST(Losses, AdversarialEachAveragesTeachers) {
  const double a = adversarial(AdvMode::kl_agree, kTeacher, kStudent).item();
  const double b = adversarial(AdvMode::kl_agree, kStudent, kStudent).item();
  EXPECT_NEAR(
      adversarial_each(AdvMode::kl_agree, {kTeacher, kStudent}, {0.25, 0.75}, kStudent).item(),
      0.25 * a + 0.75 * b, 1e-12);
}

TEST(Losses, FusedKdAtTemperature20) {
  EXPECT_NEAR(fused_kd(kTeacher, kStudent, 20.0).item(), 0.3123374, 1e-6);
}

TEST(Losses, ClassPriorEachAndEnsemble) {
  const Tensor y = labels({0, 1});
  const std::vector<double> w{0.5, 0.5};
  EXPECT_NEAR(class_prior_each({kTeacher, kStudent}, w, y).item(), 0.5166783, 1e-7);
  EXPECT_NEAR(class_prior_ens({kTeacher, kStudent}, w, y).item(), 0.4472802, 1e-7);
}

TEST(Losses, ConsensusAndBalance) {
  EXPECT_NEAR(teacher_consensus({kTeacher, kStudent}, {0.5, 0.5}).item(), 0.0646248, 1e-7);
  EXPECT_NEAR(class_balance(kTeacher).item(), -0.6818941, 1e-7);
  EXPECT_NEAR(teacher_consensus({kTeacher, kTeacher}, {0.3, 0.7}).item(), 0.0, 1e-12);
}

TEST(Losses, InfoNceRows) {
  const Tensor u = f64({1, 0, 0, 1}, {2, 2}), v = f64({1, 0, 0.6, 0.8}, {2, 2});
  // Two rows of the current batch: mean. One current and one bank row: each has weight 1.
  EXPECT_NEAR(info_nce(u, v, 0.5, f64({0.5, 0.5}, {2})).item(), 0.2775007, 1e-6);
  EXPECT_NEAR(info_nce(u, v, 0.5, f64({1, 1}, {2})).item(), 0.5550014, 1e-6);
}

// An identity head: the projection is the feature itself.
class Identity : public nn::Module {
 public:
 protected:
  Variable forward(const Variable& x) override { return x; }
};

TEST(Losses, ContrastUsesBankRowsWithTheirOwnMean) {
  Identity head;
  const auto f32 = [](const std::vector<float>& v, const Shape& s) { return Tensor::from(v, s); };
  const Variable local(f32({2, 0}, {1, 2}), true);
  const MemoryBank::Draw draw{f32({0, 3}, {1, 2}), f32({0.6f, 0.8f}, {1, 2})};
  const Variable loss = contrast_loss(head, local, f32({5, 0}, {1, 2}), draw, 0.5);
  EXPECT_NEAR(loss.item(), 0.5550014, 1e-5);
  EXPECT_NEAR(contrast_loss(head, local, f32({5, 0}, {1, 2}), {}, 0.5).item(), 0.0, 1e-6);
}

TEST(Losses, FusedTargetsModes) {
  const std::vector<Tensor> z{kTeacher, kStudent};
  const std::vector<double> w{0.5, 0.5};
  const Tensor y = labels({0, 1});
  const auto p_of = [](const Tensor& logits) { return softmax(logits).to_vector<double>(); };
  EXPECT_TRUE(
      allclose(fused_targets(Fuse::mean, z, w, 4, y), f64({1.5, 0, 0.5, 0.5}, {2, 2}), 0, 1e-12));
  // prob: softmax(target/T) is the mean of softmax(z/T).
  const auto prob = p_of(mul(fused_targets(Fuse::prob, z, w, 4, y), 0.25));
  const auto a = p_of(mul(kTeacher, 0.25)), b = p_of(mul(kStudent, 0.25));
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(prob[i], 0.5 * (a[i] + b[i]), 1e-12);
  // conf: the teacher with the smaller cross entropy weighs more; ω = 1 − softmax(CE) for M = 2.
  const double ce0 = std::log1p(std::exp(-2.0)), ce1 = std::log1p(std::exp(-1.0));
  const double w0 = 1 - std::exp(ce0) / (std::exp(ce0) + std::exp(ce1));
  const auto conf = fused_targets(Fuse::conf, z, w, 4, y).to_vector<double>();
  EXPECT_NEAR(conf[0], 2 * w0 + 1 * (1 - w0), 1e-12);
  // entropy: the more certain teacher weighs more in row 0.
  const auto entropy = fused_targets(Fuse::entropy, z, w, 4, y).to_vector<double>();
  EXPECT_GT(entropy[0], 1.5);
  EXPECT_NEAR(entropy[2] + 0.0, 1 - entropy[3], 1e-12);  // equally certain: ω = ½ each
  for (const Fuse mode :
       {Fuse::mean, Fuse::prob, Fuse::conf, Fuse::entropy})  // one teacher: itself
    EXPECT_TRUE(identical(fused_targets(mode, {kTeacher}, {1.0}, 4, y), kTeacher))
        << static_cast<int>(mode);
}

TEST(Losses, TotalVariationByHand) {
  // 2x2 image 0 1 / 3 7: → 1, 4; ↓ 3, 6; ↘ 7; ↙ 2.
  const Variable x(f64({0, 1, 3, 7}, {1, 1, 2, 2}));
  EXPECT_NEAR(total_variation(x).item(), 2.5 + 4.5 + 7 + 2, 1e-12);
  EXPECT_NEAR(image_norm(x).item(), std::sqrt(59.0), 1e-12);
  const Variable other(f64({0, 1, 2, 4}, {1, 1, 2, 2}));
  EXPECT_NEAR(total_variation_l2(other).item(), 10.8416193, 1e-7);
  EXPECT_NEAR(activation_loss(f64({-1, 3}, {1, 2})).item(), -2.0, 1e-12);
}

TEST(Losses, FiniteDifferences) {
  const Rng rng{5, rng_stream("losses_test"), 0};
  const auto random = [&](const Shape& s, uint64_t i) {
    return Variable(randn(s, rng.at(i), DType::f64), true);
  };
  const auto check = [](const char* name,
                        const std::function<Variable(const std::vector<Variable>&)>& f,
                        const std::vector<Variable>& in) {
    const GradcheckReport r = gradcheck(f, in);
    EXPECT_TRUE(r.ok) << name << ": " << r.message;
  };
  const Tensor y = labels({0, 2, 1, 2, 0});
  const std::vector<double> w{0.3, 0.7};
  using In = const std::vector<Variable>&;
  const std::vector<Variable> two{random({5, 3}, 0), random({5, 3}, 1)};
  check(
      "class_prior_each", [&](In v) { return class_prior_each(v, w, y); }, two);
  check(
      "class_prior_ens", [&](In v) { return class_prior_ens(v, w, y); }, two);
  check(
      "consensus", [&](In v) { return teacher_consensus(v, w); }, two);
  check("balance", [&](In v) { return class_balance(v[0]); }, {two[0]});
  check(
      "kl-agree", [&](In v) { return adversarial(AdvMode::kl_agree, v[0], v[1]); }, two);
  check(
      "kl-disagree at T 3",
      [&](In v) { return adversarial(AdvMode::kl_disagree, v[0], v[1], 3.0); }, two);
  check(
      "js", [&](In v) { return adversarial(AdvMode::js, v[0], v[1]); }, two);
  check(
      "adi", [&](In v) { return adversarial(AdvMode::adi, v[0], v[1]); }, two);
  check("fused_kd", [&](In v) { return fused_kd(two[0].data(), v[0], 20.0); }, {two[1]});
  check("tv", [&](In v) { return total_variation(v[0]); }, {random({2, 2, 4, 5}, 2)});
  check("tv_l2", [&](In v) { return total_variation_l2(v[0]); }, {random({2, 2, 4, 5}, 2)});
  check("norm", [&](In v) { return image_norm(v[0]); }, {random({2, 2, 4, 5}, 3)});
  check("activation", [&](In v) { return activation_loss(v[0]); }, {random({3, 4}, 4)});
}

// The published gradient of the fused distillation loss: (T/B)(p_S − p_T) at temperature T.
TEST(Losses, TemperatureSquaredKeepsTheGradientScale) {
  const double t = 20;
  const Variable s(kStudent, true);
  fused_kd(kTeacher, s, t).backward();
  const auto g = s.grad().to_vector<double>();
  const auto ps = softmax(mul(kStudent, 1 / t)).to_vector<double>();
  const auto pt = softmax(mul(kTeacher, 1 / t)).to_vector<double>();
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(g[i], t / 2 * (ps[i] - pt[i]), 1e-12);
}

}  // namespace
}  // namespace mtcki
