// Supervised steps: a batch in parts, and one batch learned by heart.
#include <gmock/gmock.h>

#include "mtcki/run/overfit.h"
#include "mtcki/training/train_classifier.h"
#include "nn/layers.h"
#include "tensor/error.h"
#include "tests/mtcki/pipeline_testing.h"

namespace mtcki {
namespace {

class NoNorm : public nn::Module {
 public:
  explicit NoNorm(nn::Init& init)
      : fc1_(add<nn::Linear>("fc1", 6, 5, true, init)),
        fc2_(add<nn::Linear>("fc2", 5, 4, true, init)) {}

 protected:
  Variable forward(const Variable& x) override { return fc2_(relu(fc1_(x))); }

 private:
  nn::Linear &fc1_, &fc2_;
};

TEST(Accumulate, PartsOfABatchHaveItsLossAndGradients) {
  nn::Init init(3);
  NoNorm net(init);
  data::Batch batch;
  batch.images = randn({12, 6}, Rng{1, rng_stream("x"), 0});
  batch.labels = randint(0, 4, {12}, Rng{1, rng_stream("y"), 0});
  const auto run = [&](int64_t parts) {
    net.zero_grad();
    const BatchLoss of = backward_in_parts(net, batch, parts, 0.1);
    std::vector<double> out{of.loss.item(), of.percent_correct.item()};
    for (const Variable& p : net.parameters())
      for (const double g : p.grad().to_vector<float>()) out.push_back(g);
    return out;
  };
  const std::vector<double> whole = run(1);
  EXPECT_GT(whole.size(), 50u);
  for (const int64_t parts : {2, 3, 5, 6}) {  // 5: parts of two and three images
    const std::vector<double> sum = run(parts);
    ASSERT_EQ(sum.size(), whole.size());
    for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(sum[i], whole[i], 2e-6) << parts;
  }
  EXPECT_EQ(run(100), run(6)) << "batch norm needs two images";
}

TEST(Accumulate, TrainsAndResumesBitForBit) {
  RunConfig config = tiny();
  config.train.accumulate = 4;
  config.students.clear();
  config.synthesis.batches = 1;
  const std::string whole = fresh_folder("parts_whole"), cut = fresh_folder("parts_cut");
  RunLog log(whole, false);
  run_pipeline(config, whole, log);
  EXPECT_GE(run_with_interruptions(config, cut, 5, true), 2);
  expect_equal_results(whole, cut);
  fs::remove_all(whole);
  fs::remove_all(cut);
}

TEST(Overfit, ANetworkLearnsOneBatchUnlessItsRateForbidsIt) {
  RunConfig config = tiny();
  config.teachers.resize(1);
  config.teachers[0].name = "t";
  std::vector<Overfit> networks = overfit_batch(config);
  ASSERT_EQ(networks.size(), 2u);
  EXPECT_EQ(networks[1].name, "student/s");
  for (const Overfit& n : networks) {
    EXPECT_TRUE(n.reached) << n.last;
    EXPECT_GT(n.first, 1.0);
    EXPECT_LE(n.last, kOverfitLoss);
    EXPECT_GT(n.steps, 3);
  }
  config.students.clear();
  config.train.lr = 1e-7;
  networks = overfit_batch(config);
  EXPECT_FALSE(networks.at(0).reached);
  EXPECT_EQ(networks[0].steps, kOverfitSteps);
  EXPECT_THAT(overfit_table(networks), ::testing::HasSubstr("did not reach 0.01"));
  config.data.name = "none";
  EXPECT_THROW(overfit_batch(config), UsageError);
}

}  // namespace
}  // namespace mtcki
