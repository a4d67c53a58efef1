#include "mtcki/run/overfit.h"

#include <fmt/format.h>

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/run/context.h"
#include "mtcki/training/batch_source.h"
#include "mtcki/training/sgd_trainer.h"
#include "tensor/error.h"

namespace mtcki {

namespace {

Overfit overfit(const std::string& name, const nn::ModelSpec& spec, const data::Batch& batch,
                const RunContext& run) {
  nn::Init init(run.config().seed);
  init.rng.stream = rng_stream(name.c_str());
  const auto net = nn::make_classifier(spec, init);
  net->to(run.compute().device);
  net->set_precision(run.compute().precision);
  net->train();
  TrainConfig c = run.config().train;
  c.weight_decay = c.ema = 0;
  optim::Schedule schedule;
  schedule.kind = "constant";
  schedule.base_lr = c.lr;
  SgdTrainer trainer(*net, {optim::group_of(*net)}, c, schedule);
  MetricRing ring;
  Overfit out{name};
  for (;; ++out.steps) {
    trainer.prepare(out.steps);
    trainer.zero_grad();
    const Variable loss = cross_entropy((*net)(Variable(batch.images)), batch.labels);
    out.last = loss.item();
    if (out.steps == 0) out.first = out.last;
    out.reached = out.last <= kOverfitLoss;
    if (out.reached || out.steps == kOverfitSteps || !std::isfinite(out.last)) return out;
    loss.backward();
    trainer.update(ring);
    ring.drop();
  }
}

}  // namespace

std::vector<Overfit> overfit_batch(const RunConfig& config) {
  if (config.data.is_none()) throw UsageError("--overfit-batch: needs training images");
  RunContext run(config, "");
  const data::LoaderOptions options{.batch_size = config.train.batch_size,
                                    .pad = 0,
                                    .flip = false,
                                    .threads = 0,
                                    .seed = config.seed,
                                    .normalization = run.default_normalization()};
  const data::Batch batch = BatchSource(run.train(), options, run.compute().device).at(0);
  std::vector<Overfit> out;
  for (const TeacherConfig& t : config.teachers)
    if (t.weights.empty())
      out.push_back(overfit("teacher/" + RunContext::name(t), run.spec(t.model), batch, run));
  for (const StudentConfig& s : config.students)
    out.push_back(overfit("student/" + RunContext::name(s), run.spec(s.model), batch, run));
  return out;
}

std::string overfit_table(const std::vector<Overfit>& networks) {
  std::string out;
  for (const Overfit& o : networks)
    out += fmt::format(
        "{:<24} loss {:.4g} -> {:.4g} in {} steps: {}\n", o.name, o.first, o.last, o.steps,
        o.reached ? "learned the batch" : fmt::format("did not reach {}", kOverfitLoss));
  return out;
}

}  // namespace mtcki
