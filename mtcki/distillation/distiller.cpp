#include "mtcki/distillation/distiller.h"

#include <algorithm>

#include "autograd/parallel.h"
#include "autograd/side_stream.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/losses/fused_kd.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/training/step_metrics.h"
#include "tensor/context.h"

namespace mtcki {

namespace {

std::unique_ptr<TeacherStudentContrast> make_contrast(const Teachers& teachers, Student& student,
                                                      const DistillConfig& config, uint64_t seed) {
  if (config.ts <= 0) return nullptr;
  return std::make_unique<TeacherStudentContrast>(teachers, student.net().feature_dim(), config,
                                                  seed);
}

std::vector<optim::ParameterGroup> groups_of(Student& student, TeacherStudentContrast* contrast) {
  std::vector<optim::ParameterGroup> groups{optim::group_of(student.net())};
  if (contrast) groups.push_back({contrast->parameters()});
  return groups;
}

optim::SgdOptions sgd_of(const DistillConfig& c) {
  optim::SgdOptions sgd;
  sgd.lr = c.lr;
  sgd.momentum = c.momentum;
  sgd.weight_decay = c.weight_decay;
  sgd.nesterov = c.nesterov && c.momentum > 0;
  return sgd;
}

optim::Schedule schedule_of(const DistillConfig& c, int64_t total_steps) {
  optim::Schedule s;
  s.kind = c.schedule;
  s.base_lr = c.lr;
  s.min_lr = c.min_lr;
  s.total_steps = total_steps;
  return s;
}

constexpr char kHint[] = "lower distill.lr";

}  // namespace

Distiller::Distiller(Teachers& teachers, Student& student, const DistillConfig& config,
                     int64_t total_steps, uint64_t seed, const Compute& compute)
    : teachers_(teachers),
      student_(student),
      config_(config),
      total_steps_(total_steps),
      contrast_(make_contrast(teachers, student, config, seed)),
      trainer_(student.net(), groups_of(student, contrast_.get()), sgd_of(config),
               schedule_of(config, total_steps), config.clip_norm, config.ema),
      runner_(compute.at(student.device()), "distill.batch_size", config.batch_size) {}

void Distiller::keep_teacher_outputs(const data::ImageSet& pool,
                                     const data::LoaderOptions& options) {
  kept_ = std::make_unique<KeptTeacherOutputs>(teachers_, pool, options, contrast_ != nullptr);
  kept_images_ = pool.size();
  runner_.forget_graphs();
}

TeacherOutputs Distiller::teacher_outputs(const data::Batch& batch, bool features) {
  const StageScope scope("distill/teachers");
  return kept_ && batch.view_row.defined() ? kept_->rows(batch.view_row)
                                           : ask_teachers(teachers_, batch.images, features);
}

int64_t Distiller::images_asked(const BatchSource& source, int64_t source_step) const {
  if (!kept_) return source.rows() * communicator().size();
  const int64_t per_pass = source.batches_per_pass();
  const bool first_use = source_step % per_pass == 0 && source_step / per_pass < config_.views;
  return first_use ? kept_images_ : 0;
}

// eta: weight of the contrast, 0 for none; eta_there: the same on the device when values wait.
void Distiller::issue(const data::Batch& batch, double eta, const Tensor& eta_there) {
  MetricRing& values = runner_.values();
  TeacherOutputs teachers = teacher_outputs(batch, eta > 0);
  const StageScope scope("distill/student");
  const Tensor targets = fused_targets(config_.fuse, teachers.logits, teachers_.weights(),
                                       config_.temperature, batch.labels);
  trainer_.zero_grad();
  const nn::Classifier::Output y = student_.features(Variable(batch.images));
  const Communicator& comm = communicator();
  const Variable kd = mean_over_ranks(fused_kd(targets, y.logits, config_.temperature), comm);
  values.put("fused_kd", kd.data(), kHint);
  Variable loss = kd;
  if (eta > 0) {
    // Every row meets every other: the loss of all rows, on every rank.
    for (Tensor& f : teachers.features) f = comm.all_gather(f);
    const Variable ts = contrast_->loss(gather_over_ranks(y.feature, comm), teachers.features);
    values.put("teacher_student_contrast", ts.data(), kHint);
    values.put(str("teacher_student_contrast", kChanceSuffix),
               Tensor::full({}, contrast_->chance(teachers.features[0].size(0)), DType::f32,
                            student_.device()));
    loss = add(loss, eta_there.defined() ? mul(ts, Variable(eta_there)) : mul(ts, eta));
  }
  values.put("loss", loss.data());
  values.put("agree", mean_over_ranks(percent_agreement(y.logits.data(), targets), comm).data());
  loss.backward();
  trainer_.update(values);
}

Values Distiller::step(BatchSource& source, int64_t source_step, int64_t step) {
  const double ramp_steps = config_.ts_ramp * static_cast<double>(total_steps_);
  const double eta = ramp_steps > 0
                         ? config_.ts * std::min(1.0, static_cast<double>(step) / ramp_steps)
                         : config_.ts;
  const bool contrasts = contrast_ && eta > 0;
  source.prepare(source_step);
  trainer_.prepare(step);
  student_.net().train();
  const Tensor eta_there = contrasts && is_deferred() ? runner_.inputs().set("eta", eta) : Tensor();
  // While the queues fill, every step has its own shapes.
  const bool repeats = !contrasts || contrast_->settled();
  const double weight = contrasts ? eta : 0.0;
  if (kept_) {
    const StageScope scope("distill/teachers");
    runner_.before_step(
        [&] { kept_->make(source_step / source.batches_per_pass() % config_.views); });
  }
  Values values =
      runner_.run(step, repeats ? str("distill ", source.rows(), contrasts ? " contrast" : "") : "",
                  [&] { issue(source.batch(), weight, eta_there); });
  if (contrasts) contrast_->enqueue();
  ++budget_.kd_steps;
  budget_.kd_forward_macs +=
      teachers_.macs() * static_cast<double>(images_asked(source, source_step));
  return values.empty() ? values : with_rate(std::move(values), trainer_.lr());
}

Values Distiller::read() { return with_rate(runner_.read(), trainer_.lr()); }

void Distiller::visit(State& s) {
  if (s.loading()) runner_.restart();
  s("model", student_.net());
  trainer_.visit(s);
  if (contrast_) s("ts", *contrast_);
  s("budget", budget_);
}

data::LoaderOptions pool_loader(const DistillConfig& config, int64_t threads, uint64_t seed) {
  data::LoaderOptions o;
  o.batch_size = config.batch_size;
  o.pad = config.pad;
  o.flip = config.flip;
  o.views = config.views;
  o.threads = static_cast<int>(threads);
  o.seed = seed;
  return o;
}

FitJob student_fit_job(const DistillJob& job, Student& student, Distiller& distiller,
                       const data::ImageSet& test) {
  FitJob fit;
  fit.stage = job.stage;
  fit.dir = job.dir;
  fit.config_sha256 = job.config_sha256;
  fit.eval_every = job.config.eval_every;
  fit.checkpoint_every = job.config.checkpoint_every;
  fit.keep_checkpoints = job.keep_checkpoints;
  fit.images_per_step = job.config.batch_size;
  fit.measure = job.measure;
  fit.device = student.device();
  const data::ImageSet held_out = on_device(test, student.device());
  fit.evaluate = [&student, &distiller, held_out] {
    return distiller.trainer().with_final_weights([&] { return evaluate(student, held_out); });
  };
  fit.write_model = [&student, &distiller, sha = job.config_sha256, classes = test.class_ids,
                     is_accuracy = job.measure == "top1"](const std::string& path,
                                                          const Accuracy& measured) {
    const Accuracy a = is_accuracy ? measured : Accuracy{};
    distiller.trainer().with_final_weights([&] {
      write_model_file(path, student.net(),
                       {student.spec(), student.normalization(), a.top1, a.top5, sha, classes});
      return 0;
    });
  };
  fit.state = [&](State& state) { distiller.visit(state); };
  if (distiller.is_deferred()) {
    fit.read = [&] { return distiller.read(); };
    fit.read_every = job.compute.read_every;
  }
  return fit;
}

DistillResult distill(const DistillJob& job, Teachers& teachers, Student& student,
                      const data::ImageSet& pool, const data::ImageSet& test, RunLog& log) {
  const uint64_t seed = job.seed ^ rng_stream(job.stage.c_str());
  const data::LoaderOptions options = pool_loader(job.config, job.loader_threads, seed);
  BatchSource source(pool, options, student.device());
  const int64_t per_epoch =
      job.config.steps_per_epoch > 0 ? job.config.steps_per_epoch : source.batches_per_pass();
  Distiller distiller(teachers, student, job.config, job.config.epochs * per_epoch, job.seed,
                      job.compute);
  if (job.config.views > 0) distiller.keep_teacher_outputs(pool, options);
  FitJob fit_job = student_fit_job(job, student, distiller, test);
  fit_job.total_steps = job.config.epochs * per_epoch;
  fit_job.steps_per_epoch = per_epoch;
  fit_job.step = [&](int64_t step) { return distiller.step(source, step, step); };
  const FitResult result = fit(fit_job, log);
  return {result, distiller.budget()};
}

}  // namespace mtcki
