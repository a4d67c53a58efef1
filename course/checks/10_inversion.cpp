// Judges exercise 10: the loss on small numbers and against the library's, then an inversion.
#include <cstdio>

#include "course/checks/judge.h"
#include "course/checks/small_teacher.h"
#include "mtcki/training/evaluate.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::course {

namespace {

void by_hand(Judge& judge) {
  // One channel with the values 1 3 5 7: mean 4, variance 5. The layer remembers mean 1, variance 1.
  nn::BatchNorm2d norm(1);
  norm.running_mean.fill_(1);
  norm.running_var.fill_(1);
  const Variable x(Tensor::from(std::vector<float>{1, 3, 5, 7}, {4, 1, 1, 1}), true);
  const Variable loss = statistics_loss({x}, {&norm});
  judge.equal("|4 - 1| + |5 - 1|", loss.item(), 7);
  loss.backward();
  judge.close("its gradient: 1/n + 2 (x - mean)/n", x.grad(),
              Tensor::from(std::vector<float>{-1.25f, -0.25f, 0.75f, 1.75f}, {4, 1, 1, 1}));

  nn::BatchNorm2d wide(3);
  const Variable y(randn({5, 3, 4, 4}, Rng{10, 1, 0}), true);
  const double known = bn_statistics(y, wide.running_mean, wide.running_var).item();
  judge.equal("as the library's bn_statistics has it", statistics_loss({y}, {&wide}).item(), known,
              1e-4);
  judge.equal("two layers add up", statistics_loss({x, y}, {&norm, &wide}).item(), 7 + known, 1e-4);
}

void inversion(Judge& judge) {
  const data::ImageSet train = data::load_dataset({"synth10-gray", "", "train", 2000, 0});
  const auto teacher = small_teacher("vgg8_w0.125", train, 0);
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < 40; ++i) wanted.push_back(i % 10);
  const Tensor labels = Tensor::from(wanted, {40});

  Variable images(rand({40, 1, 28, 28}, Rng{1, 2, 3}), true);
  const auto adam = optim::make_adam({{{{"images", images}}}}, {.lr = 0.05, .beta1 = 0.5});
  double first = 0, last = 0;
  for (int step = 0; step < 100; ++step) {
    adam->zero_grad();
    const Teacher::View seen = teacher->view(images, Teacher::kBn);
    const Variable statistics = statistics_loss(seen.bn_inputs, teacher->batch_norms());
    (statistics + cross_entropy(seen.logits, labels)).backward();
    adam->step();
    images.set_data(clamp(images.data(), 0.0, 1.0));
    last = statistics.item();
    if (step == 0) first = last;
  }
  const double top1 = accuracy(teacher->forward_no_grad(images.data()).logits.data(), labels).top1;
  std::printf("       noise became images: statistics %.1f to %.1f, %.0f %% recognised as wanted\n",
              first, last, top1);
  judge.check("100 steps halved the statistics loss", last < 0.5 * first);
  judge.check("the teacher recognises most as what was wanted", top1 > 75);
}

void check(Judge& judge) {
  by_hand(judge);
  inversion(judge);
}

const Chapter chapter(10, "Inverting a classifier", check);

}  // namespace

}  // namespace mtcki::course
