// The terms of methods with several teachers (DENSE, DFED, Co-Boosting) against numbers of the field's
// own functions, and what its code gets wrong and this one must not.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/synthesis/inversion_loss.h"
#include "mtcki/training/sgd_trainer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki::several_teachers_test {
namespace {

constexpr int64_t kSize = 28;

Tensor logits(const std::vector<double>& v) { return Tensor::from(v, {2, 2}); }
const Tensor kTeacher = logits({2, 0, 0, 1}), kStudent = logits({1, 0, 1, 0});

// A term by its key, on logits alone.
Variable on_images(const std::string& key, const SynthesisConfig& config,
                   const std::vector<Variable>& teachers, const Variable& student = kStudent) {
  Teachers none;
  InversionStep s;
  s.student_logits = student;
  const double share = 1.0 / static_cast<double>(teachers.size());
  for (const Variable& z : teachers) {
    s.global.push_back({});
    s.global.back().logits = z;
    s.asked.push_back(s.asked.size());
    s.shares.push_back(share);
    s.weights.push_back(share);
  }
  for (const LossTermRow& row : inversion_terms())
    if (row.key == key) return row.make({none, config, 2, 0})->loss(s);
  throw Error("no row " + key);
}

TEST(SeveralTeachers, DisagreementsAreThoseOfTheField) {
  SynthesisConfig c;
  EXPECT_NEAR(on_images("adv_kl", c, {kTeacher}).item(), -0.2646240, 1e-7);  // ZSKT, DFQ
  EXPECT_NEAR(on_images("adv_l1", c, {kTeacher}).item(), -0.75, 1e-12);      // DFAD, DFED
  c.adv_mode = AdvMode::kl_disagree;
  EXPECT_NEAR(on_images("adv", c, {kTeacher}).item(), -0.2310586, 1e-7);  // DENSE
  c.adv_temperature = 3;  // in Co-Boosting's repository
  EXPECT_NEAR(on_images("adv", c, {kTeacher}).item(), -0.2477106, 1e-7);
  EXPECT_NEAR(on_images("adv_kl", c, {kTeacher}).item(), -0.3055549, 1e-7);
  c.adv_mode = AdvMode::kl_agree;
  EXPECT_NEAR(on_images("adv", c, {kTeacher}).item(), -0.3055549 + 0.2477106, 2e-7);
  // Of several teachers the mean logits count, not the mean of the losses.
  const Tensor other = logits({0, 0, 0, -3}), mean = logits({1, 0, 0, -1});
  for (const char* key : {"adv", "adv_kl", "adv_l1"})
    EXPECT_NEAR(on_images(key, c, {kTeacher, other}).item(), on_images(key, c, {mean}).item(),
                1e-12)
        << key;
}

TEST(SeveralTeachers, DisagreementMovesOnlySamplesOnWhichTheyDiffer) {
  SynthesisConfig c;
  c.adv_mode = AdvMode::kl_disagree;
  const Variable t(kTeacher, true), s(kStudent, true);
  on_images("adv", c, {t}, s).backward();
  for (const Variable& v : {t, s}) {
    const auto g = v.grad().to_vector<double>();
    EXPECT_EQ(g[0], 0.0);
    EXPECT_EQ(g[1], 0.0);
    EXPECT_NE(g[2], 0.0);
    EXPECT_NE(g[3], 0.0);
  }
}

// The student comes nearer to the teachers by the distance from which the images drive it away.
TEST(SeveralTeachers, TheStudentsDistanceIsTheGeneratorsWithTheOtherSign) {
  const Variable s(kStudent, true);
  StudentStep step;
  step.targets = kTeacher;
  step.student.logits = s;
  const Teachers none;
  Student student("s", {"vgg8_w0.125", 1, kSize, 10}, {{0.3}, {0.4}}, 0);
  const DistillConfig config;
  Variable loss;
  for (const StudentTermRow& row : student_terms())
    if (std::string(row.key) == "l1") loss = row.make({none, student, config, 0})->loss(step);
  EXPECT_NEAR(loss.item(), 0.75, 1e-12);
  EXPECT_NEAR(loss.item(), -on_images("adv_l1", {}, {kTeacher}).item(), 1e-12);
  loss.backward();
  EXPECT_EQ(s.grad().to_vector<double>(), (std::vector<double>{-0.25, 0, 0.25, -0.25}));
}

// DFQ as in CDFKD-MFS minimises minus the entropy of each sample and the entropy of the batch, which
// makes every sample undecided and the batch of one class: the paper's two terms with the other sign.
TEST(SeveralTeachers, SamplesBecomeDecidedAndBatchesBalanced) {
  const auto entropy = [](const Tensor& p) { return -sum(mul(p, log(p))).item(); };
  const auto after_a_step = [](const std::string& key) {
    const Variable z(logits({0.4, 0, 0.3, 0}), true);
    on_images(key, {}, {z}).backward();
    return softmax(sub(z.data(), mul(z.grad(), 0.5)));
  };
  const Tensor start = softmax(logits({0.4, 0, 0.3, 0}));
  EXPECT_LT(entropy(after_a_step("one_hot")), entropy(start));
  EXPECT_GT(entropy(mean(after_a_step("balance"), {0})), entropy(mean(start, {0})));
}

struct Team {
  Teachers teachers;
  Variable images{rand({6, 1, kSize, kSize}, Rng{9, 9, 9}), true};

