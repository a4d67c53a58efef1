// Judges exercise 12: the loss, then the whole idea in seconds: two teachers are inverted into 400
// images, and a student that never sees anything else learns from them.
#include <cstdio>

#include "course/checks/judge.h"
#include "course/checks/small_teacher.h"
#include "mtcki/losses/bn_statistics_loss.h"
#include "mtcki/losses/class_prior.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/losses/image_prior.h"
#include "mtcki/synthesis/views.h"
#include "mtcki/training/evaluate.h"
#include "tensor/ops/cast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/softmax.h"

namespace mtcki::course {

namespace {

void loss(Judge& judge) {
  // One teacher sure of class 0 by two logits, a student that does not know.
  const Tensor z = Tensor::from(std::vector<float>{2, 0}, {1, 2});
  const Variable s(Tensor::zeros({1, 2}), true);
  const Variable at_1 = distillation_loss({z}, {1}, s, 1);
  judge.equal("z = (2 0), s = (0 0), T = 1", at_1.item(), 0.327813, 1e-5);
  judge.equal("T = 4: T² KL", distillation_loss({z}, {1}, s, 4).item(), 0.484798, 1e-5);
  at_1.backward();
  judge.close("its gradient is T (q - p): (-0.3808 0.3808)", s.grad(),
              Tensor::from(std::vector<float>{-0.380797f, 0.380797f}, {1, 2}));

  const std::vector<Tensor> teachers{randn({5, 4}, Rng{12, 1, 0}), randn({5, 4}, Rng{12, 2, 0})};
  const Variable student(randn({5, 4}, Rng{12, 3, 0}), true);
  judge.equal("two teachers as the library's fused_kd has them",
              distillation_loss(teachers, {0.75, 0.25}, student, 3).item(),
              fused_kd(fused_targets(Fuse::mean, teachers, {0.75, 0.25}, 3, {}), student, 3).item(),
              1e-4);
}

// A batch of 80 images in [0,1] that both teachers recognise and whose statistics they know.
Tensor invert(Teachers& teachers, BnStatisticsLoss& statistics, uint64_t number) {
  std::vector<int64_t> wanted;
  for (int64_t i = 0; i < 80; ++i) wanted.push_back(i % 10);
  const Tensor labels = Tensor::from(wanted, {80});
  Variable images(rand({80, 1, 28, 28}, Rng{12, 4, number}), true);
  const auto adam = optim::make_adam({{{{"images", images}}}}, {.lr = 0.05, .beta1 = 0.5});
  for (int step = 0; step < 50; ++step) {
    adam->zero_grad();
    Variable total = 0.5 * total_variation(images);
    for (size_t m = 0; m < teachers.size(); ++m) {
      const Teacher::View seen = teachers[m].view(images, Teacher::kBn);
      total = total + statistics.layers(m, seen) + cross_entropy(seen.logits, labels);
    }
    total.backward();
    adam->step();
    images.set_data(clamp(images.data(), 0.0, 1.0));
  }
  return images.data();
}

void without_data(Judge& judge) {
  const data::ImageSet train = data::load_dataset({"synth10-gray", "", "train", 2000, 0});
  const data::ImageSet test = data::load_dataset({"synth10-gray", "", "test", 500, 0});
  Teachers teachers;
  teachers.add(small_teacher("vgg8_w0.125", train, 1));
  teachers.add(small_teacher("vgg11_w0.125", train, 2));
  BnStatisticsLoss statistics(teachers, BnReduce::sum, 0.0);
  std::vector<Tensor> made;
  for (uint64_t batch = 0; batch < 5; ++batch) made.push_back(invert(teachers, statistics, batch));
  const Tensor images = cat(made);

  Student student("student", {"vgg8_w0.125", 1, 28, 10}, train.normalization, 3);
  const auto sgd = optim::make_sgd(student.net(), {.lr = 0.05, .momentum = 0.9});
  student.net().train();
  const int64_t batch = 50, batches = images.size(0) / batch;
  for (int64_t step = 0; step < 40 * batches; ++step) {
    const Tensor order =
        randperm(images.size(0), Rng{12, 5, static_cast<uint64_t>(step / batches)});
    const int64_t first = step % batches * batch;
    // Shifted by up to three pixels, anew each time: a few hundred images are not many.
    const ViewParameters shifts =
        draw_views(batch, 28, 28, 3, false, 0.5, Rng{12, 6, static_cast<uint64_t>(step)});
    const Tensor seen =
        global_view(index_select(images, order.slice(first, first + batch)), shifts, 3).data();
    sgd->zero_grad();
    distillation_loss({teachers[0].forward_no_grad(seen).logits.data(),
                       teachers[1].forward_no_grad(seen).logits.data()},
                      {0.5, 0.5}, student.features(seen).logits, 4)
        .backward();
    sgd->step();
  }
  const double a = evaluate(teachers[0], test).top1, b = evaluate(teachers[1], test).top1;
  const double c = evaluate(student, test).top1;
  std::printf("       teachers %.1f and %.1f %%, the student %.1f %% (chance: 10 %%)\n", a, b, c);
  judge.check("the student, which saw no real image, is far above chance", c > 35);
}

void check(Judge& judge) {
  loss(judge);
  without_data(judge);
}

const Chapter chapter(12, "Distillation without data", check);

}  // namespace

}  // namespace mtcki::course
