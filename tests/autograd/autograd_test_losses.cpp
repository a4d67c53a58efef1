// Losses against values worked by hand, outputs and gradients.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "autograd/functions.h"

namespace mtcki::autograd_test_losses {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

Variable leaf(const std::vector<double>& values, const Shape& shape) {
  return Variable(Tensor::from(values, shape), true);
}
Tensor constant(const std::vector<double>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}
std::vector<double> grad(const Variable& v) { return v.grad().to_vector<double>(); }
auto Near(const std::vector<double>& want) { return Pointwise(DoubleNear(1e-9), want); }

constexpr double kDigits = 6e-8;  // the values are given to seven digits

// Two samples of two classes: the teacher's and the student's logits.
struct Pair {
  Variable teacher = leaf({2, 0, 0, 1}, {2, 2}), student = leaf({1, 0, 1, 0}, {2, 2});
};

TEST(HandWorked, BnStatistics) {
  for (const Shape& shape : {Shape{4, 1}, Shape{1, 1, 2, 2}, Shape{2, 1, 1, 2}}) {
    const Variable x = leaf({1, 2, 3, 4}, shape);
    Tensor mean, var;
    const Variable loss = bn_statistics(x, constant({1}), constant({1}), 0.0, {}, {}, &mean, &var);
    EXPECT_DOUBLE_EQ(mean.item(), 2.5);
    EXPECT_DOUBLE_EQ(var.item(), 1.25);
    EXPECT_DOUBLE_EQ(loss.item(), 1.75);
    loss.backward();
    EXPECT_THAT(grad(x), Near({-0.5, 0, 0.5, 1}));
  }
}

TEST(HandWorked, BnStatisticsWithMomentum) {
  // mu = 0.1*2.5 + 0.9*2 = 2.05, s = 0.1*1.25 + 0.9*3 = 2.825: 1.05 + 1.825.
  const Variable x = leaf({1, 2, 3, 4}, {4, 1});
  const Variable loss =
      bn_statistics(x, constant({1}), constant({1}), 0.9, constant({2}), constant({3}));
  EXPECT_NEAR(loss.item(), 2.875, 1e-12);
  loss.backward();
  EXPECT_THAT(grad(x), Near({-0.05, 0, 0.05, 0.1}));  // the plain form's, times 1 - momentum
}

TEST(HandWorked, BnStatisticsAtTheOptimumHasNoGradient) {
  const Variable x = leaf({1, 2, 3, 4}, {4, 1});
  const Variable loss = bn_statistics(x, constant({2.5}), constant({1.25}));
  EXPECT_NEAR(loss.item(), 0, 1e-12);
  loss.backward();
  for (double g : grad(x)) EXPECT_TRUE(std::isfinite(g));
}

TEST(HandWorked, KlRowsAndMean) {
  const Pair z;
  const auto row = [&z](std::vector<double> weights) {
    return kl_div(z.teacher, z.student, 1.0, constant(weights)).item() * 2;
  };
  EXPECT_NEAR(row({1, 0}), 0.0671308, kDigits);
  EXPECT_NEAR(row({0, 1}), 0.4621172, kDigits);
  // Only the first sample's predictions agree: the adversarial loss, negated.
  EXPECT_NEAR(kl_div(z.teacher, z.student, 1.0, constant({1, 0})).item(), 0.0335654, kDigits);
  EXPECT_NEAR(kl_div(z.teacher, z.student).item(), (0.0671308 + 0.4621172) / 2, kDigits);
}

TEST(HandWorked, KlGradients) {
  const Pair z;
  kl_div(z.teacher, z.student, 1.0, constant({1, 0})).backward();
  const double p = 1 / (1 + std::exp(-2.0)), q = 1 / (1 + std::exp(-1.0));
  EXPECT_THAT(grad(z.student), Near({(q - p) / 2, (p - q) / 2, 0, 0}));
  const double kl = p * std::log(p / q) + (1 - p) * std::log((1 - p) / (1 - q));
  const double first = p * (std::log(p / q) - kl) / 2;
  EXPECT_THAT(grad(z.teacher), Near({first, -first, 0, 0}));
}

TEST(HandWorked, DistillationAtTemperature) {
  const Pair z;
  const Variable teacher(z.teacher.data());
  const Variable loss = kl_div(teacher, z.student, 20.0) * (20.0 * 20.0);
  EXPECT_NEAR(loss.item(), 0.3123374, kDigits);
  loss.backward();  // T/B (q - p)
  const auto at = [](double difference) { return 1 / (1 + std::exp(-difference / 20)); };
  const double a = 20.0 / 2 * (at(1) - at(2)), b = 20.0 / 2 * (at(1) - at(-1));
  EXPECT_THAT(grad(z.student), Near({a, -a, b, -b}));
  EXPECT_FALSE(teacher.grad().defined());
}

TEST(HandWorked, JensenShannon) {
  const Pair z;
  const Variable js = js_div(z.teacher, z.student, 3.0);
  // The 1e-8 inside the logarithms is below the seventh digit.
  EXPECT_NEAR(js.item(), 0.0084758, kDigits);
  EXPECT_NEAR(add(js * (-1 / std::log(2.0)), 1.0).item(), 0.9877720, 1e-7);
  // Equal distributions: zero, and no gradient.
  const Variable p = leaf({2, 0, 0, 1}, {2, 2}), q = leaf({3, 1, 1, 2}, {2, 2});
  const Variable zero = js_div(p, q, 3.0);
  EXPECT_NEAR(zero.item(), 0, 1e-12);
  zero.backward();
  EXPECT_THAT(grad(p), Near({0, 0, 0, 0}));
}

TEST(HandWorked, CrossEntropyOfTwoTeachers) {
  const Pair z;
  const Tensor labels = Tensor::from<int64_t>({0, 1}, {2});
  const Variable each = (cross_entropy(z.teacher, labels) + cross_entropy(z.student, labels)) * 0.5;
  EXPECT_NEAR(each.item(), 0.5166783, kDigits);
  const Variable mean_logits = (z.teacher + z.student) * 0.5;
  EXPECT_NEAR(cross_entropy(mean_logits, labels).item(), 0.4472802, kDigits);
}

TEST(HandWorked, InfoNce) {
  const Variable u = leaf({1, 0, 0, 1}, {2, 2}), v = leaf({1, 0, 0.6, 0.8}, {2, 2});
  const auto loss = [&](std::vector<double> weights) {
    return info_nce(u, v, 0.5, constant(weights));
  };
  EXPECT_NEAR(loss({1, 0}).item(), 0.3711007, kDigits);
  EXPECT_NEAR(loss({0, 1}).item(), 0.1839007, kDigits);
  EXPECT_NEAR(loss({0.5, 0.5}).item(), 0.2775007, kDigits);  // both rows of this batch
  EXPECT_NEAR(loss({1, 1}).item(), 0.5550014, kDigits);      // one row, and one of the bank
  // du_i = c_i/tau (sum_j pi_ij v_j - v_i)
  loss({1, 0}).backward();
  const double pi = 1 / (1 + std::exp((1 - 0.6) / 0.5));  // of the wrong column
  EXPECT_THAT(grad(u), Near({2 * pi * (0.6 - 1), 2 * pi * 0.8, 0, 0}));
  EXPECT_THAT(grad(v), Near({-2 * pi, 0, 2 * pi, 0}));
}

TEST(HandWorked, TeacherConsensus) {
  // H(mean of p_m) - mean of H(p_m), from the functions that the loss is composed of.
  const Pair z;
  const Variable p = softmax(z.teacher), q = softmax(z.student), mixed = (p + q) * 0.5;
  const auto entropy = [](const Variable& d) { return -sum(d * log(d)) * 0.5; };
  const Variable loss = entropy(mixed) - (entropy(p) + entropy(q)) * 0.5;
  EXPECT_NEAR(loss.item(), 0.0646248, kDigits);
  const Variable balance = mean(softmax(z.teacher), {0});
  EXPECT_NEAR(sum(balance * log(balance)).item(), -0.6818941, kDigits);
}

TEST(HandWorked, NormHasNoGradientAtZero) {
  const Variable x = leaf({3, 4}, {2}), zero = leaf({0, 0}, {2});
  norm(x).backward();
  EXPECT_THAT(grad(x), Near({0.6, 0.8}));
  norm(zero).backward();
  EXPECT_THAT(grad(zero), ElementsAre(0, 0));
}

}  // namespace
}  // namespace mtcki::autograd_test_losses
