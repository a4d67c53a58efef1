#include "mtcki/run/dry_run.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "data/formats/atomic_file.h"
#include "mtcki/config/table_names.h"
#include "mtcki/distillation/teacher_outputs.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/run/context.h"
#include "mtcki/run/pipeline.h"
#include "tensor/allocator.h"
#include "tensor/error.h"

namespace mtcki {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kFewSteps = 2, kMoreSteps = 6;
constexpr int64_t kFewTests = 100, kMoreTests = 1100;  // images
constexpr uint64_t kPictures = 5'000'000;  // bytes: grids over time, the report, the log

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::error_code ec;
    std::string pattern = (fs::temp_directory_path(ec) / "mtcki-dry-run-XXXXXX").string();
    if (ec || !mkdtemp(pattern.data()))
      throw DiskError("--dry-run: cannot make a temporary folder \"" + pattern + "\"");
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct Silence {
  Silence() { console::set_silent(true); }
  ~Silence() { console::set_silent(false); }
};

// Two batches of images, so that the second one has a history to differ from.
int64_t short_batches(const RunConfig& c) {
  const int64_t learnt = c.data.is_none() ? 2 * c.distill.batch_size : c.distill.batch_size;
  const int64_t pool = std::max(2 * c.synthesis.batch_size, learnt);
  return (pool + c.synthesis.batch_size - 1) / c.synthesis.batch_size;
}

int64_t few_batches(const RunConfig& c) {
  return c.synthesis.batches == 0 ? short_batches(c)
                                  : std::min(c.synthesis.batches, short_batches(c));
}

RunConfig shortened(const RunConfig& config, int64_t steps, int64_t train_images,
                    int64_t test_images) {
  RunConfig c = config;
  c.tensorboard = false;
  if (is_given(c.synthesis.source)) c.synthesis.source = "noise", c.synthesis.from.clear();
  c.data.train_limit = std::min(train_images, steps * c.train.batch_size);
  (config.data.is_none() ? c.data.holdout : c.data.test_limit) = test_images;
  c.train.epochs = c.train.eval_every = 1;
  c.train.checkpoint_every = 0;
  c.train.schedule = "constant";
  c.train.milestones.clear();
  c.distill.milestones.clear();
  c.train.warmup_epochs = 0;
  // Also where the run itself makes none before the students: what a step costs is measured here.
  c.synthesis.batches = few_batches(config);
  if (config.synthesis.batches == 0) c.synthesis.loss["cls"] = 1;
  c.synthesis.g_steps = steps;
  c.synthesis.checkpoint_every = 1;
  c.distill.epochs = c.distill.eval_every = 1;
  c.distill.steps_per_epoch = steps;
  c.distill.checkpoint_every = 0;
  c.distill.schedule = "constant";
  c.distill.views = std::min<int64_t>(c.distill.views, 1);  // made before the first step
  c.distill.ts_ramp = 0;  // the contrast counts from the first step
  c.rounds.per_epoch = std::min<int64_t>(c.rounds.per_epoch, 1);
  c.rounds.batches = 1;
  c.metrics.samples = std::min(c.metrics.samples, test_images);
  c.metrics.neighbours = 0;
  return c;
}

uint64_t bytes_below(const fs::path& dir) {
  uint64_t total = 0;
  std::error_code ec;
  for (const auto& e : fs::recursive_directory_iterator(dir, ec))
    if (e.is_regular_file(ec)) total += e.file_size(ec);
  return total;
}

uint64_t shard_bytes(const fs::path& dir) {
  std::error_code ec;
  const auto size = fs::file_size(dir / "shard-00000.safetensors", ec);
  return ec ? 0 : size;
}

// What the checkpoints of the whole run take more than those of the short one.
uint64_t further_checkpoints(const fs::path& run, int64_t keep) {
  uint64_t total = 0;
  std::error_code ec;
  for (const auto& e : fs::recursive_directory_iterator(run, ec)) {
    if (e.path().filename() != "ckpt") continue;
    uint64_t largest = 0;
    int64_t there = 0;
    for (const auto& step : fs::directory_iterator(e.path(), ec)) {
      if (step.is_symlink(ec)) continue;
      largest = std::max(largest, bytes_below(step.path()));
      ++there;
    }
    total += largest * static_cast<uint64_t>(std::max<int64_t>(0, keep - there));
  }
  return total;
}

// Of what distill.views keeps of one student's teachers.
uint64_t kept_bytes(const RunConfig& config, RunContext& run) {
  if (config.students.empty() || config.distill.views == 0) return 0;
  std::vector<int64_t> feature_dims;
  for (const TeacherConfig& t : config.teachers) {
    nn::Init init;
    const auto net = t.weights.empty() ? nn::make_classifier(run.spec(t.model), init)
                                       : load_model(t.weights, run.spec(t.model), t.name_map,
                                                    nullptr, nullptr, t.weights_key);
    feature_dims.push_back(config.distill.loss.at("ts") > 0 ? net->feature_dim() : 0);
  }
  return KeptTeacherOutputs::bytes(config.distill.views,
                                   config.synthesis.batches * config.synthesis.batch_size,
                                   run.num_classes(), feature_dims);
}

int64_t tests_of(int64_t epochs, int64_t every) { return (epochs + every - 1) / every; }

double number(int64_t n) { return static_cast<double>(n); }

}  // namespace