  Team() {
    for (const char* name : {"resnet8", "vgg8_w0.125"}) {
      const nn::ModelSpec spec{name, 1, kSize, 10};
      nn::Init init(teachers.size());
      auto net = nn::make_classifier(spec, init);
      uint64_t i = 0;
      for (nn::BatchNorm2d* bn : net->batch_norms())
        bn->running_mean.copy_(mul(randn(bn->running_mean.shape(), Rng{1, 3, i++}), 0.1));
      teachers.add(std::make_unique<Teacher>(Teacher::Options{name, spec, {{0.3}, {0.4}}, 1.0, -1},
                                             std::move(net)));
    }
  }
  // ‖μ − μ̂‖₂ + ‖s − ŝ‖₂ of layer l, worked from its input.
  double layer(size_t m, size_t l) {
    const Variable x = teachers[m].view(images, Teacher::kBn).bn_inputs.at(l);
    const nn::BatchNorm2d& bn = *teachers[m].batch_norms()[l];
    const Tensor plain = x.data().plain();
    const Tensor mu = mean(plain, {0, 2, 3}, true);
    const Tensor var = mean(square(sub(plain, mu)), {0, 2, 3});
    const auto norm = [](const Tensor& a, const Tensor& b) {
      return std::sqrt(sum(square(sub(a.reshape(b.shape()), b))).item());
    };
    return norm(mu, bn.running_mean) + norm(var, bn.running_var);
  }
  double layers(size_t m) {
    double all = 0;
    for (size_t l = 0; l < teachers[m].batch_norms().size(); ++l) all += layer(m, l);
    return all;
  }
};

// DENSE as published looks for batch norms inside a list of networks, finds none, and adds up nothing.
TEST(SeveralTeachers, StatisticsOfEveryTeacherCount) {
  Team team;
  SynthesisConfig c = load_config({MTCKI_SOURCE_DIR "/configs/demo.toml",
                                   MTCKI_SOURCE_DIR "/configs/methods/dense.toml"},
                                  {})
                          .synthesis;
  for (const LossTermRow& row : inversion_terms())
    if (std::string(row.key) != "bn") c.loss[row.key] = 0;
  EXPECT_GT(c.loss["bn"], 0);
  InversionLoss loss(team.teachers, c, 6, 0);
  InversionLoss::Step s;
  s.labels = Tensor::zeros({6}, DType::i64);
  s.asked = {0, 1};
  StepInputs inputs;
  loss.draw(s, Rng{}, inputs);
  MetricRing ring;
  const Variable total = loss.evaluate(team.images, s, ring).total;
  const double first = team.layers(0), second = team.layers(1);
  EXPECT_GT(first, 0);
  EXPECT_GT(second, 0);
  EXPECT_NEAR(total.item(), c.loss["bn"] * (first + second) / 2, 1e-4 * (first + second));
  total.backward();
  EXPECT_GT(norm(team.images.grad()).item(), 0);
}

TEST(SeveralTeachers, TheFirstLayerMayCountMore) {
  Team team;
  for (const double momentum : {0.0, 0.9})
    for (const size_t m : {0, 1}) {
      BnStatisticsLoss once(team.teachers, BnReduce::sum, momentum),
          five(team.teachers, BnReduce::sum, momentum, 5);
      const auto value = [&](BnStatisticsLoss& loss) {
        return loss.layers(m, team.teachers[m].view(team.images, Teacher::kBn)).item();
      };
      const double plain = value(once);
      EXPECT_NEAR(value(five) - plain, 4 * team.layer(m, 0), 1e-4 * plain);
      for (BnStatisticsLoss* loss : {&once, &five}) {  // the same images again, now blended
        loss->draw({m}, Rng{});
        loss->finish_batch({}, {});
      }
      EXPECT_NEAR(value(five) - value(once), 4 * team.layer(m, 0), 1e-4 * plain);
    }
}

// CDFKD as published moves its rate after iterations, where its milestones are epochs.
TEST(SeveralTeachers, MilestonesOfTheStudentAreEpochs) {
  const optim::Schedule s =
      schedule_of({.lr = 1.0, .schedule = "multistep", .milestones = {1, 3}, .gamma = 0.1}, 4, 40);
  EXPECT_EQ(s.at(9), 1.0);
  EXPECT_NEAR(s.at(10), 0.1, 1e-12);
  EXPECT_NEAR(s.at(29), 0.1, 1e-12);
  EXPECT_NEAR(s.at(30), 0.01, 1e-12);
}

}  // namespace
}  // namespace mtcki::several_teachers_test
