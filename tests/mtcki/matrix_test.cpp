// What a matrix file becomes: cells, what they share, equal budgets; and which files are refused.
#include "mtcki/matrix/matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "mtcki/matrix/cost.h"
#include "mtcki/matrix/work.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/pipeline.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const char kTiny[] = MTCKI_SOURCE_DIR "/configs/protocols/synth10-tiny.toml";
const nn::ModelSpec kShape{"", 3, 32, 10};

class MatrixTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_matrix_" + std::to_string(getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string file(const std::string& text) const {
    std::ofstream(dir_ / "m.toml")
        << "base = [\"" MTCKI_SOURCE_DIR "/configs/synth10-tiny.toml\"]\n"
        << text;
    return (dir_ / "m.toml").string();
  }
  void refused(const std::string& text, const std::string& why) const {
    try {
      load_matrix({file(text)});
      FAIL() << text;
    } catch (const UsageError& e) {
      EXPECT_THAT(e.what(), HasSubstr(why)) << text;
    }
  }
  static const MatrixJob& job(const Matrix& m, const std::string& name) {
    for (const MatrixJob& j : m.jobs)
      if (j.name == name) return j;
    throw Error("no job " + name);
  }
  static std::vector<std::string> names(const Matrix& m, bool cells) {
    std::vector<std::string> out;
    for (const MatrixJob& j : m.jobs)
      if (j.is_cell() == cells) out.push_back(cells ? j.name : j.name.substr(0, j.name.rfind('-')));
    return out;
  }
  fs::path dir_;
};

TEST_F(MatrixTest, CellsAndWhatTheyShare) {
  const Matrix m = load_matrix({kTiny, "out=" + dir_.string(), "seeds=[0,7]"});
  EXPECT_EQ(m.folder, (dir_ / "synth10-tiny").string());
  EXPECT_THAT(names(m, true),
              ::testing::ElementsAre("mtcki.s0", "cmi.s0", "cmi-ensemble.s0", "real.s0", "noise.s0",
                                     "scratch.s0", "mtcki.s7", "cmi.s7", "cmi-ensemble.s7",
                                     "real.s7", "noise.s7", "scratch.s7"));
  // For each seed: two teachers, the classifier, and a set of each teacher alone.
  EXPECT_THAT(names(m, false),
              ::testing::ElementsAre("teacher-a", "teacher-b", "classifier", "set-a", "set-b",
                                     "teacher-a", "teacher-b", "classifier", "set-a", "set-b"));
  const MatrixJob& ensemble = job(m, "cmi-ensemble.s7");
  EXPECT_EQ(ensemble.config.seed, 7u);
  EXPECT_EQ(ensemble.config.synthesis.source, "sets");
  ASSERT_EQ(ensemble.config.synthesis.from.size(), 2u);
  EXPECT_EQ(ensemble.config.teachers.size(), 2u) << "the students learn from all";
  ASSERT_EQ(ensemble.uses.size(), 5u);
  for (const MatrixJob::Use& use : ensemble.uses) EXPECT_LT(use.job, m.jobs.size() - 1);
  const MatrixJob& set = m.jobs[ensemble.uses[3].job];
  EXPECT_EQ(set.config.teachers.size(), 1u);
  EXPECT_EQ(set.config.synthesis.batches, 2) << "half of four";
  EXPECT_EQ(set.config.synthesis.source, "generator");
  EXPECT_EQ(set.config.students.size(), 0u);
  EXPECT_EQ(ensemble.config.synthesis.from[0], "../../shared/" + set.name);
  EXPECT_EQ(job(m, "cmi.s0").config.teachers.size(), 1u);
  EXPECT_EQ(job(m, "scratch.s0").stage, "train");
  EXPECT_EQ(job(m, "scratch.s0").config.teachers[1].name, "u");
  EXPECT_TRUE(job(m, "scratch.s0").uses.empty());
  // What every cell says is what its folder will say.
  EXPECT_EQ(RunFolder::path_of(ensemble.config), ensemble.folder());
}