StageTimes stage_times(const StageSample& base, const StageSample& more_steps,
                       const StageSample& more_tests) {
  const auto slope = [&base](const StageSample& more, int64_t StageSample::*count) {
    const double n = number(more.*count - base.*count);
    if (n <= 0) return 0.0;  // there are no more test images
    const double difference = more.seconds - base.seconds;
    return difference > 0 ? difference / n : more.seconds / number(more.*count);
  };
  StageTimes t;
  t.step = slope(more_steps, &StageSample::steps);
  t.test = slope(more_tests, &StageSample::tested);
  t.fixed =
      std::max(0.0, base.seconds - number(base.steps) * t.step - number(base.tested) * t.test);
  return t;
}

namespace {

// The short runs, and where the last of them lies.
struct Samples {
  struct Sample {
    int64_t steps, tested;
    PipelineResult result;
  };
  // The first one only warms up: kernels are chosen, memory is allocated.
  std::vector<Sample> list = {{1, kFewTests, {}},
                              {kFewSteps, kFewTests, {}},
                              {kMoreSteps, kFewTests, {}},
                              {kFewSteps, kMoreTests, {}}};
  std::string last;

  // A stage without steps must not be given any: noise would pass for their time, and leave it none.
  StageTimes times(const std::string& stage, bool takes_steps) const {
    const auto sample = [&](size_t i) {
      const auto it = list[i].result.seconds.find(stage);
      return StageSample{list[i].steps, list[i].tested,
                         it == list[i].result.seconds.end() ? 0.0 : it->second};
    };
    return stage_times(sample(1), sample(takes_steps ? 2 : 1), sample(3));
  }
};

// most_tests: how many held-out images there can be; without real ones a short run makes its own.
Samples run_samples(const RunConfig& config, const std::string& folder, int64_t train_images,
                    int64_t test_images, int64_t most_tests) {
  Samples out;
  for (size_t i = 0; i < out.list.size(); ++i) {
    Samples::Sample& s = out.list[i];
    const int64_t most = i < 3 && config.data.is_none() ? most_tests / 2 : most_tests;
    s.tested = std::max<int64_t>(1, std::min({s.tested, test_images, most}));
    out.last = folder + "/" + std::to_string(i);
    fs::create_directories(out.last);
    RunLog log(out.last, false);
    s.result = run_pipeline(shortened(config, s.steps, train_images, s.tested), out.last, log);
  }
  return out;
}

DryRunStage plan_students(const RunConfig& config, int64_t pool, int64_t test_images,
                          const StageTimes& synthesis, const StageTimes& students) {
  const DistillConfig& d = config.distill;
  const SynthesisConfig& s = config.synthesis;
  const double few = number(few_batches(config));
  const int64_t rounds = d.epochs * config.rounds.per_epoch;
  const int64_t pool_steps =
      d.steps_per_epoch > 0 ? d.steps_per_epoch : std::max<int64_t>(1, pool / d.batch_size);
  const auto pupils = std::ssize(config.students);
  if (rounds > 0) {
    // A short run has as many steps of one kind as of the other.
    const double generator = number(pupils) * synthesis.step / few;
    const double kd = std::max(students.step - generator, 0.0);
    const int64_t g_steps = config.rounds.batches * s.g_steps;
    const int64_t kd_steps = d.steps_per_epoch / config.rounds.per_epoch;
    return {"students",
            fmt::format("{} x {} rounds of {} + {} steps", pupils, rounds, g_steps, kd_steps),
            number(rounds) * (number(g_steps) * generator + number(kd_steps) * kd) +
                number(tests_of(d.epochs, d.eval_every)) * students.at(0, number(test_images))};
  }
  // The one view of the short run is nearly all of what neither steps nor tests took.
  const double views =
      number(std::min(d.views, (d.epochs * pool_steps * d.batch_size + pool - 1) / pool));
  const double made = d.views > 0 ? views * number(pool) / (few * number(s.batch_size)) : 1.0;
  return {"students",
          fmt::format("{} x {} epochs of {} steps{}", pupils, d.epochs, pool_steps,
                      d.views > 0 ? fmt::format(", {} views kept", d.views) : ""),
          made * students.fixed + number(d.epochs * pool_steps) * students.step +
              number(tests_of(d.epochs, d.eval_every) * test_images) * students.test};
}

// Memory and disk: those of the short run, with what the whole has more of.
void take_room(const RunConfig& config, RunContext& full, const fs::path& run, int64_t pool,
               DryRun* out) {
  const SynthesisConfig& s = config.synthesis;
  const DistillConfig& d = config.distill;
  const int64_t rounds = d.epochs * config.rounds.per_epoch;
  const auto pupils = std::ssize(config.students);
  const int64_t bank_rows = std::min(s.bank_size, pool);
  const uint64_t bank_row =
      shard_bytes(run / "bank") / static_cast<uint64_t>(std::max<int64_t>(1, s.batch_size));
  const int64_t pixels = full.channels() * full.image_size() * full.image_size();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  out->memory_bytes = static_cast<uint64_t>(usage.ru_maxrss) * 1024 +
                      static_cast<uint64_t>(bank_rows) * bank_row +
                      static_cast<uint64_t>(pool * pixels) + kept_bytes(config, full);
  // The short run, with all the shards instead of its own few.
  const auto few_shards = static_cast<uint64_t>(few_batches(config));
  // Those of rounds may hold maps, too, which are all in memory.
  const uint64_t own_shard =
      d.replay == "maps" ? shard_bytes(run / "students" / full.name(config.students[0]) / "synth")
                         : 0;
  const uint64_t synth_shard = std::max(shard_bytes(run / "synth"), own_shard);
  out->memory_bytes += own_shard * static_cast<uint64_t>(rounds * config.rounds.batches);
  const bool kept = replay_keeps(d.replay);
  const auto batches =
      static_cast<uint64_t>(s.batches + (kept ? pupils * rounds * config.rounds.batches : 0));
  out->disk_bytes = bytes_below(run) + further_checkpoints(run, config.keep_checkpoints) +
                    (std::max(batches, few_shards) - few_shards) * synth_shard +
                    static_cast<uint64_t>(bank_rows) * bank_row + kPictures;
}

}  // namespace

