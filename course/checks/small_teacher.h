// A teacher that is trained in seconds, on the procedural set of shapes; for chapters 10 and 12.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "autograd/functions.h"
#include "data/loader.h"
#include "mtcki/networks/teacher.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"

namespace mtcki::course {

inline std::unique_ptr<Teacher> small_teacher(const std::string& model, const data::ImageSet& train,
                                              uint64_t seed) {
  const nn::ModelSpec spec{model, 1, 28, 10};
  nn::Init init(seed);
  auto net = nn::make_classifier(spec, init);
  data::LoaderOptions options;
  options.batch_size = 50;
  options.normalization = train.normalization;
  options.seed = seed;
  data::Loader loader(train, options);
  const auto sgd = optim::make_sgd(*net, {.lr = 0.05, .momentum = 0.9});
  optim::Schedule schedule;
  schedule.base_lr = 0.1;
  schedule.total_steps = 5 * loader.batches_per_epoch();
  for (int64_t epoch = 0, step = 0; epoch < 5; ++epoch) {
    for (const data::Batch& batch : loader.epoch(epoch)) {
      sgd->set_lr(schedule.at(step++));
      sgd->zero_grad();
      cross_entropy((*net)(batch.images), batch.labels).backward();
      sgd->step();
    }
  }
  return std::make_unique<Teacher>(Teacher::Options{model, spec, train.normalization, 1.0, -1},
                                   std::move(net));
}

}  // namespace mtcki::course
