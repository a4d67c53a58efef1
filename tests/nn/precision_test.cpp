// Networks in bf16 and tf32 against f32, on the CPU.
#include "nn/precision.h"

#include <gmock/gmock.h>

#include "optim/optimizer.h"
#include "tensor/error.h"
#include "tests/nn/precision_testing.h"

namespace mtcki::nn::precision_test {
namespace {

using mtcki::testing::classifier;
using mtcki::testing::cosine;
using mtcki::testing::distance;
using mtcki::testing::generator;
using mtcki::testing::labels;
using mtcki::testing::Pass;
using mtcki::testing::pass_of;
using mtcki::testing::values;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(PrecisionNames, AreParsedAndSuggested) {
  for (const Precision p : {Precision::f32, Precision::tf32, Precision::bf16})
    EXPECT_EQ(parse_precision(name_of(p)), p);
  EXPECT_THAT(
      [] { parse_precision("bf61"); },
      ThrowsMessage<UsageError>(HasSubstr("unknown precision 'bf61'; did you mean \"bf16\"")));
  EXPECT_THAT([] { parse_precision("half"); },
              ThrowsMessage<UsageError>(HasSubstr("Known: f32 tf32 bf16")));
}

TEST(PrecisionNames, EveryModuleKeepsItsOwn) {
  const auto a = classifier("resnet8"), b = classifier("resnet8");
  a->set_precision(Precision::bf16);
  for (auto& [path, module] : a->named_modules())
    EXPECT_EQ(module->precision(), Precision::bf16) << path;
  for (auto& [path, module] : b->named_modules())
    EXPECT_EQ(module->precision(), Precision::f32) << path;
}

class Bf16 : public ::testing::TestWithParam<std::string> {};

TEST_P(Bf16, TrainingIsNearF32) {
  const auto m = classifier(GetParam());
  const Tensor x = values({32, 3, 32, 32}, 1), y = labels(32);
  const Pass full = pass_of(*m, Precision::f32, x, y), half = pass_of(*m, Precision::bf16, x, y);
  EXPECT_LT(distance(half.output, full.output), 2e-2);
  EXPECT_LT(distance(half.feature, full.feature), 2e-2);
  EXPECT_GT(distance(half.output, full.output), 0) << "bf16 was not used";
  EXPECT_GT(cosine(half.gradients, full.gradients), 0.99);
  // Of one image: rounded sums near 0 fall on the other side of some ReLUs, and nothing averages.
  EXPECT_GT(cosine({half.input_gradient}, {full.input_gradient}), 0.97);
  EXPECT_EQ(half.input_gradient.dtype(), DType::f32);
  EXPECT_EQ(half.output.dtype(), DType::f32);
  EXPECT_EQ(half.feature.dtype(), DType::f32);
  for (size_t i = 0; i < half.norm_inputs.size(); ++i) {
    EXPECT_EQ(half.norm_inputs[i].data().dtype(), DType::bf16) << "batch norm " << i;
    EXPECT_EQ(full.norm_inputs[i].data().dtype(), DType::f32) << "batch norm " << i;
  }
  for (auto& [name, buffer] : m->named_buffers())
    if (buffer->rank() == 1) {
      EXPECT_EQ(buffer->dtype(), DType::f32) << name;
    }
}

TEST_P(Bf16, RepeatsItsBitsAndLeavesNothingBehind) {
  const auto m = classifier(GetParam());
  m->eval();
  const Tensor x = values({8, 3, 32, 32}, 1), y = labels(8);
  const Pass before = pass_of(*m, Precision::f32, x, y);
  const Pass first = pass_of(*m, Precision::bf16, x, y), again = pass_of(*m, Precision::bf16, x, y);
  const Pass after = pass_of(*m, Precision::f32, x, y);
  EXPECT_TRUE(identical(first.output, again.output));
  EXPECT_TRUE(identical(before.output, after.output));
  for (size_t i = 0; i < first.gradients.size(); ++i) {
    EXPECT_TRUE(identical(first.gradients[i], again.gradients[i])) << i;
    EXPECT_TRUE(identical(before.gradients[i], after.gradients[i])) << i;
  }
}

// The frozen teacher of an inversion step: gradients reach the images, no bit of it moves.
TEST_P(Bf16, FrozenTeacherWithStatisticsLoss) {
  const auto m = classifier(GetParam());
  m->eval();
  m->set_requires_grad(false);
  const StateDict before = m->state_dict();
  const std::vector<BatchNorm2d*> norms = m->batch_norms();
  const auto run = [&](Precision precision, Tensor* gradient) {
    m->set_precision(precision);
    const Variable x(values({16, 3, 32, 32}, 1), true);
    const auto [logits, feature, inputs, map] = m->features(x, norms);
    Variable loss = cross_entropy(logits, labels(16));
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Variable l = bn_statistics(inputs[i], norms[i]->running_mean, norms[i]->running_var);
      EXPECT_EQ(l.data().dtype(), DType::f32);
      loss = loss + l;
    }
    loss.backward();
    *gradient = x.grad();
    return loss.item();
  };
  Tensor full, half;
  const double a = run(Precision::f32, &full), b = run(Precision::bf16, &half);
  EXPECT_NEAR(b, a, 1e-2 * std::abs(a));
  EXPECT_GT(cosine({half}, {full}), 0.99);
  const StateDict after = m->state_dict();
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(identical(before[i].second, after[i].second)) << before[i].first;
}

INSTANTIATE_TEST_SUITE_P(Families, Bf16, ::testing::ValuesIn(mtcki::testing::kFamilies),
                         [](const auto& p) {
                           std::string name = p.param;
                           for (char& c : name) c = c == '.' ? '_' : c;
                           return name;
                         });

class Bf16Generator : public ::testing::TestWithParam<std::string> {};

TEST_P(Bf16Generator, ImagesAreF32AndNear) {
  const auto g = generator(GetParam());
  const Tensor z = values({16, 32}, 3), w = values({16, 3, 32, 32}, 4);
  const Pass full = pass_of(*g, Precision::f32, z, w), half = pass_of(*g, Precision::bf16, z, w);
  EXPECT_EQ(half.output.dtype(), DType::f32);
  EXPECT_LT(distance(half.output, full.output), 5e-3);
  EXPECT_GT(distance(half.output, full.output), 0) << "bf16 was not used";
  EXPECT_GT(cosine(half.gradients, full.gradients), 0.99);
  EXPECT_GT(cosine({half.input_gradient}, {full.input_gradient}), 0.99);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Bf16Generator, ::testing::ValuesIn(mtcki::testing::kGenerators));

TEST(Tf32, IsF32OnTheCpu) {
  const auto m = classifier("wrn16_1");
  m->eval();
  const Tensor x = values({8, 3, 32, 32}, 1), y = labels(8);
  const Pass a = pass_of(*m, Precision::f32, x, y), b = pass_of(*m, Precision::tf32, x, y);
  EXPECT_TRUE(identical(a.output, b.output));
  for (size_t i = 0; i < a.gradients.size(); ++i)
    EXPECT_TRUE(identical(a.gradients[i], b.gradients[i])) << i;
}

TEST(Bf16Training, LossFallsOnAFixedBatch) {
  const auto m = classifier("wrn16_1");
  m->set_precision(Precision::bf16);
  const auto sgd = optim::make_sgd({optim::group_of(*m)}, {});
  const Variable x(values({16, 3, 32, 32}, 1));
  const Tensor y = labels(16);
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    m->zero_grad();
    const Variable loss = cross_entropy((*m)(x), y);
    loss.backward();
    sgd->step();
    (step == 0 ? first : last) = loss.item();
  }
  EXPECT_GT(first, 1.5);
  EXPECT_LT(last, 0.7 * first);
}

}  // namespace
}  // namespace mtcki::nn::precision_test