DryRun dry_run(const RunConfig& config) {
  const TemporaryFolder folder;
  const Silence silence;
  const auto trained = static_cast<int64_t>(std::ranges::count_if(
      config.teachers, [](const TeacherConfig& t) { return t.weights.empty(); }));
  const bool trains_classifier =
      !config.metrics.classifier_model.empty() && config.metrics.classifier_weights.empty();
  // Held until the end, as the run holds them.
  RunContext full(config, folder.path() + "/none");
  const bool none = config.data.is_none();
  const int64_t test_images = none ? held_out_images(config) : full.test().size();
  // Held-out images come from the short run's own set, of which students need a batch.
  const int64_t short_pool = short_batches(config) * config.synthesis.batch_size;
  const int64_t most_tests =
      none ? std::min(config.synthesis.batches * config.synthesis.batch_size, short_pool) -
                 config.distill.batch_size
           : test_images;
  const bool needs_train = trained > 0 || trains_classifier;
  const int64_t train_images = needs_train ? full.train().size() : 1;

  const Samples samples = run_samples(config, folder.path(), train_images, test_images, most_tests);
  const auto times = [&samples](const char* stage, bool takes_steps = true) {
    return samples.times(stage, takes_steps);
  };
  DryRun out;
  const auto add = [&out](const char* name, const std::string& work, double seconds) {
    out.stages.push_back({name, work, seconds});
    out.seconds += seconds;
  };

  const TrainConfig& t = config.train;
  const int64_t epoch_steps = std::max<int64_t>(1, train_images / t.batch_size);
  const double train_steps = number(t.epochs * epoch_steps);
  const double train_tests = number(tests_of(t.epochs, t.eval_every) * test_images);
  const std::string training = fmt::format("{} epochs of {} steps", t.epochs, epoch_steps);
  if (trained > 0)
    add("teachers", fmt::format("{} x {}", trained, training),
        times("teachers").at(train_steps, train_tests));
  else
    add("teachers", fmt::format("{} imported{}", config.teachers.size(), none ? "" : ", tested"),
        times("teachers", false).at(0, none ? 0 : number(test_images)));

  const SynthesisConfig& s = config.synthesis;
  const bool given = is_given(s.source);
  const StageTimes synthesis = times("synthesis", !given);
  const double few = number(few_batches(config));
  if (s.batches > 0)
    add("synthesis",
        given ? fmt::format("{} batches, given", s.batches)
              : fmt::format("{} batches of {} steps", s.batches, s.g_steps),
        number(s.batches) / few * synthesis.at(given ? 0.0 : number(s.g_steps), 0));

  const int64_t pool = s.batches * s.batch_size - (none ? test_images : 0);
  if (!config.students.empty()) {
    const DryRunStage stage =
        plan_students(config, pool, test_images, synthesis, times("students"));
    add("students", stage.work, stage.seconds);
  }

  if (trains_classifier)
    add("classifier", training, times("classifier").at(train_steps, train_tests));
  const int64_t described = std::min(config.metrics.samples, test_images);
  add("metrics", fmt::format("{} images", described),
      times("metrics", false).at(0, number(described)));

  take_room(config, full, samples.last, pool, &out);
  out.free_bytes = data::free_bytes(config.out);
  return out;
}

std::string dry_run_table(const DryRun& e) {
  std::string out;
  for (const DryRunStage& s : e.stages)
    out += fmt::format("{:<10} {:<44} {:>9}\n", s.name, s.work, duration_text(s.seconds));
  out += fmt::format("{:<10} {:<44} {:>9}\n", "total", "estimated from a few steps of each",
                     duration_text(e.seconds));
  out += fmt::format("memory: about {}; disk: about {} of {} free\n",
                     human_bytes(static_cast<size_t>(e.memory_bytes)),
                     human_bytes(static_cast<size_t>(e.disk_bytes)),
                     human_bytes(static_cast<size_t>(e.free_bytes)));
  if (e.disk_bytes > e.free_bytes) out += "warning: the disk has too little room for this run\n";
  return out;
}

}  // namespace mtcki
