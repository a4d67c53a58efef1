// CDFKD: one head of the student per teacher, whose mean is the network. What is kept as the network and
// deviations from it must train as heads with weights of their own do.
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/losses/student_term.h"
#include "mtcki/synthesis/inversion_loss.h"
#include "mtcki/training/state.h"
#include "nn/state_dict.h"
#include "optim/optimizer.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki::student_heads_test {
namespace {

constexpr int64_t kSize = 28, kBatch = 6, kClasses = 10;
constexpr double kTemperature = 2;
const data::Normalization kNormalization{{0.3}, {0.4}};
const nn::ModelSpec kSpec{"vgg8_w0.125", 1, kSize, kClasses};

class StudentHeads : public ::testing::Test {
 protected:
  StudentHeads() : student_("s", kSpec, kNormalization, 3) {
    for (uint64_t m = 0; m < 3; ++m) {
      nn::Init init(m + 1);
      teachers_.add(
          std::make_unique<Teacher>(Teacher::Options{str("t", m), kSpec, kNormalization, 1.0, -1},
                                    nn::make_classifier(kSpec, init)));
    }
    for (const StudentTermRow& row : student_terms())
      if (std::string(row.key) == "heads") term_ = row.make({teachers_, student_, config_, 7});
  }
  static Tensor images(uint64_t step) { return rand({kBatch, 1, kSize, kSize}, Rng{1, 2, step}); }
  // Logits of the teachers, made up; and their mean.
  static std::vector<Tensor> logits(uint64_t step) {
    std::vector<Tensor> z;
    for (uint64_t m = 0; m < 3; ++m)
      z.push_back(mul(randn({kBatch, kClasses}, Rng{m, 5, step}), 3.0));
    return z;
  }
  static Tensor mean_of(const std::vector<Tensor>& z) {
    return mul(add(add(z[0], z[1]), z[2]), 1.0 / 3);
  }
  static optim::SgdOptions sgd() {
    return {.lr = 0.5, .momentum = 0.9, .weight_decay = 1e-2, .nesterov = true};
  }
  // Mean over teachers of the heads' divergences, and that of their mean.
  static Variable loss_of(const std::vector<Tensor>& z, const std::vector<Variable>& heads,
                          const Variable& mean) {
    Variable total = fused_kd(mean_of(z), mean, kTemperature);
    for (size_t m = 0; m < 3; ++m)
      total = add(total, mul(fused_kd(z[m], heads[m], kTemperature), 1.0 / 3));
    return total;
  }

