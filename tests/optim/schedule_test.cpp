// Learning rates against torch.optim.lr_scheduler (tests/data/make/optimizer_numbers.py).
#include "optim/schedule.h"

#include <gtest/gtest.h>

#include "tensor/error.h"

namespace mtcki::optim {
namespace {

void expect_rates(const Schedule& s, const std::vector<double>& want) {
  for (size_t i = 0; i < want.size(); ++i)
    EXPECT_NEAR(s.at(static_cast<int64_t>(i)), want[i], 1e-12) << s.kind << " step " << i;
}

TEST(Schedule, ConstantIsConstant) {
  Schedule s;
  s.kind = "constant";
  expect_rates(s, {0.1, 0.1, 0.1});
}

TEST(Schedule, CosineEqualsCosineAnnealingLR) {
  Schedule s;
  s.kind = "cosine";
  s.min_lr = 0.01;
  s.total_steps = 10;
  expect_rates(s, {0.1, 0.097797543233, 0.091405764747, 0.081450336353, 0.068905764747, 0.055,
                   0.041094235253, 0.028549663647, 0.018594235253, 0.012202456767, 0.01});
  EXPECT_DOUBLE_EQ(s.at(1000), 0.01);
}

TEST(Schedule, MultistepEqualsMultiStepLR) {
  Schedule s;
  s.kind = "multistep";
  s.milestones = {2, 5, 6};
  s.gamma = 0.2;
  expect_rates(s, {0.1, 0.1, 0.02, 0.02, 0.02, 0.004, 0.0008, 0.0008});
}

TEST(Schedule, OneCycleEqualsOneCycleLR) {
  Schedule s;
  s.kind = "onecycle";
  s.total_steps = 11;
  expect_rates(s, {0.004, 0.042234111373, 0.096026142472, 0.097974656782, 0.088447572477,
                   0.072608704930, 0.053058270809, 0.033005802899, 0.015743251280, 0.004104554321});
  EXPECT_NEAR(s.at(10), 0.1 / 25 / 1e4, 1e-15);
  EXPECT_NEAR(s.at(500), 0.1 / 25 / 1e4, 1e-15);
  s.total_steps = 8;
  s.pct_start = 0.4;
  s.div_factor = 10;
  s.final_div_factor = 100;
  expect_rates(s, {0.01, 0.048595832278, 0.098177183813, 0.093307968919, 0.069165037447,
                   0.037121988697, 0.010422000652});
}

TEST(Schedule, WarmUpEqualsLinearLRThenCosine) {
  Schedule s;
  s.kind = "cosine";
  s.total_steps = 12;
  s.warmup_steps = 4;
  s.warmup_start = 0.1;
  expect_rates(s, {0.01, 0.0325, 0.055, 0.0775, 0.1, 0.096193976626, 0.085355339059, 0.069134171618,
                   0.05, 0.030865828382, 0.014644660941, 0.003806023374});
}

TEST(Schedule, MilestonesCountFromTheStartOfTheWarmUp) {
  Schedule s;
  s.kind = "multistep";
  s.warmup_steps = 2;
  s.milestones = {3};
  expect_rates(s, {0.0, 0.05, 0.1, 0.01});
}

TEST(Schedule, RefusesWhatItDoesNotKnow) {
  Schedule s;
  s.kind = "cosin";
  EXPECT_THROW(s.at(0), UsageError);
  s.kind = "onecycle";
  s.warmup_steps = 3;
  EXPECT_THROW(s.at(0), UsageError);
  s.kind = "cosine";
  EXPECT_THROW(s.at(-1), UsageError);
}

}  // namespace
}  // namespace mtcki::optim
