// One training step as bench/baseline_torch.py does it: forward, cross entropy, backward, SGD with
// momentum 0.9 and weight decay 5e-4, on random 3x32x32 images. Prints one line of JSON.
#include "autograd/functions.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "step_common.h"

int main(int argc, char** argv) {
  using namespace mtcki;
  try {
    const bench::StepArguments a = bench::parse(argc, argv, "wrn16_1");
    const size_t resident_before = bench::resident_bytes();
    nn::Init init(0);
    nn::ModelSpec spec;
    spec.name = a.model;
    const auto net = nn::make_classifier(spec, init);
    optim::SgdOptions options;
    options.lr = 0.01, options.momentum = 0.9, options.weight_decay = 5e-4;
    const auto optimizer = optim::make_sgd({optim::group_of(*net)}, options);
    const Tensor x = randn({a.batch, 3, 32, 32}, Rng{0, rng_stream("bench/images"), 0});
    const Tensor y = randint(0, 10, {a.batch}, Rng{0, rng_stream("bench/labels"), 0});
    bench::measure("training_step", a, resident_before, [&] {
      optimizer->zero_grad();
      const Variable loss = cross_entropy((*net)(x), y);
      loss.backward();
      optimizer->step();
      return loss.item();
    });
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
}
