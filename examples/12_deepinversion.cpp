// Images out of a trained classifier, without any image: pixels are optimised until every batch
// norm of the frozen teacher sees the statistics that it saw in training, and until the teacher
// recognises the wanted class (Yin et al. 2020). No generator, no contrast: the core of the method
// alone.
//
// Expect: statistics loss more than halved: yes
#include <cstdio>
#include <filesystem>

#include "autograd/functions.h"
#include "data/formats/image_file.h"
#include "data/loader.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/synthesis/views.h"
#include "mtcki/training/evaluate.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

using namespace mtcki;

// A small teacher, trained for five epochs on the procedural set.
std::unique_ptr<Teacher> train_teacher(const data::ImageSet& train) {
  const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
  nn::Init init(0);
  auto net = nn::make_classifier(spec, init);
  data::LoaderOptions options;
  options.batch_size = 50;
  options.normalization = train.normalization;
  data::Loader loader(train, options);
  const auto sgd = optim::make_sgd(*net, {.lr = 0.1, .momentum = 0.9});
  optim::Schedule schedule;  // cosine, from 0.1 to 0
  schedule.total_steps = 5 * loader.batches_per_epoch();
  for (int64_t epoch = 0, step = 0; epoch < 5; ++epoch) {
    for (const data::Batch& batch : loader.epoch(epoch)) {
      sgd->set_lr(schedule.at(step++));
      sgd->zero_grad();
      cross_entropy((*net)(batch.images), batch.labels).backward();
      sgd->step();
    }
  }
  return std::make_unique<Teacher>(Teacher::Options{"teacher", spec, train.normalization, 1.0, -1},
                                   std::move(net));
}

int main() {
  const data::ImageSet train = data::load_dataset({"synth10-gray", "", "train", 2000, 0});
  const data::ImageSet test = data::load_dataset({"synth10-gray", "", "test", 500, 0});
  Teachers teachers;
  teachers.add(train_teacher(train));
  Teacher& teacher = teachers[0];
  std::printf("teacher: %.1f %% on real test images\n", evaluate(teacher, test).top1);

  const int64_t batch = 40, steps = 100;
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < batch; ++i) wanted.push_back(i % 10);
  const Tensor labels = Tensor::from(wanted, {batch});

  BnStatisticsLoss statistics(teachers, BnReduce::sum, 0.0);
  Variable images(rand({batch, 1, 28, 28}, Rng{1, 2, 3}), true);  // noise to begin with
  const auto adam = optim::make_adam({{{{"images", images}}}}, {.lr = 0.05, .beta1 = 0.5});
  std::vector<Tensor> film;
  double first = 0, last = 0;
  for (int64_t step = 0; step < steps; ++step) {
    adam->zero_grad();
    const ViewParameters views = draw_views(
        batch, 28, 28, 2, false, 0.25, Rng{1, rng_stream("views"), static_cast<uint64_t>(step)});
    const Teacher::View seen = teacher.view(global_view(images, views, 2), Teacher::kBn);
    const Variable bn = statistics.layers(0, seen);
    const Variable loss =
        bn + class_prior_each({seen.logits}, {1.0}, labels) + 0.5 * total_variation(images);
    last = bn.item();
    if (step == 0) first = last;
    loss.backward();
    adam->step();
    images.set_data(clamp(images.data(), 0.0, 1.0));  // pixels stay pixels
    if (step % 25 == 0 || step + 1 == steps) {
      std::printf("step %3d  statistics %7.3f  total variation %.3f\n", static_cast<int>(step),
                  last, total_variation(images).item());
      film.push_back(unit_to_u8(images.data().slice(0, 10)));
    }
  }
  const std::string path =
      (std::filesystem::temp_directory_path() / "mtcki_deepinversion.png").string();
  data::write_png(path, data::image_grid(cat(film), 10));
  std::printf("one row per 25 steps, one column per class: %s\n", path.c_str());
  std::printf("recognised as wanted: %.0f %%\n",
              accuracy(teacher.forward_no_grad(images.data()).logits.data(), labels).top1);
  std::printf("statistics loss more than halved: %s\n", last < 0.5 * first ? "yes" : "no");
}
