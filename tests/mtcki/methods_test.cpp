// Method files on a tiny case: each runs as it stands, and however often it is interrupted it ends with
// the same bits.
#include <gtest/gtest.h>

#include <set>

#include "mtcki/log/metrics_file.h"
#include "pipeline_testing.h"

namespace mtcki {
namespace {

class Methods : public ::testing::TestWithParam<const char*> {
 protected:
  static RunConfig config() {
    std::vector<std::string> inputs{MTCKI_SOURCE_DIR "/configs/synth10-tiny.toml"};
    const std::string method = GetParam();
    if (method == "further_keys")
      for (const char* key : {"synthesis.exchange=0.5", "distill.agree=2", "distill.priority=1",
                              "distill.heads=1", "distill.cam=1", "distill.grad_cam=1",
                              "distill.ema=0.5", "rounds.per_epoch=1", "distill.steps_per_epoch=4"})
        inputs.emplace_back(key);
    else
      inputs.push_back(MTCKI_SOURCE_DIR "/configs/methods/" + method + ".toml");
    return load_config(
        inputs, {"data.train_limit=60", "train.epochs=1", "data.test_limit=20", "synthesis.nz=8",
                 "synthesis.ngf=2", "synthesis.batch_size=13", "distill.batch_size=8",
                 "distill.epochs=2", "distill.checkpoint_every=3"});
  }
  // Losses of the images are not called as the student's are.
  static void expect_losses_apart(const std::string& folder) {
    std::set<std::string> of_images;
    for (const LossTermRow& row : inversion_terms()) of_images.insert(row.name);
    int found = 0;
    for (const metrics_file::Line& line : metrics_file::read(folder + "/metrics.jsonl"))
      for (const auto& [name, value] : line.values) {
        if (!line.stage.starts_with("student")) continue;
        EXPECT_FALSE(of_images.contains(name)) << name;
        found += name == "synthesis.loss";
      }
    EXPECT_GT(found, 0);
  }
  // Of what is made while the student trains.
  static std::set<std::string> pictures(const std::string& folder) {
    std::set<std::string> names;
    for (const auto& file : fs::directory_iterator(folder + "/samples"))
      if (const std::string name = file.path().filename(); name.starts_with("student"))
        names.insert(name);
    return names;
  }
};

TEST_P(Methods, ResumesExactly) {
  RunConfig c = config();
  c.students.resize(1);
  c.synthesis.batches = std::min<int64_t>(c.synthesis.batches, 3);
  c.synthesis.g_steps = std::min<int64_t>(c.synthesis.g_steps, 2);
  c.rounds.per_epoch = std::min<int64_t>(c.rounds.per_epoch, 2);
  c.distill.steps_per_epoch = 4;
  if (!c.distill.milestones.empty()) c.distill.milestones = {1};
  validate(c);
  const std::string whole = fresh_folder("whole");
  RunLog log(whole, false);
  const PipelineResult r = run_pipeline(c, whole, log);
  EXPECT_FALSE(pictures(whole).empty());
  expect_losses_apart(whole);
  const std::map<std::string, double> metrics(r.metrics.begin(), r.metrics.end());
  EXPECT_EQ(metrics.at("kd_steps"), 8);
  EXPECT_EQ(metrics.at("generator_steps"),
            static_cast<double>(c.synthesis.g_steps *
                                (c.synthesis.batches + 2 * c.rounds.per_epoch * c.rounds.batches)));
  for (const bool kill : {true, false}) {
    const std::string cut = fresh_folder(kill ? "killed" : "stopped");
    EXPECT_GE(run_with_interruptions(c, cut, kill ? 5 : 3, kill), 3);
    expect_equal_results(whole, cut);
    EXPECT_EQ(pictures(cut), pictures(whole));
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Methods,
                         ::testing::Values("nayer", "dense", "dfed", "adi", "spaceshipnet", "cdfkd",
                                           "coboosting", "further_keys"),
                         [](const auto& method) { return std::string(method.param); });

}  // namespace
}  // namespace mtcki
