// The whole job on a tiny scale: train, synthesise, distil, adversarial rounds; killed or stopped
// anywhere and run again, it ends with the same bits.
#include <set>

#include "data/formats/state_file.h"
#include "mtcki/evaluation/confusion.h"
#include "mtcki/evaluation/neighbours.h"
#include "mtcki/run/folder.h"
#include "mtcki/synthesis/image_pool.h"
#include "nn/state_dict.h"
#include "tensor/ops/elementwise.h"
#include "tests/mtcki/pipeline_testing.h"

namespace mtcki {
namespace {

TEST(Pipeline, CompleteRun) {
  const std::string folder = fresh_folder("complete");
  RunLog log;
  const RunConfig config = tiny();
  const PipelineResult r = run_pipeline(config, folder, log);
  ASSERT_EQ(r.teachers.size(), 2u);
  EXPECT_EQ(r.teachers[0].name, "vgg8_w0.125");
  EXPECT_GE(r.teachers[0].top1, 0);
  EXPECT_EQ(r.synthetic_images, 36);
  ASSERT_EQ(r.students.size(), 1u);
  EXPECT_GE(r.students[0].top1_best, r.students[0].top1);
  EXPECT_GE(r.students[0].agreement, 0);
  std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_EQ(metrics["generator_steps"], 9);
  EXPECT_EQ(metrics["kd_steps"], 8);
  EXPECT_GT(metrics["teacher_forward_macs"], 0);
  for (const char* stage : {"teachers", "synthesis", "students"}) EXPECT_GT(r.seconds.at(stage), 0);
  const ImagePool pool = ImagePool::open(folder + "/synth");
  EXPECT_EQ(pool.size(), 36);
  EXPECT_EQ(pool.info().teachers.size(), 2u);

  // A second call does nothing again: it answers from the markers.
  const auto before = results(folder);
  stop_after_polls(1);  // any step would stop it
  const PipelineResult again = run_pipeline(config, folder, log);
  stop_after_polls(0);
  EXPECT_EQ(again.students[0].top1, r.students[0].top1);
  EXPECT_EQ(again.seconds.at("synthesis"), r.seconds.at("synthesis"));
  EXPECT_TRUE(before == results(folder));

  // Another configuration in the same folder is refused, not mixed in.
  RunConfig other = config;
  other.synthesis.loss["bn"] = 2;
  EXPECT_THROW(run_pipeline(other, folder, log), UsageError);
  fs::remove_all(folder);
}

TEST(Pipeline, KilledOrStoppedAnywhereEndsTheSame) {
  RunConfig config = tiny();
  config.synthesis.g_life_first = 2;  // a generator for two batches, where g_life = 1
  const std::string whole = fresh_folder("whole");
  RunLog log(whole, false);
  run_pipeline(config, whole, log);
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "killed" : "stopped");
    EXPECT_GE(run_with_interruptions(config, cut, kill ? 5 : 2, kill), 3);
    expect_equal_results(whole, cut);
    fs::remove_all(cut);
  }
  fs::remove_all(whole);
}

// Kept outputs are not saved: what is resumed asks the teachers again, and gets the same bits.
TEST(Pipeline, KeptTeacherOutputsResumeToo) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  config.distill.epochs = 5;
  config.distill.views = 2;
  config.distill.batch_size = 8;  // a view ends in a smaller batch
  config.distill.checkpoint_every = 3;
  config.students.push_back({"second", "vgg8_w0.125"});
  const std::string whole = fresh_folder("uncut_views");
  RunLog log(whole, false);
  const auto macs = [](const PipelineResult& r) {
    return std::map<std::string, double>(r.metrics.begin(), r.metrics.end()).at("kd_forward_macs");
  };
  const double kept = macs(run_pipeline(config, whole, log));
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "views_killed" : "views_stopped");
    EXPECT_GE(run_with_interruptions(config, cut, kill ? 7 : 4, kill), 3);
    expect_equal_results(whole, cut);
    EXPECT_EQ(macs(run_pipeline(config, cut, log)), kept);
    fs::remove_all(cut);
  }
  // Two views of 36 images, where fresh views take five passes of 4 batches of 8.
  config.distill.views = 0;
  const std::string fresh = fresh_folder("fresh_views");
  EXPECT_NEAR(kept / macs(run_pipeline(config, fresh, log)), 2.0 * 36 / (5 * 4 * 8), 1e-9);
  fs::remove_all(fresh);
  fs::remove_all(whole);
}

