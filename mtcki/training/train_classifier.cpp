#include "mtcki/training/train_classifier.h"

#include <algorithm>
#include <cmath>

#include "autograd/parallel.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/training/batch_source.h"
#include "mtcki/training/sgd_trainer.h"
#include "mtcki/training/step_metrics.h"
#include "mtcki/training/step_runner.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki {

namespace {

data::LoaderOptions loader_options(const TrainJob& job) {
  return {.batch_size = job.config.batch_size,
          .pad = job.config.pad,
          .flip = job.config.flip,
          .threads = static_cast<int>(job.loader_threads),
          .seed = job.seed ^ rng_stream(job.stage.c_str()),
          .normalization = job.normalization};
}

optim::Schedule schedule_of_train(const TrainConfig& c, int64_t steps_per_epoch) {
  optim::Schedule s = schedule_of(c, c.epochs, c.epochs * steps_per_epoch);
  s.warmup_steps = std::llround(c.warmup_epochs * static_cast<double>(steps_per_epoch));
  return s;
}

}  // namespace

BatchLoss backward_in_parts(nn::Module& net, const data::Batch& batch, int64_t parts,
                            double label_smoothing) {
  const Communicator& comm = communicator();
  const int64_t rows = batch.images.size(0);
  parts = std::clamp<int64_t>(rows / 2, 1, parts);
  BatchLoss out;
  for (int64_t i = 0; i < parts; ++i) {
    const int64_t begin = rows * i / parts, end = rows * (i + 1) / parts;
    const auto part_of = [&](const Tensor& x) { return parts > 1 ? narrow(x, 0, begin, end) : x; };
    const auto share = [&](const Variable& mean) {
      const Variable all = mean_over_ranks(mean, comm);
      return parts > 1 ? mul(all, static_cast<double>(end - begin) / static_cast<double>(rows))
                       : all;
    };
    const Tensor labels = part_of(batch.labels);
    const Variable logits = net(Variable(part_of(batch.images)));
    const Variable loss = share(cross_entropy(logits, labels, label_smoothing));
    loss.backward();
    const Tensor correct = share(percent_correct(logits.data(), labels)).data();
    out.loss = i > 0 ? add(out.loss, loss.data()) : loss.data();
    out.percent_correct = i > 0 ? add(out.percent_correct, correct) : correct;
  }
  return out;
}

FitResult train_classifier(const TrainJob& job, const data::ImageSet& train,
                           const data::ImageSet& test, RunLog& log) {
  const TrainConfig& c = job.config;
  nn::Init init(job.seed);
  init.rng.stream = rng_stream(job.stage.c_str());
  const auto net = nn::make_classifier(job.spec, init);
  const Device device = job.compute.device;
  net->to(device);
  net->set_precision(job.compute.precision);
  net->set_recompute(job.compute.recompute);

  BatchSource source(train, loader_options(job), device);
  const int64_t per_epoch = source.batches_per_pass();

  SgdTrainer trainer(*net, {optim::group_of(*net)}, c, schedule_of_train(c, per_epoch));

  const Tensor mean = job.normalization.mean_tensor().to(device),
               std = job.normalization.std_tensor().to(device);
  const data::ImageSet held_out = on_device(test, device);
  StepRunner runner(job.compute, "train.batch_size", c.batch_size);
  MetricRing& ring = runner.values();
  const auto one_step = [&] {
    const data::Batch batch = source.batch();
    trainer.zero_grad();
    const BatchLoss of = backward_in_parts(*net, batch, c.accumulate, c.label_smoothing);
    ring.put("loss", of.loss, "lower train.lr", "cross_entropy");
    trainer.update(ring);
    ring.put("acc", of.percent_correct);
  };
  FitJob fit_job(job);
  fit_job.total_steps = c.epochs * per_epoch;
  fit_job.steps_per_epoch = per_epoch;
  fit_job.eval_every = c.eval_every;
  fit_job.checkpoint_every = c.checkpoint_every;
  fit_job.images_per_step = c.batch_size;
  fit_job.step = [&](int64_t step) -> Values {
    source.prepare(step);
    net->train();
    trainer.prepare(step);
    Values values = runner.run(step, str("train ", source.rows()), one_step);
    return values.empty() ? values : with_rate(std::move(values), trainer.lr());
  };
  if (runner.is_deferred()) fit_job.read = [&] { return with_rate(runner.read(), trainer.lr()); };
  fit_job.evaluate = [&] {
    return trainer.with_final_weights([&] {
      net->eval();
      return evaluate(held_out, [&](const Tensor& x) {
        return (*net)(normalize_channels(Variable(x), mean, std)).data();
      });
    });
  };
  fit_job.state = [&](State& state) {
    if (state.loading()) runner.restart();
    state("model", *net);
    trainer.visit(state);
  };
  fit_job.write_model = [&](const std::string& path, const Accuracy& a) {
    trainer.with_final_weights([&] {
      write_model_file(
          path, *net,
          {job.spec, job.normalization, a.top1, a.top5, job.config_sha256, test.class_ids});
      return 0;
    });
  };
  return fit(fit_job, log);
}

}  // namespace mtcki
