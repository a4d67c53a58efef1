// profile: where the time of a step goes.
#include <chrono>
#include <cstdio>
#include <functional>

#include "autograd/functions.h"
#include "data/atomic_file.h"
#include "mtcki/cli/commands.h"
#include "mtcki/profile_report.h"
#include "nn/feature_tap.h"
#include "nn/models/model.h"
#include "optim/optimizer.h"
#include "tensor/allocator.h"
#include "tensor/context.h"
#include "tensor/parallel.h"
#include "tensor/rng.h"

namespace mtcki::cli {

namespace {

// The step to measure, with everything it needs kept alive inside.
using Step = std::function<void()>;

Step eval_step(const std::shared_ptr<nn::Classifier>& net, const Tensor& x) {
  net->eval();
  return [net, x] {
    const NoGradScope no_grad;
    const StageScope stage("forward");
    (*net)(x);
  };
}

Step train_step(const std::shared_ptr<nn::Classifier>& net, const Tensor& x, const Tensor& y) {
  optim::SgdOptions o;
  o.momentum = 0.9;
  o.weight_decay = 5e-4;
  const std::shared_ptr<optim::Optimizer> sgd = optim::make_sgd({optim::group_of(*net)}, o);
  return [net, x, y, sgd] {
    sgd->zero_grad();
    Variable loss;
    {
      const StageScope stage("forward");
      loss = cross_entropy((*net)(x), y);
    }
    {
      const StageScope stage("backward");
      loss.backward();
    }
    const StageScope stage("update");
    sgd->step();
  };
}

Step inversion_step(const std::shared_ptr<nn::Classifier>& teacher, const ProfileOptions& o,
                    const Tensor& x, const Tensor& y) {
  {  // Running statistics with some content.
    const NoGradScope no_grad;
    for (int i = 0; i < 2; ++i) (*teacher)(x);
  }
  teacher->eval();
  teacher->set_requires_grad(false);
  nn::Init init(0);
  nn::GeneratorSpec spec;
  spec.channels = o.channels;
  spec.image_size = o.size;
  const std::shared_ptr<nn::Generator> generator = nn::make_generator(spec, init);
  const Variable z(randn({o.batch, spec.nz}, Rng{0, rng_stream("profile/latents"), 0}), true);
  optim::ParameterGroup latents;
  latents.parameters.emplace_back("z", z);
  optim::AdamOptions adam_options;
  adam_options.beta1 = 0.5;
  const std::shared_ptr<optim::Optimizer> adam =
      optim::make_adam({optim::group_of(*generator), latents}, adam_options);
  const std::vector<nn::BatchNorm2d*> norms = teacher->batch_norms();
  const auto tap = std::make_shared<nn::FeatureTap>(norms);
  return [teacher, generator, z, y, adam, norms, tap] {
    adam->zero_grad();
    Variable images, loss;
    {
      const StageScope stage("generator");
      images = (*generator)(z);
    }
    {
      const StageScope stage("teacher");
      loss = cross_entropy((*teacher)(images), y);
    }
    {
      const StageScope stage("statistics");
      const std::vector<Variable> inputs = tap->take();
      for (size_t i = 0; i < inputs.size(); ++i)
        loss = add(loss, bn_statistics(inputs[i], norms[i]->running_mean, norms[i]->running_var));
    }
    {
      const StageScope stage("backward");
      loss.backward();
    }
    const StageScope stage("update");
    adam->step();
  };
}

}  // namespace

int profile_command(const ProfileOptions& o) {
  apply(o.compute);
  nn::Init init(0);
  nn::ModelSpec spec;
  spec.name = o.model;
  spec.in_channels = o.channels;
  spec.image_size = o.size;
  spec.num_classes = o.classes;
  const std::shared_ptr<nn::Classifier> net = nn::make_classifier(spec, init);
  const Tensor x =
      randn({o.batch, o.channels, o.size, o.size}, Rng{0, rng_stream("profile/images"), 0});
  const Tensor y = randint(0, o.classes, {o.batch}, Rng{0, rng_stream("profile/labels"), 0});
  const Step step = o.mode == "eval"        ? eval_step(net, x)
                    : o.mode == "inversion" ? inversion_step(net, o, x, y)
                                            : train_step(net, x, y);
  for (int i = 0; i < 2; ++i) step();

  using Clock = std::chrono::steady_clock;
  const auto seconds = [&](int64_t n) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < n; ++i) step();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  // Once without the profiler, so that its own cost shows.
  const double plain = seconds(o.steps);
  reset_peak_memory();
  profiler::start();
  const double wall = seconds(o.steps);
  profiler::stop();
  const std::vector<profiler::Event> events = profiler::events();

  const double n = static_cast<double>(o.steps);
  std::printf(
      "%s, %s step, batch %lld, %lldx%lldx%lld, f32, %d threads: %.3f ms, %.0f img/s, peak "
      "memory %s\n",
      o.model.c_str(), o.mode.c_str(), static_cast<long long>(o.batch),
      static_cast<long long>(o.channels), static_cast<long long>(o.size),
      static_cast<long long>(o.size), num_threads(), 1e3 * plain / n,
      static_cast<double>(o.batch) * n / plain, human_bytes(memory_stats().peak).c_str());
  std::printf("while profiling: %.3f ms per step (mean of %lld)\n\n", 1e3 * wall / n,
              static_cast<long long>(o.steps));
  const double wall_us = wall * 1e6;
  for (const auto& [by, title] :
       {std::pair{CostBy::op, "by op"}, std::pair{CostBy::module, "by module"},
        std::pair{CostBy::stage, "by stage"}})
    std::printf("%s\n", cost_text(cost_table(events, by), title, wall_us, o.steps, o.rows).c_str());
  if (!o.csv.empty()) data::write_file_atomic(o.csv, cost_csv(events, wall_us, o.steps));
  if (!o.trace.empty()) {
    data::write_file_atomic(o.trace, chrome_trace(events));
    std::printf("trace: %s (open in ui.perfetto.dev or chrome://tracing)\n", o.trace.c_str());
  }
  return 0;
}

}  // namespace mtcki::cli