TEST(Pipeline, AdversarialRoundsResumeToo) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  config.rounds.per_epoch = 1;  // in each of two epochs
  config.synthesis.loss["adv"] = 0.5;
  config.distill.steps_per_epoch = 3;
  config.distill.checkpoint_every = 2;
  const std::string whole = fresh_folder("uncut_rounds");
  RunLog log(whole, false);
  const PipelineResult r = run_pipeline(config, whole, log);
  std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_EQ(metrics["generator_steps"], 9 + 2 * 3);
  EXPECT_EQ(metrics["kd_steps"], 6);
  EXPECT_EQ(ImagePool::open(whole + "/synth").size(), 36);  // the shared set is not touched
  EXPECT_EQ(ImagePool::open(whole + "/students/s/synth").size(), 24);
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "rounds_killed" : "rounds_stopped");
    run_with_interruptions(config, cut, 5, kill);
    expect_equal_results(whole, cut);
    fs::remove_all(cut);
  }
  fs::remove_all(whole);
}

// CMI from nothing: no set before the student, batches of two in each round, none shared.
TEST(Pipeline, RoundsFromNothing) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  config.synthesis.batches = 0;
  config.synthesis.loss["adv"] = 0.5;
  config.rounds.per_epoch = 2;
  config.rounds.batches = 2;
  config.distill.steps_per_epoch = 4;
  config.distill.checkpoint_every = 3;
  const std::string whole = fresh_folder("from_nothing");
  RunLog log(whole, false);
  const PipelineResult r = run_pipeline(config, whole, log);
  std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_EQ(metrics["generator_steps"], 2 * 2 * 2 * 3);
  EXPECT_EQ(metrics["kd_steps"], 8);
  EXPECT_GT(metrics["class_coverage"], 0);  // of the student's own images
  EXPECT_FALSE(fs::exists(whole + "/synth"));
  EXPECT_EQ(ImagePool::open(whole + "/students/s/synth").size(), 8 * 12);
  EXPECT_THROW(run_synthesis(config, whole, log), UsageError);
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "nothing_killed" : "nothing_stopped");
    EXPECT_GE(run_with_interruptions(config, cut, 7, kill), 2);
    expect_equal_results(whole, cut);
    fs::remove_all(cut);
  }
  fs::remove_all(whole);

  // A call that found everything finished reports the same, without a set before the students too.
  const fs::path reported = fresh_folder("nothing_reported");
  config.out = reported.parent_path().string();
  config.name = reported.filename().string();
  RunFolder run(config, {"mtcki", "run"}, false);
  const nlohmann::json first = run.write_result(r);
  EXPECT_EQ(run.write_result(r).dump(), first.dump());
}

// CMI's adversarial layout: the bank and the head of the contrast do not go on from the set made before.
TEST(Pipeline, TheHistoryOfRoundsMayBeginAnew) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  config.rounds.per_epoch = 1;
  config.distill.steps_per_epoch = 2;
  config.distill.checkpoint_every = 2;
  const auto images = [](const std::string& folder) {
    return ImagePool::open(folder + "/students/s/synth").load().images;
  };
  const std::string kept = fresh_folder("history_kept"), anew = fresh_folder("history_anew");
  RunLog silent, log(anew, false);
  run_pipeline(config, kept, silent);
  config.rounds.keep_history = false;
  run_pipeline(config, anew, log);
  EXPECT_FALSE(identical(images(kept), images(anew)));
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "anew_killed" : "anew_stopped");
    run_with_interruptions(config, cut, 5, kill);
    expect_equal_results(anew, cut);
    fs::remove_all(cut);
  }
  fs::remove_all(kept);
  fs::remove_all(anew);
}

TEST(Pipeline, ASecondStudentFromTheSavedSet) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  const std::string folder = fresh_folder("second");
  RunLog log;
  run_teachers(config, folder, log);
  EXPECT_EQ(run_synthesis(config, folder, log), 36);
  run_students(config, folder, log);
  const std::string first = bytes(folder + "/students/s/model.safetensors");
  const std::string manifest = bytes(folder + "/synth/manifest.json");
  config.students.resize(2);
  config.students[1].name = "other";
  config.students[1].model = "resnet8";
  const auto r = run_students(config, folder, log);
  EXPECT_EQ(r.size(), 2u);
  EXPECT_EQ(bytes(folder + "/students/s/model.safetensors"), first);
  EXPECT_EQ(bytes(folder + "/synth/manifest.json"), manifest);
  fs::remove_all(folder);
}

