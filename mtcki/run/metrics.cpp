#include "mtcki/run/metrics.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "data/formats/atomic_file.h"
#include "data/sets/digest.h"
#include "data/sets/holdout.h"
#include "mtcki/config/table_names.h"
#include "mtcki/evaluation/metrics.h"
#include "mtcki/evaluation/neighbours.h"
#include "mtcki/networks/class_order.h"
#include "mtcki/synthesis/image_pool.h"
#include "mtcki/training/stage_control.h"
#include "mtcki/training/train_classifier.h"
#include "tensor/allocator.h"

namespace mtcki {

namespace {

// seconds: of its training, over all attempts.
std::unique_ptr<Teacher> held_out_classifier(RunContext& run, RunLog& log, double* seconds) {
  const MetricsConfig& c = run.config().metrics;
  if (c.classifier_model.empty()) return nullptr;
  const nn::ModelSpec spec = run.spec(c.classifier_model);
  std::string path = c.classifier_weights;
  if (path.empty()) {
    TrainJob job{
        run.job("metrics/classifier", run.folder() + "/metrics/classifier", run.classifier_sha()),
        spec, run.default_normalization(), run.config().train};
    job.seed += 1;  // not a copy of a teacher of the same architecture
    path = job.dir + "/model.safetensors";
    if (const auto done = read_marker(job.dir, job.config_sha256)) {
      *seconds = done->at("seconds");
    } else {
      const FitResult fit = train_classifier(job, run.train(), run.test(), log);
      write_marker(job.dir, job.config_sha256, {{"top1", fit.last.top1}, {"seconds", fit.seconds}},
                   fit_files());
      *seconds = fit.seconds;
    }
  }
  ModelCard card;
  std::vector<std::string> notes;
  auto net = load_model(path, spec, "", &card, &notes);
  align_classes(*net, &card, run.test(), &notes);
  for (const std::string& note : notes) log.info(str("held-out classifier: ", note));
  data::Normalization normalization =
      card.normalization.mean.empty() ? run.default_normalization() : card.normalization;
  auto judge = std::make_unique<Teacher>(
      Teacher::Options{"held-out", spec, normalization, 1.0, card.top1}, std::move(net));
  judge->to(run.compute().device);
  return judge;
}

// `limit` images spread evenly over a set, so that classes and batches keep their shares.
data::ImageSet spread(const data::ImageSet& set, int64_t limit) {
  if (limit <= 0 || set.size() <= limit) return set;
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < limit; ++i) rows.push_back(i * set.size() / limit);
  return data::rows_of(set, rows);
}

// metrics/neighbours.safetensors, for the report; made again only when something it depends on
// changed. The training set may be absent: then there is nothing to show.
void show_neighbours(RunContext& run, const data::ImageSet& synthetic, Teacher* classifier,
                     RunLog& log) {
  const MetricsConfig& c = run.config().metrics;
  if (c.neighbours == 0 || run.config().data.is_none() || !communicator().is_root()) return;
  const std::string dir = run.folder() + "/metrics", path = dir + "/neighbours.safetensors";
  const RunConfig& all = run.config();
  const std::string images =
      all.synthesis.batches > 0 ? run.synthesis_sha() : run.student_sha(all.students[0]);
  const std::string inputs =
      data::sha256_hex(str(images, " ", run.classifier_sha(), " ", c.neighbours));
  if (const auto known = read_neighbours(path); known && known->inputs == inputs) return;
  const data::ImageSet* train = nullptr;
  try {
    train = &run.train();
  } catch (const DataError& e) {
    log.info(str("no nearest real images in the report: ", e.what()));
    return;
  }
  NeighbourDisplay display =
      find_neighbours(synthetic, *train, run.test(), classifier, c.neighbours);
  display.inputs = inputs;
  data::make_directories(dir);
  write_neighbours(path, display);
}

// The set that was made before the students; without one, what the first student's rounds made.
// Nothing where no images are kept.
std::optional<data::ImageSet> made_images(RunContext& run) {
  const RunConfig& c = run.config();
  if (c.synthesis.batches > 0) return ImagePool::open(run.folder() + "/synth").load();
  if (c.students.empty() || !replay_keeps(c.distill.replay)) return std::nullopt;
  return ImagePool::open(run.student_dir(c.students[0]) + "/synth").load();
}

// Of the images, in the features of a held-out classifier or, without one, of the first teacher.
void add_image_metrics(RunContext& run, const data::ImageSet& pool, PipelineResult& result,
                       RunLog& log, Teacher* judge) {
  auto& out = result.metrics;
  const int64_t limit = run.config().metrics.samples;
  const data::ImageSet synthetic = spread(pool, limit);
  Teacher& describer = judge ? *judge : run.teachers()[0];
  const Described ours = describe(describer, synthetic, 0);
  stop_here_if_asked();
  Described theirs;
  if (!run.config().data.is_none()) theirs = describe(describer, spread(run.test(), limit), 0);
  stop_here_if_asked();
  if (judge) {
    out.emplace_back("fid_c", frechet_distance(feature_statistics(ours.features),
                                               feature_statistics(theirs.features)));
    stop_here_if_asked();
    out.emplace_back("is_c", inception_score(ours.logits));
    out.emplace_back("is_c_real", inception_score(theirs.logits));
    out.emplace_back("label_accuracy", accuracy(ours.logits, synthetic.labels).top1);
  }
  out.emplace_back("diversity", pairwise_diversity(ours.features));
  if (theirs.features.defined())
    out.emplace_back("diversity_real", pairwise_diversity(theirs.features));
  out.emplace_back("class_coverage", class_coverage(ours.logits));
  if (theirs.features.defined())
    out.emplace_back("distinct_neighbours", distinct_neighbours(ours.features, theirs.features));
  show_neighbours(run, pool, judge, log);
}

}  // namespace

void add_metrics(RunContext& run, PipelineResult& result, const Budget& budget, RunLog& log) {
  double training = 0;
  const std::unique_ptr<Teacher> judge = held_out_classifier(run, log, &training);
  if (training > 0) result.seconds["classifier"] += training;
  stop_here_if_asked();
  const auto start = std::chrono::steady_clock::now();
  auto& out = result.metrics;
  if (const auto images = made_images(run))
    add_image_metrics(run, *images, result, log, judge.get());
  out.emplace_back("generator_steps", static_cast<double>(budget.generator_steps));
  out.emplace_back("teacher_forward_macs", budget.forward_macs);
  out.emplace_back("kd_steps", static_cast<double>(budget.kd_steps));
  out.emplace_back("kd_forward_macs", budget.kd_forward_macs);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  out.emplace_back("peak_memory_bytes", static_cast<double>(usage.ru_maxrss) * 1024.0);
  out.emplace_back("peak_tensor_bytes",
                   static_cast<double>(memory_stats(run.compute().device).peak));
  stop_here_if_asked();
  log.rewind("metrics", -1);
  log.metrics("metrics", 0, 0, "summary", out);
  result.seconds["metrics"] +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run_classifier(const RunConfig& config, const std::string& folder, RunLog& log) {
  RunContext run(config, folder);
  double seconds = 0;
  held_out_classifier(run, log, &seconds);
}

}  // namespace mtcki
