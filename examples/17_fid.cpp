// How far one set of images is from another: the Fréchet distance between Gaussians in a
// classifier's feature space, the formula of FID with a classifier of one's own in place of
// Inception. More damage must give a larger distance, and the distance between two halves of the
// same set says what "zero" is for this number of images.
//
// Expect: distances grow with the damage: yes
#include <cstdio>

#include "autograd/functions.h"
#include "data/loader.h"
#include "mtcki/evaluation/metrics.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"

using namespace mtcki;

namespace {

std::unique_ptr<Teacher> train_classifier(const data::ImageSet& train) {
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
  return std::make_unique<Teacher>(Teacher::Options{"held out", spec, train.normalization, 1.0, -1},
                                   std::move(net));
}

// The images with noise of this strength, in units of the range of a pixel.
data::ImageSet noisy(data::ImageSet set, double strength) {
  const Tensor unit = u8_to_unit(set.images);
  const Tensor noise = randn(unit.shape(), Rng{17, rng_stream("noise"), 0});
  set.images = unit_to_u8(clamp(add(unit, mul(noise, strength)), 0.0, 1.0));
  return set;
}

data::ImageSet rows(data::ImageSet set, int64_t begin, int64_t end) {
  set.images = set.images.slice(begin, end);
  set.labels = set.labels.slice(begin, end);
  return set;
}

}  // namespace

int main() {
  const int64_t n = 1000;
  const auto judge = train_classifier(data::load_dataset({"synth10-gray", "", "train", 2000, 0}));
  const data::ImageSet test = data::load_dataset({"synth10-gray", "", "test", 2 * n, 0});
  const data::ImageSet first = rows(test, 0, n), second = rows(test, n, 2 * n);
  const FeatureStatistics real = feature_statistics(describe(*judge, first, n).features);

  double before = -1;
  bool grows = true;
  std::printf("%-26s %10s %10s\n", "against 1000 real images", "distance", "score");
  for (const double strength : {0.0, 0.1, 0.3, 1.0}) {
    const Described seen = describe(*judge, noisy(second, strength), n);
    const double distance = frechet_distance(real, feature_statistics(seen.features));
    std::printf("%d others, noise %.1f %14.3f %10.2f\n", static_cast<int>(n), strength, distance,
                inception_score(seen.logits));
    grows = grows && distance > before;
    before = distance;
  }
  std::printf("distances grow with the damage: %s\n", grows ? "yes" : "no");
}
