#include "mtcki/train.h"

#include <cmath>

#include "autograd/functions.h"
#include "mtcki/batch_source.h"
#include "mtcki/model_file.h"
#include "mtcki/sgd.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

FitResult train_classifier(const TrainJob& job, const data::ImageSet& train,
                           const data::ImageSet& test, RunLog& log) {
  const TrainConfig& c = job.config;
  nn::Init init(job.seed);
  init.rng.stream = rng_stream(job.stage.c_str());
  const auto net = nn::make_classifier(job.spec, init);

  data::LoaderOptions options;
  options.batch_size = c.batch_size;
  options.pad = c.pad;
  options.flip = c.flip;
  options.threads = static_cast<int>(job.loader_threads);
  options.seed = job.seed ^ rng_stream(job.stage.c_str());
  options.normalization = job.normalization;
  BatchSource source(train, options);
  const int64_t per_epoch = source.batches_per_pass();

  optim::SgdOptions sgd;
  sgd.lr = c.lr;
  sgd.momentum = c.momentum;
  sgd.weight_decay = c.weight_decay;
  sgd.nesterov = c.nesterov && c.momentum > 0;
  optim::Schedule schedule;
  schedule.kind = c.schedule;
  schedule.base_lr = c.lr;
  schedule.min_lr = c.min_lr;
  schedule.total_steps = c.epochs * per_epoch;
  schedule.warmup_steps = std::llround(c.warmup_epochs * static_cast<double>(per_epoch));
  for (const int64_t epoch : c.milestones) schedule.milestones.push_back(epoch * per_epoch);
  schedule.gamma = c.gamma;
  SgdTrainer trainer(*net, {optim::group_of(*net)}, sgd, schedule, c.clip_norm, c.ema);

  const Tensor mean = job.normalization.mean_tensor(), std = job.normalization.std_tensor();
  FitJob fit_job;
  fit_job.stage = job.stage;
  fit_job.dir = job.dir;
  fit_job.config_sha256 = job.config_sha256;
  fit_job.total_steps = c.epochs * per_epoch;
  fit_job.steps_per_epoch = per_epoch;
  fit_job.eval_every = c.eval_every;
  fit_job.checkpoint_every = c.checkpoint_every;
  fit_job.keep_checkpoints = job.keep_checkpoints;
  fit_job.images_per_step = c.batch_size;
  fit_job.on_nan = job.on_nan;
  fit_job.step = [&](int64_t step) -> Values {
    const data::Batch batch = source.at(step);
    net->train();
    trainer.zero_grad();
    const Variable logits = (*net)(Variable(batch.images));
    const Variable loss = cross_entropy(logits, batch.labels, c.label_smoothing);
    const double value = loss.item();
    if (!std::isfinite(value))
      throw NumericError(str("loss term cross_entropy is ", value, "; lower train.lr"));
    loss.backward();
    const double lr = trainer.step(step);
    const double correct = static_cast<double>(count_topk_correct(logits.data(), batch.labels, 1));
    return {{"loss", value},
            {"acc", 100.0 * correct / static_cast<double>(batch.labels.size(0))},
            {"lr", lr}};
  };
  fit_job.evaluate = [&] {
    return trainer.with_final_weights([&] {
      net->eval();
      return evaluate(test, [&](const Tensor& x) {
        return (*net)(normalize_channels(Variable(x), mean, std)).data();
      });
    });
  };
  fit_job.save = [&](StageState& state) {
    state.put(net->state_dict(), "model.");
    trainer.save(state);
  };
  fit_job.load = [&](const StageState& state) {
    net->load_state_dict(state.take("model."));
    trainer.load(state);
  };
  fit_job.write_model = [&](const std::string& path, const Accuracy& a) {
    trainer.with_final_weights([&] {
      write_model_file(path, *net,
                       {job.spec, job.normalization, a.top1, a.top5, job.config_sha256});
      return 0;
    });
  };
  fit_job.scale_lr = [&](double factor) { trainer.scale_lr(factor); };
  return fit(fit_job, log);
}

}  // namespace mtcki
