#include "mtcki/run/pipeline.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "autograd/functions.h"
#include "data/formats/atomic_file.h"
#include "mtcki/config/table_names.h"
#include "mtcki/distillation/rounds.h"
#include "mtcki/evaluation/confusion.h"
#include "mtcki/networks/class_order.h"
#include "mtcki/networks/statistics_check.h"
#include "mtcki/run/context.h"
#include "mtcki/run/metrics.h"
#include "mtcki/run/no_data.h"
#include "mtcki/synthesis/given_images.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/synthesis/stage.h"
#include "mtcki/training/stage_control.h"
#include "mtcki/training/train_classifier.h"
#include "tensor/allocator.h"
#include "tensor/ops/cast.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

TeacherResult run_teacher(RunContext& run, const TeacherConfig& t, RunLog& log, double* seconds) {
  const std::string dir = run.teacher_dir(t), sha = run.teacher_sha(t);
  if (const auto done = read_marker(dir, sha)) {
    *seconds = done->at("seconds");
    return {
        run.name(t),         t.model, done->at("top1"), done->at("top5"), done->at("parameters"),
        done->at("imported")};
  }
  const bool tested = !run.config().data.is_none();
  const nn::ModelSpec spec = run.spec(t.model);
  const bool imported = !t.weights.empty();
  Accuracy accuracy;
  int64_t parameters = 0;
  double spent = 0;
  if (imported) {
    const auto start = std::chrono::steady_clock::now();
    ModelCard card;
    std::vector<std::string> notes;
    auto net = load_model(t.weights, spec, t.name_map, &card, &notes, t.weights_key);
    align_classes(*net, &card, run.test(), &notes);
    for (const std::string& note : notes) log.info(str("teacher ", run.name(t), ": ", note));
    Teacher::Options options{run.name(t), spec, run.normalization(t, card), 1.0, -1};
    parameters = net->parameter_count();
    const std::vector<std::string> doubts = statistics_doubts(
        *net, spec, data::dataset_pixels(run.config().data.name), options.normalization);
    Teacher teacher(options, std::move(net));
    for (const std::string& doubt : doubts) log.warn(str("teacher ", run.name(t), ": ", doubt));
    teacher.to(run.compute().device);
    teacher.set_precision(run.compute().precision);
    if (tested) accuracy = evaluate(teacher, run.test());
    const std::string hint = chance_hint(accuracy, run.num_classes());
    if (!hint.empty()) log.warn(str("teacher ", run.name(t), ": ", hint));
    data::make_directories(dir);
    teacher.save(dir + "/model.safetensors", accuracy.top1, accuracy.top5, sha,
                 tested && hint.empty() ? run.test().class_ids : card.classes);
    spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    log.info(str("teacher ", run.name(t), ": ", t.model, " from ", t.weights,
                 tested ? str(", top-1 ", accuracy.top1, " % on ", run.config().data.name) : ""));
  } else {
    const TrainJob job{run.job("teacher/" + run.name(t), dir, sha), spec, run.normalization(t, {}),
                       run.config().train};
    const FitResult fit = train_classifier(job, run.train(), run.test(), log);
    accuracy = fit.last;
    spent = fit.seconds;
    nn::Init init(0);
    parameters = nn::make_classifier(spec, init)->parameter_count();
  }
  json marker = {{"top1", accuracy.top1},
                 {"top5", accuracy.top5},
                 {"parameters", parameters},
                 {"imported", imported},
                 {"seconds", spent}};
  if (imported) marker["weights_sha256"] = weights_sha256(t.weights);
  write_marker(dir, sha, std::move(marker),
               imported ? std::vector<std::string>{"model.safetensors"} : fit_files());
  *seconds = spent;
  return {run.name(t), t.model, accuracy.top1, accuracy.top5, parameters, imported};
}

std::vector<TeacherResult> teachers_stage(RunContext& run, RunLog& log, PipelineResult* out) {
  std::vector<TeacherResult> results;
  for (const TeacherConfig& t : run.config().teachers) {
    double seconds = 0;
    stop_here_if_asked();
    results.push_back(run_teacher(run, t, log, &seconds));
    if (out) out->seconds["teachers"] += seconds;
  }
  return results;
}

PoolInfo pool_info(RunContext& run, const std::string& sha) {
  return {.channels = run.channels(),
          .image_size = run.image_size(),
          .num_classes = run.num_classes(),
          .class_names = run.class_names(),
          .quant = run.config().synthesis.quant == Quant::round ? "round" : "trunc",
          .seed = run.config().seed,
          .config_sha256 = sha,
          .command = "mtcki invert " + (fs::path(run.folder()) / "config.toml").string(),
          .teachers = run.teacher_cards()};
}

