// The estimate before a run: its arithmetic, and that nothing is left behind.
#include "mtcki/run/dry_run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "mtcki/distillation/teacher_outputs.h"
#include "mtcki/run/pipeline.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;

TEST(StageTimes, ThreeRunsGiveStepTestAndRest) {
  // 0.5 + 0.25 per step + 0.01 per image
  const StageTimes t = stage_times({2, 10, 1.1}, {6, 10, 2.1}, {2, 110, 2.1});
  EXPECT_DOUBLE_EQ(t.step, 0.25);
  EXPECT_DOUBLE_EQ(t.test, 0.01);
  EXPECT_NEAR(t.fixed, 0.5, 1e-12);
  EXPECT_NEAR(t.at(100, 1000), 35.5, 1e-9);
  // Longer runs that were not slower, and a set with no more test images.
  const StageTimes noisy = stage_times({2, 10, 1.3}, {6, 10, 1.2}, {2, 10, 1.2});
  EXPECT_DOUBLE_EQ(noisy.step, 0.2);
  EXPECT_EQ(noisy.test, 0);
  EXPECT_NEAR(noisy.fixed, 0.9, 1e-12);
}

TEST(DryRunTable, NamesStagesAndAFullDisk) {
  DryRun e;
  e.stages = {{"teachers", "2 x 3 epochs of 10 steps", 61}};
  e.seconds = 61;
  e.memory_bytes = 3u << 20;
  e.disk_bytes = 2000;
  e.free_bytes = 1000;
  const std::string text = dry_run_table(e);
  EXPECT_NE(text.find("2 x 3 epochs of 10 steps"), std::string::npos);
  EXPECT_NE(text.find("1:01"), std::string::npos);
  EXPECT_NE(text.find("too little room"), std::string::npos);
  e.free_bytes = 3000;
  EXPECT_EQ(dry_run_table(e).find("too little room"), std::string::npos);
}

class DryRunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_dry_" + std::to_string(getpid()));
    fs::create_directories(dir_ / "tmp");
    setenv("TMPDIR", (dir_ / "tmp").c_str(), 1);
    config_.name = "x";
    config_.out = (dir_ / "runs").string();
    config_.data.name = "synth10";
    config_.data.train_limit = 200;
    config_.data.test_limit = 60;
    config_.train.epochs = 30;
    config_.train.batch_size = 20;
    config_.train.schedule = "multistep";
    config_.train.milestones = {20};
    config_.teachers.resize(1);
    config_.teachers[0].model = "vgg8_w0.125";
    config_.synthesis.batches = 40;
    config_.synthesis.batch_size = 10;
    config_.synthesis.g_steps = 50;
    config_.synthesis.nz = config_.synthesis.ngf = config_.synthesis.head_dim = 8;
    config_.synthesis.bank_size = 100;
    config_.synthesis.bank_draw = 10;
    config_.distill.epochs = 5;
    config_.distill.batch_size = 25;
    config_.distill.ts_queue = 20;
    config_.students.resize(2);
    config_.students[0].name = "a";
    config_.students[1].name = "b";
    config_.students[0].model = config_.students[1].model = "vgg8_w0.125";
  }
  void TearDown() override {
    unsetenv("TMPDIR");
    fs::remove_all(dir_);
  }
  fs::path dir_;
  RunConfig config_;
};

TEST_F(DryRunTest, EveryStageIsEstimatedAndNothingIsLeft) {
  const DryRun e = dry_run(config_);
  ASSERT_EQ(e.stages.size(), 4u);
  EXPECT_EQ(e.stages[0].work, "1 x 30 epochs of 10 steps");
  EXPECT_EQ(e.stages[1].work, "40 batches of 50 steps");
  EXPECT_EQ(e.stages[2].work, "2 x 5 epochs of 16 steps");
  double sum = 0;
  for (const DryRunStage& s : e.stages) {
    EXPECT_GT(s.seconds, 0) << s.name;
    sum += s.seconds;
  }
  EXPECT_DOUBLE_EQ(sum, e.seconds);
  EXPECT_GT(e.memory_bytes, 1u << 20);
  EXPECT_GT(e.free_bytes, 0u);
  EXPECT_FALSE(fs::exists(config_.out)) << "the run folder is not touched";
  EXPECT_TRUE(fs::is_empty(dir_ / "tmp"));

  // Disk: what the run itself then takes, with the allowance for pictures on top.
  config_.train.epochs = 2;
  config_.train.milestones = {1};
  config_.synthesis.batches = 12;
  config_.synthesis.g_steps = 2;
  const uint64_t estimate = dry_run(config_).disk_bytes;
  const std::string folder = (dir_ / "run").string();
  fs::create_directories(folder);
  RunLog log;
  run_pipeline(config_, folder, log);
  uint64_t real = 0;
  for (const auto& f : fs::recursive_directory_iterator(folder))
    if (f.is_regular_file()) real += f.file_size();
  EXPECT_GT(static_cast<double>(estimate), 0.9 * static_cast<double>(real));
  EXPECT_LT(static_cast<double>(estimate), 1.5 * static_cast<double>(real) + 5e6);
}

TEST_F(DryRunTest, KeptViewsAreNamedAndCountedInTheMemory) {
  config_.distill.epochs = 50;
  config_.distill.ts_queue = 100;
  const DryRun fresh = dry_run(config_);
  config_.distill.views = 4000;
  const DryRun kept = dry_run(config_);
  EXPECT_EQ(kept.stages[2].work, "2 x 50 epochs of 16 steps, 4000 views kept");
  // 4000 views of 400 images: 10 logits and 64 features of one teacher.
  const uint64_t bytes = KeptTeacherOutputs::bytes(4000, 400, 10, {64});
  EXPECT_EQ(bytes, 4000u * 400 * 74 * 4);
  EXPECT_GT(kept.memory_bytes, bytes);
  EXPECT_GT(kept.memory_bytes, fresh.memory_bytes);
  EXPECT_GT(kept.stages[2].seconds, 0);
}

TEST_F(DryRunTest, RoundsWithTheStudentAndErrorsOfTheRunItself) {
  config_.distill.epochs = 7;
  config_.distill.steps_per_epoch = 11;
  config_.rounds.per_epoch = 1;
  config_.synthesis.loss["adv"] = 0.5;
  EXPECT_EQ(dry_run(config_).stages[2].work, "2 x 7 rounds of 50 + 11 steps");
  config_.teachers[0].weights = (dir_ / "absent.safetensors").string();
  EXPECT_THROW(dry_run(config_), DataError);
  EXPECT_TRUE(fs::is_empty(dir_ / "tmp"));
}

}  // namespace
}  // namespace mtcki