  Teachers teachers_;
  Student student_;
  DistillConfig config_;
  std::unique_ptr<StudentTerm> term_;
};

TEST_F(StudentHeads, TrainAsHeadsWithWeightsOfTheirOwn) {
  // The other one: a trunk, and three whole heads.
  Student trunk("s", kSpec, kNormalization, 3);
  std::vector<Variable> weight, bias;
  Tensor mean_w, mean_b;
  for (auto& [name, head] : student_.heads()) {
    const Tensor w = mul(head->weight.data(), 1.0 / 3), b = mul(head->bias->data(), 1.0 / 3);
    mean_w = mean_w.defined() ? add(mean_w, w) : w;
    mean_b = mean_b.defined() ? add(mean_b, b) : b;
  }
  const auto parameter = [](Student& s, const std::string& name) {
    for (auto& [key, p] : s.net().named_parameters())
      if (key == name) return *p;
    throw Error(name);
  };
  for (auto& [name, head] : student_.heads()) {
    weight.emplace_back(
        add(parameter(trunk, "classifier.weight").data(), sub(head->weight.data(), mean_w)), true);
    bias.emplace_back(
        add(parameter(trunk, "classifier.bias").data(), sub(head->bias->data(), mean_b)), true);
  }
  optim::ParameterGroup ours = optim::group_of(student_.net()), whole, rest;
  for (auto& p : term_->parameters()) ours.parameters.push_back(p);
  for (auto& [name, p] : trunk.net().named_parameters())
    if (name.rfind("classifier.", 0) != 0) whole.parameters.emplace_back(name, *p);
  for (size_t m = 0; m < 3; ++m) {
    whole.parameters.emplace_back(str("w", m), weight[m]);
    whole.parameters.emplace_back(str("b", m), bias[m]);
  }
  const auto a = optim::make_sgd({ours}, sgd()), b = optim::make_sgd({whole}, sgd());
  for (uint64_t step = 0; step < 4; ++step) {
    const std::vector<Tensor> z = logits(step);
    a->zero_grad();
    StudentStep s;
    s.logits = z;
    s.weights = {1.0 / 3, 1.0 / 3, 1.0 / 3};
    s.temperature = kTemperature;
    s.student = student_.features(Variable(images(step)));
    const Variable loss = add(term_->loss(s), fused_kd(mean_of(z), s.student.logits, kTemperature));
    loss.backward();
    term_->finish_backward();
    a->step();

    b->zero_grad();
    const Variable f = trunk.features(Variable(images(step))).feature;
    std::vector<Variable> heads;
    for (size_t m = 0; m < 3; ++m) heads.push_back(linear(f, weight[m], bias[m]));
    const Variable other = loss_of(z, heads, mul(add(add(heads[0], heads[1]), heads[2]), 1.0 / 3));
    EXPECT_NEAR(loss.item(), other.item(), 1e-5 * other.item()) << "step " << step;
    other.backward();
    b->step();
  }
  const Tensor mean = mul(add(add(weight[0].data(), weight[1].data()), weight[2].data()), 1.0 / 3);
  EXPECT_TRUE(allclose(parameter(student_, "classifier.weight").data(), mean, 1e-3, 1e-5));
  for (auto& [name, p] : trunk.net().named_parameters()) {
    if (name.rfind("classifier.", 0) == 0) continue;
    EXPECT_TRUE(allclose(parameter(student_, name).data(), p->data(), 1e-3, 1e-5)) << name;
  }
}

TEST_F(StudentHeads, TheirMeanIsTheNetwork) {
  const nn::Classifier::Output y = student_.features(Variable(images(0)));
  const std::vector<Variable> heads = student_.head_logits(y);
  ASSERT_EQ(heads.size(), 3u);
  EXPECT_FALSE(allclose(heads[0].data(), heads[1].data(), 1e-2, 1e-2));
  EXPECT_TRUE(allclose(mean_of({heads[0].data(), heads[1].data(), heads[2].data()}),
                       y.logits.data(), 1e-5, 1e-6));
}

// The generator makes the same large, through the student alone.
TEST_F(StudentHeads, ImagesAreDrivenAwayFromEveryHead) {
  SynthesisConfig c;
  for (const LossTermRow& row : inversion_terms()) c.loss[row.key] = 0;
  c.loss["adv_heads"] = 1;
  c.adv_temperature = kTemperature;
  c.pad = 0;
  c.flip = false;
  InversionLoss loss(teachers_, c, kBatch, 0);
  InversionLoss::Step s;
  s.labels = Tensor::zeros({kBatch}, DType::i64);
  s.asked = {0, 1, 2};
  s.student = &student_;
  StepInputs inputs;
  loss.draw(s, Rng{}, inputs);
  MetricRing ring;
  const Variable x(images(1), true);
  const Variable total = loss.evaluate(x, s, ring).total;
  std::vector<Tensor> z;
  for (size_t m = 0; m < 3; ++m) z.push_back(teachers_[m].forward_no_grad(x.data()).logits.data());
  const Variable again(x.data(), true);
  const Student::Frozen frozen = student_.frozen(again);
  const Variable want = neg(loss_of(z, frozen.heads, frozen.logits));
  EXPECT_NEAR(total.item(), want.item(), 1e-5 * std::abs(want.item()));
  total.backward();
  want.backward();
  EXPECT_TRUE(allclose(x.grad().plain(), again.grad().plain(), 1e-3, 1e-6));
  for (const auto& [name, head] : student_.heads())
    EXPECT_TRUE(head->weight.requires_grad()) << name;
}

}  // namespace
}  // namespace mtcki::student_heads_test