Synthesizer::Options synthesis_options(RunContext& run) {
  Synthesizer::Options o{.channels = run.channels(),
                         .image_size = run.image_size(),
                         .num_classes = run.num_classes(),
                         .normalization = run.default_normalization()};
  const RunConfig& c = run.config();
  o.most_batches = c.synthesis.batches + c.distill.epochs * c.rounds.per_epoch * c.rounds.batches;
  o.seed = run.config().seed;
  o.compute = run.compute();
  return o;
}

// How far the finished images are from the statistics that each teacher has stored, and whether
// another network of the same names would fit them better.
void check_statistics(RunContext& run, RunLog& log) {
  const data::ImageSet pool = ImagePool::open(run.folder() + "/synth").load();
  const int64_t shown = std::min<int64_t>(128, pool.size());
  const Tensor images = u8_to_unit(pool.images.slice(0, shown));
  for (const TeacherConfig& t : run.config().teachers) {
    const nn::ModelSpec spec = run.spec(t.model);
    ModelCard card;
    const auto net = load_model(run.teacher_dir(t) + "/model.safetensors", spec, "", &card);
    const Tensor x = normalize_channels(Variable(images), card.normalization.mean_tensor(),
                                        card.normalization.std_tensor())
                         .data();
    const StatisticsFit fit = statistics_fit(*net, spec, x);
    if (fit.layers.empty()) continue;
    log.info(fmt::format(
        "teacher {}: means at its batch norms are off by {:.2f} standard deviations on {} images, "
        "most at {} ({:.2f})",
        run.name(t), fit.mean, shown, fit.worst().name, fit.worst().mean));
    for (const std::string& doubt : variant_doubts(variant_fits(*net, spec, x)))
      log.warn(str("teacher ", run.name(t), ": ", doubt));
  }
}

int64_t synthesis_stage(RunContext& run, RunLog& log, PipelineResult* out, Budget* budget) {
  const std::string dir = run.folder() + "/synth", sha = run.synthesis_sha();
  SynthesisResult result;
  stop_here_if_asked();
  if (const auto done = read_marker(dir, sha)) {
    result = {done->at("images"), done->at("budget").get<Budget>(), done->at("seconds")};
  } else {
    const SynthesisJob job{run.job("synthesis", dir, sha), run.folder() + "/bank",
                           run.config().synthesis, synthesis_options(run), pool_info(run, sha)};
    const bool given = is_given(job.config.source);
    result =
        given ? take_images(
                    job, run.folder(), [&]() -> const data::ImageSet& { return run.train(); }, log)
              : synthesize(job, run.teachers(), log);
    std::vector<std::string> files = {"manifest.json"};
    if (!given) files.push_back(result.final_state);
    write_marker(
        dir, sha,
        {{"images", result.images}, {"budget", result.budget}, {"seconds", result.seconds}}, files);
    if (!given && communicator().is_root()) check_statistics(run, log);
  }
  if (out) out->seconds["synthesis"] += result.seconds;
  if (budget) *budget += result.budget;
  return result.images;
}

// For the report.
void keep_confusion(RunContext& run, const std::string& dir, const std::string& sha,
                    const std::string& model, const Tensor& test_logits) {
  ConfusionMatrix m = confusion_matrix(test_logits, run.test().labels);
  m.model = model;
  m.class_names = run.class_names();
  m.config_sha256 = sha;
  if (communicator().is_root()) write_confusion(dir, m);
}

// Whether a student's rounds leave images of their own in its folder.
bool keeps_images(const RunConfig& c) {
  return c.rounds.per_epoch > 0 && replay_keeps(c.distill.replay);
}

