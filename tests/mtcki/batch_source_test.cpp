// What training and distillation share: the batch of any step, and SGD with its schedule, clipping and
// average around a network.
#include "mtcki/training/batch_source.h"

#include <gtest/gtest.h>

#include <set>

#include "autograd/functions.h"
#include "data/sets/synth10.h"
#include "mtcki/training/sgd_trainer.h"
#include "nn/models/model.h"
#include "nn/state_dict.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki {
namespace {

data::LoaderOptions options(int64_t batch) {
  data::LoaderOptions o;
  o.batch_size = batch;
  o.pad = 2;
  o.flip = true;
  o.seed = 5;
  return o;
}

TEST(BatchSource, AnyStepHasItsBatch) {
  const data::ImageSet set = data::make_synth10("train", 21, 1, 1);
  BatchSource in_order(set, options(8)), jumping(set, options(8));
  ASSERT_EQ(in_order.batches_per_pass(), 2);
  std::vector<data::Batch> batches;
  for (int64_t step = 0; step < 6; ++step) batches.push_back(in_order.at(step));
  for (const int64_t step : {3, 4, 0, 5, 5}) {
    const data::Batch b = jumping.at(step), &want = batches[static_cast<size_t>(step)];
    EXPECT_EQ(jumping.rows(), 8);
    EXPECT_TRUE(identical(b.images, want.images)) << step;
    EXPECT_TRUE(identical(b.labels, want.labels)) << step;
  }
  // A pass shows an image at most once, and every pass has its own order.
  std::set<int64_t> rows;
  for (int64_t step = 0; step < 2; ++step)
    for (const int64_t row : batches[static_cast<size_t>(step)].index.to_vector<int64_t>())
      EXPECT_TRUE(rows.insert(row).second);
  EXPECT_FALSE(identical(batches[0].index, batches[2].index));
}

TEST(BatchSource, ASmallSetIsOneShortBatchAndAnEmptyOneIsRefused) {
  BatchSource source(data::make_synth10("train", 3, 1, 1), options(8));
  EXPECT_EQ(source.batches_per_pass(), 1);
  EXPECT_EQ(source.at(4).images.size(0), 3);
  EXPECT_EQ(source.rows(), 3);
  EXPECT_THROW(BatchSource(data::ImageSet(), options(8)), DataError);
}

// One parameter w = 1 with gradient 1, so that every number is known.
struct One : nn::Module {
  One() : w(register_parameter("w", Tensor::full({1}, 1.0))) {}
  std::string kind() const override { return "One"; }
  Variable forward(const Variable& x) override { return mul(x, w); }
  Variable& w;
};

double step(SgdTrainer& trainer, One& net, int64_t number, double gradient = 1.0,
            Values* logged = nullptr) {
  trainer.prepare(number);
  trainer.zero_grad();
  sum(net(Variable(Tensor::full({1}, gradient)))).backward();
  MetricRing values;
  trainer.update(values);
  values.commit(number);
  if (logged) *logged = values.read();
  return net.w.data().item();
}

TEST(SgdTrainer, FollowsTheScheduleAndClips) {
  One net;
  const SgdConfig sgd{.momentum = 0, .weight_decay = 0, .clip_norm = 0.5};
  SgdTrainer trainer(net, {optim::group_of(net)}, sgd, schedule_of(sgd, 1, 2));
  Values logged;  // of norm 4, clipped to 0.5
  EXPECT_NEAR(step(trainer, net, 0, 4.0, &logged), 1 - 0.1 * 0.5, 1e-5);
  ASSERT_EQ(logged.size(), 1u);
  EXPECT_EQ(logged[0].first, "grad_norm");
  EXPECT_NEAR(logged[0].second, 4, 1e-5);
  EXPECT_NEAR(trainer.lr(), 0.1, 1e-12);
  EXPECT_NEAR(step(trainer, net, 1, 0.25), 0.95 - 0.05 * 0.25, 1e-5);  // half way along the cosine
  EXPECT_NEAR(trainer.lr(), 0.05, 1e-12);
}

TEST(SgdTrainer, TheAverageIsWhatCountsAndTrainingGoesOnWithTheWeights) {
  One net;
  const SgdConfig sgd{
      .lr = 0.5, .momentum = 0, .weight_decay = 0, .schedule = "constant", .ema = 0.5};
  const optim::Schedule schedule = schedule_of(sgd, 1, 1);
  SgdTrainer trainer(net, {optim::group_of(net)}, sgd, schedule);
  const double one = step(trainer, net, 0), two = step(trainer, net, 1);
  EXPECT_NEAR(one, 0.5, 1e-6);
  EXPECT_NEAR(two, 0.0, 1e-6);
  StageState state;
  save(trainer, state);
  for (auto& [name, tensor] : state.tensors) tensor = tensor.clone();
  const double average =
      trainer.with_final_weights([&] { return static_cast<double>(net.w.data().item()); });
  EXPECT_GT(average, two);
  EXPECT_LT(average, 1.0);
  EXPECT_EQ(net.w.data().item(), two);

  One other;
  SgdTrainer resumed(other, {optim::group_of(other)}, sgd, schedule);
  other.load_state_dict(net.state_dict());
  load(resumed, state);
  EXPECT_EQ(resumed.with_final_weights([&] { return other.w.data().item(); }), average);
  EXPECT_EQ(step(resumed, other, 2), step(trainer, net, 2));
}

}  // namespace
}  // namespace mtcki