TEST(Pipeline, ImportedTeachersKeepTheirNormalisation) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  const std::string made = fresh_folder("made"), used = fresh_folder("used");
  RunLog log;
  const auto trained = run_teachers(config, made, log);
  RunConfig import = config;
  for (size_t m = 0; m < 2; ++m)
    import.teachers[m].weights = made + "/teachers/" + trained[m].name + "/model.safetensors";
  const auto imported = run_teachers(import, used, log);
  for (size_t m = 0; m < 2; ++m) {
    EXPECT_TRUE(imported[m].imported);
    EXPECT_EQ(imported[m].top1, trained[m].top1);
  }
  // Weights of another architecture: one clear line.
  import.teachers[0].name = "wrong";
  import.teachers[0].model = "resnet8";
  try {
    run_teachers(import, used, log);
    FAIL() << "accepted weights of another architecture";
  } catch (const DataError& e) {
    EXPECT_NE(std::string(e.what()).find("vgg8_w0.125"), std::string::npos) << e.what();
  }
  fs::remove_all(made);
  fs::remove_all(used);
}

TEST(Pipeline, StagesNameTheCommandThatIsMissing) {
  const std::string folder = fresh_folder("missing");
  RunLog log;
  try {
    run_students(tiny(), folder, log);
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("mtcki train"), std::string::npos) << e.what();
  }
  fs::remove_all(folder);
}

TEST(Pipeline, HeldOutClassifierGivesFidAndIs) {
  RunConfig config = tiny();
  config.train.epochs = 1;
  config.metrics.classifier_model = "vgg8_w0.125";
  config.metrics.samples = 30;
  const std::string folder = fresh_folder("metrics");
  RunLog log;
  const PipelineResult r = run_pipeline(config, folder, log);
  std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_GT(metrics["fid_c"], 0);
  EXPECT_GE(metrics["is_c"], 1);
  EXPECT_LE(metrics["is_c"], 10);
  EXPECT_GT(r.seconds.at("classifier"), 0);
  EXPECT_NE(result_table(to_json(r)).find("\n  classifier "), std::string::npos);
  // What the report shows of the real sets agrees with the numbers.
  for (const auto& [dir, top1] :
       {std::pair<std::string, double>{"/teachers/second", r.teachers[1].top1},
        {"/students/s", r.students[0].top1}}) {
    const auto matrix = read_confusion(folder + dir);
    ASSERT_TRUE(matrix) << dir;
    EXPECT_EQ(matrix->total(), 40);
    EXPECT_DOUBLE_EQ(100.0 * static_cast<double>(matrix->correct()) / 40, top1) << dir;
  }
  const std::string neighbours = folder + "/metrics/neighbours.safetensors";
  const auto shown = read_neighbours(neighbours);
  ASSERT_TRUE(shown);
  EXPECT_EQ(shown->size(), 20);
  EXPECT_EQ(shown->searched, 64);
  EXPECT_EQ(shown->space, "features of the held-out classifier (vgg8_w0.125)");
  // Made again only when asked for differently.
  const auto written = fs::last_write_time(neighbours);
  run_pipeline(config, folder, log);
  EXPECT_EQ(fs::last_write_time(neighbours), written);
  config.metrics.neighbours = 4;
  run_pipeline(config, folder, log);
  EXPECT_EQ(read_neighbours(neighbours)->size(), 4);
  fs::remove_all(folder);
}

// An update may overflow just before a checkpoint: that one is not kept.
TEST(Pipeline, CheckpointsHoldFiniteWeights) {
  RunConfig config = tiny();
  config.train.lr = 1e3;
  config.train.epochs = 6;
  config.train.checkpoint_every = 1;
  const std::string folder = fresh_folder("finite");
  RunLog log;
  try {
    run_teachers(config, folder, log);
  } catch (const NumericError&) {
  }
  int files = 0;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    if (e.path().filename() != "state.safetensors") continue;
    ++files;
    EXPECT_EQ(not_finite(data::read_safetensors(e.path().string()).tensors), "") << e.path();
  }
  EXPECT_GT(files, 0);
  fs::remove_all(folder);
}

TEST(Pipeline, NanInALossStopsWithTermAndStep) {
  RunConfig config = tiny();
  config.train.lr = 1e30;
  const std::string folder = fresh_folder("nan");
  RunLog log;
  try {
    run_teachers(config, folder, log);
    FAIL() << "NaN was not noticed";
  } catch (const NumericError& e) {
    const std::string text = e.what();
    EXPECT_NE(text.find("cross_entropy"), std::string::npos) << text;
    EXPECT_NE(text.find("step"), std::string::npos) << text;
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace mtcki
