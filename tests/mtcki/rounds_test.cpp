// When synthesis and distillation take their steps, and what a student is shown then.
#include "mtcki/distillation/rounds.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "data/sets/synth10.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;

// "s0 s1 k0 k1 k2 s2 ...": kind and number of every step.
std::string story(const Rounds& r) {
  std::string out;
  for (int64_t step = 0; step < r.steps(); ++step) {
    const Rounds::Step at = r.at(step);
    out += str(step % r.steps_per_epoch() ? " " : " | ", at.synthesis ? "s" : "k", at.number);
  }
  return out;
}

TEST(Rounds, ThreeLayoutsAreThreeSetsOfNumbers) {
  // The set was made before.
  EXPECT_EQ(story({2, 1, 0, 3}), " | k0 k1 k2 | k3 k4 k5");
  // CMI's adversarial layout.
  EXPECT_EQ(story({2, 1, 2, 1}), " | s0 s1 k0 | s2 s3 k1");
  // DAFL's.
  const Rounds dafl{2, 2, 1, 2};
  EXPECT_EQ(story(dafl), " | s0 k0 k1 s1 k2 k3 | s2 k4 k5 s3 k6 k7");
  EXPECT_EQ(dafl.all_kd_steps(), 8);
}

class PoolReplayTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / str("mtcki_replay_", getpid());
    fs::remove_all(dir_);
    nn::Init init(1);
    const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
    teachers_.add(std::make_unique<Teacher>(Teacher::Options{"t", spec, {{0.5}, {0.5}}, 1.0, -1},
                                            nn::make_classifier(spec, init)));
    context_.set = data::make_synth10("train", 10, 1, 1);
    context_.config.batch_size = 4;
    context_.config.pad = 0;
    context_.config.flip = false;
    context_.seed = 3;
    context_.teachers = &teachers_;
    context_.dir = dir_.string();
    context_.info.channels = 1;
    context_.info.image_size = 28;
  }
  void TearDown() override { fs::remove_all(dir_); }

  static Synthesizer::Batch made(uint8_t value) {
    return {Tensor::full({2, 1, 28, 28}, value, DType::u8), Tensor::from<int64_t>({1, 2}, {2}), 0};
  }
  static std::vector<int64_t> rows(Replay& replay, int64_t step) {
    replay.prepare(step);
    EXPECT_EQ(replay.rows(), 4);
    return replay.batch().index.to_vector<int64_t>();
  }

  Teachers teachers_;
  ReplayContext context_;
  fs::path dir_;
};

TEST_F(PoolReplayTest, APassBeginsAnewWhenThePoolGrows) {
  const auto replay = make_replay(context_);
  EXPECT_EQ(replay->batches_per_pass(), 2);
  const auto first = rows(*replay, 0);
  rows(*replay, 1);
  replay->add(0, made(9));
  EXPECT_EQ(replay->batches_per_pass(), 3);
  // The order of the new pool is its own, and holds the new images.
  std::vector<int64_t> seen, again;
  for (int64_t step = 2; step < 5; ++step)
    for (const int64_t row : rows(*replay, step)) seen.push_back(row);
  std::sort(seen.begin(), seen.end());
  for (int64_t row = 0; row < 12; ++row) EXPECT_EQ(seen[static_cast<size_t>(row)], row);

  // A pool that is saved in the middle of a pass goes on there.
  StageState state;
  rows(*replay, 5);
  save(*replay, state);
  const auto sixth = rows(*replay, 6);
  replay->add(1, made(8));  // after the checkpoint: gone when it is loaded
  const auto resumed = make_replay(context_);
  load(*resumed, state);
  EXPECT_EQ(resumed->batches_per_pass(), 3);
  EXPECT_EQ(rows(*resumed, 6), sixth);
  EXPECT_EQ(ImagePool::open((dir_ / "synth").string()).batches(), 1);
}

TEST_F(PoolReplayTest, WithoutImagesMadeBeforeThePoolIsTheRounds) {
  context_.set = {};
  const auto replay = make_replay(context_);
  replay->add(0, made(9));
  replay->add(1, made(8));
  rows(*replay, 0);
  replay->prepare(0);
  EXPECT_EQ(replay->batch().labels.to_vector<int64_t>().size(), 4u);
}

// Each image as often as its last loss says: 0 for images 0 to 7, 1 for image 8, 3 for image 9.
TEST_F(PoolReplayTest, ImagesAreDrawnInProportionToTheirLastLoss) {
  context_.config.priority = 1;
  const auto replay = make_replay(context_);
  const auto learn = [](Replay& r, int64_t step) {
    const std::vector<int64_t> shown = rows(r, step);
    std::vector<float> losses;
    for (const int64_t row : shown) losses.push_back(row == 9 ? 3.0f : row == 8 ? 1.0f : 0.0f);
    r.learned(Tensor::from(losses, {4}));
    return shown;
  };
  std::map<int64_t, int> count;
  int64_t step = 0;
  for (; step < 100; ++step) learn(*replay, step);  // all have come by then
  for (; step < 500; ++step)
    for (const int64_t row : learn(*replay, step)) ++count[row];
  EXPECT_EQ(count.size(), 2u);
  EXPECT_NEAR(count[9], 1200, 90);  // of 1600; four deviations are 70
  EXPECT_EQ(count[8] + count[9], 1600);

  // In the middle of a pass it goes on with the rows that the pass was drawn with.
  learn(*replay, step++);
  StageState state;
  save(*replay, state);
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  const auto next = learn(*replay, step);
  const auto resumed = make_replay(context_);
  load(*resumed, state);
  EXPECT_EQ(learn(*resumed, step), next);
  // What is new counts as the hardest.
  replay->add(0, made(9));
  count.clear();
  for (int64_t i = 1; i <= 3; ++i)
    for (const int64_t row : rows(*replay, step + i)) ++count[row];
  EXPECT_GT(count[10] + count[11] + count[9], 6);
}

}  // namespace
}  // namespace mtcki
