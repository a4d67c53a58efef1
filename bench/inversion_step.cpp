// One inversion step as bench/baseline_torch.py does it: generator (256 -> 3x32x32, 64 base
// channels) in train mode, frozen teacher in eval mode, BN-statistics loss over all its batch norms
// + cross entropy, backward to latents and generator, Adam. --model names the teacher. Prints one
// line of JSON.
#include "autograd/functions.h"
#include "nn/feature_tap.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "step_common.h"

int main(int argc, char** argv) {
  using namespace mtcki;
  try {
    const bench::StepArguments a = bench::parse(argc, argv, "wrn40_2");
    const size_t resident_before = bench::resident_bytes();
    nn::Init init(0);
    nn::ModelSpec spec;
    spec.name = a.model;
    const auto teacher = nn::make_classifier(spec, init);
    {  // Two passes in train mode give the running statistics some content.
      const NoGradScope no_grad;
      const Tensor x = randn({a.batch, 3, 32, 32}, Rng{0, rng_stream("bench/images"), 0});
      for (int i = 0; i < 2; ++i) (*teacher)(x);
    }
    teacher->eval();
    teacher->set_requires_grad(false);
    const auto generator = nn::make_generator({}, init);
    Variable z(randn({a.batch, generator->nz()}, Rng{0, rng_stream("bench/latents"), 0}), true);
    const Tensor y = randint(0, 10, {a.batch}, Rng{0, rng_stream("bench/labels"), 0});

    optim::ParameterGroup latents;
    latents.parameters.emplace_back("z", z);
    optim::AdamOptions options;
    options.lr = 1e-3, options.beta1 = 0.5;
    const auto optimizer = optim::make_adam({optim::group_of(*generator), latents}, options);
    const std::vector<nn::BatchNorm2d*> norms = teacher->batch_norms();
    nn::FeatureTap tap(norms);
    bench::measure("inversion_step", a, resident_before, [&] {
      optimizer->zero_grad();
      Variable loss = cross_entropy((*teacher)((*generator)(z)), y);
      const std::vector<Variable> inputs = tap.take();
      for (size_t i = 0; i < inputs.size(); ++i)
        loss = add(loss, bn_statistics(inputs[i], norms[i]->running_mean, norms[i]->running_var));
      loss.backward();
      optimizer->step();
      return loss.item();
    });
  } catch (const Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  }
}
