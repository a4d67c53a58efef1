// Outputs of teachers that are made once for some views of each image: those of asking at the step.
#include "mtcki/distillation/teacher_outputs.h"

#include <gtest/gtest.h>

#include "autograd/functions.h"
#include "data/sets/synth10.h"
#include "mtcki/distillation/distiller.h"
#include "mtcki/training/batch_source.h"
#include "nn/state_dict.h"

namespace mtcki::teacher_outputs_test {
namespace {

constexpr int64_t kImages = 19, kBatch = 8;  // a pass of two batches; a view ends in one of three

class TeacherOutputsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t m = 0; m < 2; ++m) {
      const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
      nn::Init init(m);
      teachers_.add(
          std::make_unique<Teacher>(Teacher::Options{str("t", m), spec, {{0.5}, {0.5}}, 1.0, -1},
                                    nn::make_classifier(spec, init)));
    }
    config_.batch_size = kBatch;
    config_.pad = 2;
    config_.lr = 0.05;
    config_.ts_queue = 16;
    config_.fuse = Fuse::conf;
  }
  data::LoaderOptions options(int64_t views) {
    config_.views = views;
    return pool_loader(config_, 1, 11);
  }
  // Losses of `steps` steps; teacher MACs in units of one image of all teachers.
  std::vector<double> losses(int64_t views, int64_t steps, double* images_asked) {
    const data::LoaderOptions o = options(views);
    Student student("s", {"vgg8_w0.125", 1, 28, 10}, {{0.5}, {0.25}}, 9);
    Distiller distiller(teachers_, student, config_, steps, 5);
    if (views > 0) distiller.keep_teacher_outputs(pool_, o);
    const std::unique_ptr<Replay> replay = make_replay({pool_, config_, 1, 11});
    std::vector<double> out;
    for (int64_t step = 0; step < steps; ++step)
      for (const auto& [name, value] : distiller.step(*replay, step))
        if (name == "loss") out.push_back(value);
    *images_asked = distiller.budget().kd_forward_macs / teachers_.macs();
    return out;
  }

  const data::ImageSet pool_ = data::make_synth10("train", kImages, 1, 1);
  Teachers teachers_;
  DistillConfig config_;
};

double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double most = x.size() == y.size() ? 0 : 1e9;
  for (size_t i = 0; i < x.size() && i < y.size(); ++i)
    most = std::max(most, std::abs(x[i] - y[i]));
  return most;
}

TEST_F(TeacherOutputsTest, RowsAreTheAnswersToTheImagesOfTheBatch) {
  for (const bool features : {true, false}) {
    config_.mix = features ? data::Mix::none : data::Mix::cutmix;
    const data::LoaderOptions o = options(3);
    KeptTeacherOutputs kept(teachers_, pool_, o, {features});
    BatchSource source(pool_, o);
    for (int64_t step = 0; step < 5 * source.batches_per_pass(); ++step) {
      const data::Batch batch = source.at(step);
      kept.make(step / source.batches_per_pass() % 3);
      const TeacherOutputs got = kept.rows(batch.view_row),
                           want = ask_teachers(teachers_, batch.images, {features});
      ASSERT_EQ(got.logits.size(), 2u);
      ASSERT_EQ(got.features.size(), features ? 2u : 0u);
      for (size_t m = 0; m < 2; ++m) {
        EXPECT_LT(largest_difference(got.logits[m], want.logits[m]), 1e-4) << step;
        if (features) {
          EXPECT_LT(largest_difference(got.features[m], want.features[m]), 1e-4) << step;
        }
      }
    }
  }
}

