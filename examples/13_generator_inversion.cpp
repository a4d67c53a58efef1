// Images out of a classifier by way of a generator: a small network maps random latents to images,
// and both are optimised until the frozen teacher recognises the wanted classes and its batch norms
// see their statistics. Compared with 12_deepinversion, which optimises pixels, neighbouring pixels
// agree by themselves, without a prior that asks for it.
//
// Expect: most are recognised as wanted: yes
#include <cstdio>
#include <filesystem>

#include "autograd/functions.h"
#include "data/formats/image_file.h"
#include "data/loader.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/training/evaluate.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/cast.h"
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
  Teachers teachers;
  teachers.add(train_teacher(data::load_dataset({"synth10-gray", "", "train", 2000, 0})));
  Teacher& teacher = teachers[0];

  const int64_t batch = 40, steps = 120;
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < batch; ++i) wanted.push_back(i % 10);
  const Tensor labels = Tensor::from(wanted, {batch});

  nn::Init init(1);
  const nn::GeneratorSpec spec{"cmi", /*nz=*/32, /*ngf=*/8, /*channels=*/1, /*image_size=*/28};
  const auto generator = nn::make_generator(spec, init);
  const Variable latents(randn({batch, spec.nz}, Rng{1, rng_stream("latents"), 0}), true);
  const auto adam = optim::make_adam({optim::group_of(*generator), {{{"latents", latents}}}},
                                     {.lr = 0.01, .beta1 = 0.5});
  BnStatisticsLoss statistics(teachers, BnReduce::sum, 0.0);
  std::vector<Tensor> film;
  Variable images;
  for (int64_t step = 0; step < steps; ++step) {
    adam->zero_grad();
    images = (*generator)(latents);
    const Teacher::View seen = teacher.view(images, Teacher::kBn);
    const Variable bn = statistics.layers(0, seen), cls = cross_entropy(seen.logits, labels);
    (bn + cls).backward();
    adam->step();
    if (step % 30 == 0 || step + 1 == steps) {
      std::printf("step %3d  statistics %7.3f  cross entropy %.3f  total variation %.3f\n",
                  static_cast<int>(step), bn.item(), cls.item(), total_variation(images).item());
      film.push_back(unit_to_u8(images.data().slice(0, 10).plain()));
    }
  }
  const std::string path =
      (std::filesystem::temp_directory_path() / "mtcki_generator_inversion.png").string();
  data::write_png(path, data::image_grid(cat(film), 10));
  std::printf("one row per 30 steps, one column per class: %s\n", path.c_str());
  const double top1 = accuracy(teacher.forward_no_grad(images.data()).logits.data(), labels).top1;
  std::printf("recognised: %.0f %%\n", top1);
  std::printf("most are recognised as wanted: %s\n", top1 > 75 ? "yes" : "no");
}