StudentResult run_student(RunContext& run, const StudentConfig& s, RunLog& log, double* seconds,
                          Budget* budget) {
  const std::string dir = run.student_dir(s), sha = run.student_sha(s);
  if (const auto done = read_marker(dir, sha)) {
    if (keeps_images(run.config())) ImagePool::open(dir + "/synth").verify();
    *seconds = done->at("seconds");
    *budget += done->at("budget").get<Budget>();
    return {run.name(s),
            s.model,
            done->at("top1"),
            done->at("top5"),
            done->at("top1_best"),
            done->at("agreement"),
            done->at("parameters"),
            done->value("agreement_best", -1.0)};
  }
  const RunConfig& c = run.config();
  Student student(run.name(s), run.spec(s.model), run.default_normalization(), c.seed);
  student.to(run.compute().device);
  student.set_precision(run.compute().precision);
  student.net().set_recompute(run.compute().recompute);
  DistillJob job{run.job("student/" + run.name(s), dir, sha), c.distill};
  if (c.data.is_none()) job.measure = "agreement";
  job.rounds = c.rounds;
  job.synthesis = c.synthesis;
  job.options = synthesis_options(run);
  job.info = pool_info(run, sha);
  job.set_dir = run.folder() + "/synth";
  job.set_bank_dir = run.folder() + "/bank";
  job.set_sha256 = run.synthesis_sha();
  const auto [fit, spent] =
      distill(job, run.teachers(), student, run.distilled(), run.measured(), log);
  // Agreement is that of the weights on disk (the averaged ones when there is an average).
  Teacher::Options options{run.name(s), student.spec(), student.normalization(), 1.0,
                           fit.last.top1};
  Teacher finished(options, load_model(dir + "/model.safetensors", student.spec(), ""));
  finished.to(run.compute().device);
  finished.set_precision(run.compute().precision);
  const Tensor mine =
      logits_of(on_device(run.measured(), run.compute().device),
                [&](const Tensor& x) { return finished.forward_no_grad(x).logits.data(); });
  StudentResult result{run.name(s),
                       s.model,
                       fit.last.top1,
                       fit.last.top5,
                       fit.top1_best,
                       agreement(mine, run.fused_test_logits()),
                       student.net().parameter_count()};
  std::vector<std::string> files = fit_files();
  if (c.data.is_none()) {
    result.agreement_best = result.top1_best;
    result.top1 = result.top5 = result.top1_best = -1;
  } else {
    keep_confusion(run, dir, sha, s.model, mine);
    files.push_back("confusion.json");
  }
  if (keeps_images(c)) files.push_back("synth/manifest.json");
  write_marker(dir, sha,
               {{"top1", result.top1},
                {"top5", result.top5},
                {"top1_best", result.top1_best},
                {"agreement", result.agreement},
                {"agreement_best", result.agreement_best},
                {"parameters", result.parameters},
                {"js_loyalty", js_loyalty(mine, run.fused_test_logits())},
                {"budget", spent},
                {"seconds", fit.seconds}},
               files);
  *seconds = fit.seconds;
  *budget += spent;
  return result;
}

std::vector<StudentResult> students_stage(RunContext& run, RunLog& log, PipelineResult* out,
                                          Budget* budget) {
  std::vector<StudentResult> results;
  Budget ignored;
  if (const std::string note = measurement_note(run.config()); !note.empty()) log.info(note);
  for (const StudentConfig& s : run.config().students) {
    double seconds = 0;
    stop_here_if_asked();
    results.push_back(run_student(run, s, log, &seconds, budget ? budget : &ignored));
    if (!out) continue;
    out->seconds["students"] += seconds;
    out->seconds["student/" + results.back().name] = seconds;
  }
  return results;
}

}  // namespace

std::vector<TeacherResult> run_teachers(const RunConfig& config, const std::string& folder,
                                        RunLog& log) {
  RunContext run(config, folder);
  return teachers_stage(run, log, nullptr);
}

int64_t run_synthesis(const RunConfig& config, const std::string& folder, RunLog& log) {
  if (config.synthesis.batches == 0)
    throw UsageError(
        "synthesis.batches: with 0 all images are made in the students' rounds; run `mtcki "
        "distill`");
  RunContext run(config, folder);
  run.require_teachers();
  return synthesis_stage(run, log, nullptr, nullptr);
}

std::vector<StudentResult> run_students(const RunConfig& config, const std::string& folder,
                                        RunLog& log) {
  RunContext run(config, folder);
  run.require_teachers();
  run.require_synthesis();
  return students_stage(run, log, nullptr, nullptr);
}

PipelineResult run_pipeline(const RunConfig& config, const std::string& folder, RunLog& log) {
  RunContext run(config, folder);
  PipelineResult out;
  Budget budget;
  out.teachers = teachers_stage(run, log, &out);
  if (config.synthesis.batches > 0)  // else they are made in the students' rounds alone
    out.synthetic_images = synthesis_stage(run, log, &out, &budget);
  out.students = students_stage(run, log, &out, &budget);
  out.note = measurement_note(config);
  for (size_t m = 0; m < config.teachers.size(); ++m) {
    const TeacherConfig& t = config.teachers[m];
    if (config.data.is_none()) {
      out.teachers[m].agreement = agreement(run.teacher_test_logits()[m], run.fused_test_logits());
      continue;
    }
    const std::string dir = run.teacher_dir(t), sha = run.teacher_sha(t);
    const auto known = read_confusion(dir);
    if (!known || known->config_sha256 != sha)
      keep_confusion(run, dir, sha, t.model, run.teacher_test_logits()[m]);
  }
  stop_here_if_asked();
  add_metrics(run, out, budget, log);
  return out;
}

}  // namespace mtcki