TEST_F(TeacherOutputsTest, AViewIsMadeOnceAndAlwaysTheSame) {
  const data::LoaderOptions o = options(2);
  KeptTeacherOutputs in_order(teachers_, pool_, o, {true}), resumed(teachers_, pool_, o, {true});
  in_order.make(0);
  in_order.make(1);
  resumed.make(1);  // a run that goes on in the second pass
  resumed.make(0);
  std::vector<int64_t> all(2 * kImages);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int64_t>(i);
  const Tensor rows = Tensor::from(all, {2 * kImages});
  const TeacherOutputs a = in_order.rows(rows), b = resumed.rows(rows);
  for (size_t m = 0; m < 2; ++m) {
    EXPECT_TRUE(identical(a.logits[m], b.logits[m]));
    EXPECT_TRUE(identical(a.features[m], b.features[m]));
  }
  // Nobody is asked again: teachers that have changed would answer otherwise.
  for (auto& [name, t] : teachers_[0].state_dict())
    if (is_floating(t.dtype())) t.fill_(0);
  in_order.make(0);
  EXPECT_TRUE(identical(in_order.rows(rows).logits[0], a.logits[0]));
  EXPECT_GT(
      largest_difference(ask_teachers(teachers_, BatchSource(pool_, o).at(0).images, {}).logits[0],
                         in_order.rows(rows).logits[0].slice(0, kBatch)),
      1e-3);
}

// By hand: a batch norm in train mode gives what a copy of the network in train mode gives, and the
// teacher is the same to the bit afterwards.
TEST_F(TeacherOutputsTest, BatchStatisticsAreThoseOfTheImagesAlone) {
  const Tensor images = BatchSource(pool_, options(1)).at(0).images;
  const Tensor before = ask_teachers(teachers_, images, {}).logits[0].clone();
  std::vector<Tensor> state;
  for (const auto& [name, t] : teachers_[0].state_dict()) state.push_back(t.clone());
  const Tensor got = ask_teachers(teachers_, images, {false, true}).logits[0],
               half = ask_teachers(teachers_, images.slice(0, kBatch / 2), {false, true}).logits[0];
  size_t i = 0;
  for (const auto& [name, t] : teachers_[0].state_dict())
    EXPECT_TRUE(identical(t, state[i++])) << name;
  EXPECT_TRUE(identical(ask_teachers(teachers_, images, {}).logits[0], before));
  EXPECT_GT(largest_difference(got, before), 1e-3);
  EXPECT_GT(largest_difference(half, got.slice(0, kBatch / 2)), 1e-4)
      << "other images, other labels";
  nn::Init init(0);
  const auto copy = nn::make_classifier(teachers_[0].options().spec, init);
  copy->load_state_dict(teachers_[0].state_dict());
  copy->train();
  const NoGradScope no_grad;
  const Variable unit =
      normalize_channels(Variable(images), teachers_[0].options().normalization.mean_tensor(),
                         teachers_[0].options().normalization.std_tensor());
  EXPECT_LT(largest_difference((*copy)(unit).data(), got), 1e-4);
}

// With a view for every pass, training sees what it sees with fresh views.
TEST_F(TeacherOutputsTest, DistillationWithAViewForEveryPassIsThatWithFreshOnes) {
  constexpr int64_t kPasses = 3, kSteps = 2 * kPasses;
  double asked_fresh = 0, asked = 0, asked_twice = 0;
  const std::vector<double> fresh = losses(0, kSteps, &asked_fresh),
                            kept = losses(kPasses, kSteps, &asked),
                            fewer = losses(1, kSteps, &asked_twice);
  ASSERT_EQ(fresh.size(), static_cast<size_t>(kSteps));
  for (size_t i = 0; i < fresh.size(); ++i) EXPECT_NEAR(kept[i], fresh[i], 1e-3 * fresh[i]) << i;
  EXPECT_NEAR(fewer[0], fresh[0], 1e-3 * fresh[0]);
  EXPECT_GT(std::abs(fewer[2] - fresh[2]), 1e-3 * fresh[2]) << "another view in the second pass";
  EXPECT_DOUBLE_EQ(asked_fresh, kSteps * kBatch);
  EXPECT_DOUBLE_EQ(asked, kPasses * kImages);
  EXPECT_DOUBLE_EQ(asked_twice, kImages);
}

}  // namespace
}  // namespace mtcki::teacher_outputs_test
