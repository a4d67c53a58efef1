// A network from the registry, a few steps of training, and its accuracy as a frozen teacher: one
// call into each of the installed libraries.
#include <cstdio>

#include "mtcki.h"
#include "mtcki/networks/teacher.h"
#include "mtcki/training/evaluate.h"

using namespace mtcki;

int main() {
  const data::ImageSet train = data::load_dataset({"synth10-gray", "", "train", 500, 0});
  const data::ImageSet test = data::load_dataset({"synth10-gray", "", "test", 200, 0});
  const nn::ModelSpec spec{"vgg8_w0.125", 1, 28, 10};
  nn::Init init(0);
  auto net = nn::make_classifier(spec, init);

  data::LoaderOptions options;
  options.batch_size = 50;
  options.normalization = train.normalization;
  data::Loader loader(train, options);
  const auto sgd = optim::make_sgd(*net, {.lr = 0.05, .momentum = 0.9});
  float first = 0, last = 0;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    for (const data::Batch& batch : loader.epoch(epoch)) {
      sgd->zero_grad();
      const Variable loss = cross_entropy((*net)(batch.images), batch.labels);
      loss.backward();
      sgd->step();
      last = static_cast<float>(loss.item());
      if (first == 0) first = last;
    }
  }
  Teacher teacher({"teacher", spec, train.normalization, 1.0, -1}, std::move(net));
  std::printf("loss %.2f to %.2f, top-1 %.1f %%\n", first, last, evaluate(teacher, test).top1);
  std::printf("learned: %s\n", last < first ? "yes" : "no");
  return 0;
}