TEST_F(MatrixTest, AxesMultiplyAndTeachersAreShared) {
  const Matrix m = load_matrix({file(R"(
[[methods]]
name = "one"
[[methods]]
name = "two"
config = ["synthesis.g_steps=9"]
[[teachers]]
name = "both"
[[teachers]]
name = "first"
config = ["teachers=[{name=\"a\",model=\"resnet8\"}]"]
[[data]]
name = "small"
config = ["data.test_limit=30"]
[[data]]
name = "large"
)")});
  EXPECT_THAT(names(m, true),
              ::testing::ElementsAre("one.both.small.s0", "two.both.small.s0", "one.first.small.s0",
                                     "two.first.small.s0", "one.both.large.s0", "two.both.large.s0",
                                     "one.first.large.s0", "two.first.large.s0"));
  EXPECT_EQ(job(m, "two.first.large.s0").config.synthesis.g_steps, 9);
  EXPECT_EQ(job(m, "one.first.small.s0").config.data.test_limit, 30);
  EXPECT_EQ(names(m, false).size(), 4u) << "a and b, on two data sets";
  // What comes last counts, and only what was asked for is chosen, with what it uses.
  const Matrix last = load_matrix({(dir_ / "m.toml").string(), "synthesis.g_steps=3"});
  EXPECT_EQ(job(last, "two.first.large.s0").config.synthesis.g_steps, 3);
  std::vector<std::string> chosen;
  for (const size_t i : chosen_jobs(m, {"two.*.small.s0", "one.first.large"}))
    chosen.push_back(m.jobs[i].is_cell() ? m.jobs[i].name : m.jobs[i].config.teachers[0].name);
  EXPECT_THAT(chosen, ::testing::UnorderedElementsAre("a", "b", "a", "two.both.small.s0",
                                                      "two.first.small.s0", "one.first.large.s0"));
  EXPECT_THROW(chosen_jobs(m, {"three"}), UsageError);
}

TEST_F(MatrixTest, BudgetsAreEqual) {
  const Matrix m = load_matrix({kTiny, "synthesis.batches=6", "distill.epochs=1"});
  const RunConfig& ours = job(m, "mtcki.s0").config;
  const auto whole = [](const RunConfig& c) { return planned_macs(c, kShape).whole(c); };
  const RunConfig& cmi = job(m, "cmi.s0").config;
  EXPECT_GT(cmi.synthesis.g_steps, ours.synthesis.g_steps) << "one teacher costs less than two";
  // To half a step per batch.
  EXPECT_NEAR(whole(cmi), whole(ours), 0.501 * planned_macs(cmi, kShape).per_g_step);
  const MatrixJob& ensemble = job(m, "cmi-ensemble.s0");
  double all = whole(ensemble.config), step = 0;
  for (size_t i = 3; i < 5; ++i) {
    const RunConfig& set = m.jobs[ensemble.uses[i].job].config;
    all += whole(set);
    step += planned_macs(set, kShape).per_g_step;
  }
  EXPECT_NEAR(all, whole(ours), 0.501 * step);
  refused(R"(
[[methods]]
name = "a"
[[methods]]
name = "b"
budget = "a"
config = ["distill.epochs=400"]
)",
          "cell b.s0: budget: the whole of a costs less");
}

// The g_steps of a method with rounds count in each student's rounds too.
TEST_F(MatrixTest, BudgetsOfMethodsWithRounds) {
  const Matrix m = load_matrix({file(R"(
[[methods]]
name = "a"
config = ["synthesis.g_steps=40"]
[[methods]]
name = "b"
budget = "a"
config = ["rounds.per_epoch=2", "rounds.batches=1", "distill.steps_per_epoch=4", "synthesis.adv=1"]
)")});
  const RunConfig &a = job(m, "a.s0").config, &b = job(m, "b.s0").config;
  const PlannedMacs planned = planned_macs(b, kShape);
  // 4 batches before, 4 epochs of 2 rounds for each of two students.
  EXPECT_LT(b.synthesis.g_steps, a.synthesis.g_steps * 4 / 20 + 2);
  EXPECT_NEAR(planned.whole(b), planned_macs(a, kShape).whole(a), 0.501 * planned.per_g_step);
  const auto with = [](const std::string& kind, const std::string& config) {
    return "[[methods]]\nname = \"a\"\n[[methods]]\nname = \"b\"\nbudget = \"a\"\nkind = \"" +
           kind + "\"\nconfig = [" + config + "]\n";
  };
  refused(with("run", "\"synthesis.source=noise\""), "given images take no generator steps");
  refused(with("scratch", ""), "kind scratch has no generator steps");
  refused(with("alone", "\"rounds.per_epoch=1\", \"distill.steps_per_epoch=4\""),
          "cell b.s0: rounds.per_epoch");
}

// With fresh replay the student learns as often as the generator does: epochs are chosen.
TEST_F(MatrixTest, BudgetsOfMethodsWithFreshImages) {
  const std::string dafl = R"(", "synthesis.ngf=4", "synthesis.nz=8", "synthesis.batch_size=16",
  "distill.batch_size=16", "rounds.per_epoch=2", "distill.steps_per_epoch=4")";
  const std::string text = R"(
[[methods]]
name = "a"
config = ["synthesis.g_steps=40"]
[[methods]]
name = "b"
budget = "a"
config = [")" MTCKI_SOURCE_DIR "/configs/methods/dafl.toml" +
                           dafl;
  const Matrix m = load_matrix({file(text + "]\n")});
  const RunConfig &a = job(m, "a.s0").config, &b = job(m, "b.s0").config;
  RunConfig more = b;
  more.distill.epochs += 1;
  const double epoch = planned_macs(more, kShape).whole(more) - planned_macs(b, kShape).whole(b);
  EXPECT_EQ(b.synthesis.g_steps, 1);
  EXPECT_NEAR(planned_macs(b, kShape).whole(b), planned_macs(a, kShape).whole(a), 0.501 * epoch);
  refused(text + ", \"distill.batch_size=4096\"]\n", "the whole of a costs less than one epoch");
}

// The plan is what a run counts.
TEST_F(MatrixTest, PlannedCostIsCountedCost) {
  const std::vector<std::vector<std::string>> all = {
      {"distill.views=0"},
      {"distill.views=3"},
      {"synthesis.cr=0"},
      {"synthesis.source=pixels"},
      {"synthesis.source=meta_generator"},
      {"synthesis.source=noise"},
      {"rounds.per_epoch=1", "rounds.batches=2", "distill.steps_per_epoch=3", "synthesis.adv=1"},
      {MTCKI_SOURCE_DIR "/configs/methods/dfq.toml", "synthesis.ngf=4", "synthesis.nz=8",
       "synthesis.batch_size=16", "distill.batch_size=16", "rounds.per_epoch=2", "distill.epochs=2",
       "distill.steps_per_epoch=4"},
      {MTCKI_SOURCE_DIR "/configs/methods/spaceshipnet.toml", "synthesis.ngf=4", "synthesis.nz=8",
       "synthesis.batch_size=16", "distill.batch_size=16", "rounds.per_epoch=2", "distill.epochs=2",
       "distill.steps_per_epoch=4", "synthesis.g_steps=2"},
      {MTCKI_SOURCE_DIR "/configs/methods/coboosting.toml", "synthesis.ngf=4", "synthesis.nz=8",
       "synthesis.batch_size=16", "distill.batch_size=16", "rounds.per_epoch=2", "distill.epochs=2",
       "distill.steps_per_epoch=4", "synthesis.g_steps=2"}};
  for (size_t i = 0; i < all.size(); ++i) {
    std::vector<std::string> inputs = {MTCKI_SOURCE_DIR "/configs/synth10-tiny.toml",
                                       "train.epochs=1", "distill.epochs=2", "data.test_limit=20",
                                       "synthesis.g_steps=2"};
    inputs.insert(inputs.end(), all[i].begin(), all[i].end());
    const RunConfig c = load_config(inputs, {});
    RunLog log;
    const PipelineResult r = run_pipeline(c, (dir_ / std::to_string(i)).string(), log);
    const double counted = counted_macs(c, kShape, to_json(r).at("metrics"));
    EXPECT_NEAR(counted / planned_macs(c, kShape).whole(c), 1, 1e-9) << all[i][0];
  }
}

TEST_F(MatrixTest, FilesAreRefusedInOneLine) {
  refused("", "no [[methods]]");
  refused("[[methods]]\nname = \"a\"\nlable = \"A\"\n",
          "unknown key \"lable\"; did you mean \"label\"?");
  refused("sedes = [1]\n", "did you mean \"seeds\"?");
  refused("seeds = [-1]\n[[methods]]\nname = \"a\"\n", "seeds expects a list of whole numbers");
  refused("[[methods]]\nname = \"a b\"\n", "it becomes a folder");
  refused("[[methods]]\nname = \"a\"\n[[methods]]\nname = \"a\"\n", "have one name");
  refused("seeds = [1, 1]\n[[methods]]\nname = \"a\"\n", "one seed twice");
  refused("[[methods]]\nname = \"a\"\nkind = \"scratsh\"\n", "did you mean \"scratch\"?");
  refused("[[methods]]\nname = \"a\"\nbudget = \"b\"\n", "no method is called \"b\"");
  refused("[[methods]]\nname = \"a\"\nbudget = \"a\"\n", "no budget of its own");
  refused("against = [\"c\"]\n[[methods]]\nname = \"a\"\n", "against: no method is called");
  refused("[[methods]]\nname = \"a\"\nteachers = [\"z\"]\n",
          "cell a.s0: no teacher is called \"z\"");
  refused("[[methods]]\nname = \"a\"\nconfig = [\"synthesis.g_step=1\"]\n", "synthesis.g_steps");
  refused("[[methods]]\nname = \"a\"\nconfig = [\"gone.toml\"]\n", "gone.toml");
  refused("[[methods]]\nname = \"a\"\n[[published]]\nmethod = \"a\"\n", "published: needs");
  refused("x = [\n", "m.toml:");
  EXPECT_THROW(load_matrix({}), UsageError);
  EXPECT_THROW(load_matrix({"seeds=[1]"}), UsageError);
  EXPECT_THROW(load_matrix({(dir_ / "none.toml").string()}), UsageError);
}

// The shipped ones, as far as that needs no data.
// NAME-choice.toml makes the choices for NAME.toml, with seeds that the table does not use.
TEST_F(MatrixTest, ProtocolsLoad) {
  const std::string choice = "-choice.toml";
  for (const auto& entry : fs::directory_iterator(MTCKI_SOURCE_DIR "/configs/protocols")) {
    std::string path = entry.path().string();
    std::vector<std::string> inputs = {path};
    // Some of these sets' files say which classes they have, and teachers' hashes cover them.
    if (path.find("/gpu-") != std::string::npos || path.find("cifar") != std::string::npos)
      inputs.emplace_back("data.name=synth10");
    const Matrix m = load_matrix(inputs);
    EXPECT_GE(m.jobs.size(), 12u) << path;
    if (!path.ends_with(choice)) {
      EXPECT_GE(m.seeds.size(), 3u) << path;
      continue;
    }
    path.replace(path.size() - choice.size(), choice.size(), ".toml");
    for (const uint64_t seed : load_matrix({path}).seeds)
      EXPECT_EQ(std::count(m.seeds.begin(), m.seeds.end(), seed), 0) << path;
    for (const MatrixJob& job : m.jobs) EXPECT_GT(job.config.data.holdout, 0) << job.name;
  }
}

}  // namespace
}  // namespace mtcki
