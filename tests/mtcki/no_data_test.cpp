// data.name = "none": the whole job without one real image.
#include "mtcki/run/no_data.h"

#include <gmock/gmock.h>

#include "mtcki/networks/class_order.h"
#include "mtcki/run/context.h"
#include "mtcki/run/folder.h"
#include "mtcki/synthesis/image_pool.h"
#include "nn/models/model.h"
#include "tensor/error.h"
#include "tensor/ops/reduce.h"
#include "tests/mtcki/pipeline_testing.h"

namespace mtcki {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const data::Normalization kTheirs{{0.4, 0.5, 0.6}, {0.2, 0.25, 0.3}};

// A teacher that nobody trained, in a file of its own.
std::string teacher_file(const std::string& folder, uint64_t seed, const data::Normalization& n,
                         const std::vector<std::string>& classes = {}) {
  nn::Init init(seed);
  ModelCard card;
  card.spec = {"vgg8_w0.125", 3, 32, 10};
  card.normalization = n;
  card.classes = classes;
  const std::string path = folder + "/teacher" + std::to_string(seed) + ".safetensors";
  write_model_file(path, *nn::make_classifier(card.spec, init), card);
  return path;
}

RunConfig without_data(const std::string& folder) {
  RunConfig c = tiny();
  c.data = DataConfig{};
  c.data.name = "none";
  c.data.classes = 10;
  c.data.pixels = 32;
  c.teachers[0].name = "first";
  for (size_t m = 0; m < 2; ++m) c.teachers[m].weights = teacher_file(folder, m + 1, kTheirs);
  return c;
}

std::string refusal(const RunConfig& c) {
  try {
    validate(c);
  } catch (const UsageError& e) {
    return e.what();
  }
  return "(accepted)";
}

TEST(NoData, ImportsInvertsAndDistilsWithoutARealImage) {
  const std::string files = fresh_folder("no_data_files"), folder = fresh_folder("no_data");
  const RunConfig c = without_data(files);
  EXPECT_EQ(refusal(c), "(accepted)");
  RunLog log;
  const PipelineResult r = run_pipeline(c, folder, log);
  EXPECT_EQ(r.synthetic_images, 36);
  ASSERT_EQ(r.students.size(), 1u);
  // Nothing is called an accuracy, in whatever a reader sees.
  EXPECT_LT(r.students[0].top1, 0);
  EXPECT_LT(r.teachers[0].top1, 0);
  EXPECT_GE(r.students[0].agreement, 0);
  EXPECT_GE(r.students[0].agreement_best, r.students[0].agreement);
  EXPECT_GE(r.teachers[1].agreement, 0);
  for (const auto& [name, value] : r.metrics)
    for (const char* real : {"fid", "is_c", "real", "label", "distinct"})
      EXPECT_THAT(name, Not(HasSubstr(real)));
  const std::string table = result_table(to_json(r));
  EXPECT_THAT(table, AllOf(HasSubstr("agree"), HasSubstr("on 3 of the 36 synthetic images"),
                           HasSubstr("need real ones")));
  EXPECT_THAT(table.substr(0, table.find('\n')), Not(HasSubstr("top")));
  EXPECT_FALSE(fs::exists(folder + "/students/s/confusion.json"));
  EXPECT_FALSE(fs::exists(folder + "/metrics"));
  ModelCard student;
  load_model(folder + "/students/s/model.safetensors", {"vgg8_w0.125", 3, 32, 10}, "", &student);
  EXPECT_LT(student.top1, 0);
  EXPECT_EQ(student.normalization.mean, kTheirs.mean) << "stands where the teacher stood";

  // The images of the numbers are not among those that students learn from, and the label of each
  // is what the fused teachers say.
  RunContext run(c, folder);
  const data::ImageSet held = run.measured(), learnt = run.distilled();
  EXPECT_EQ(held.size(), 3);
  EXPECT_EQ(learnt.size(), 33);
  const auto row = [](const data::ImageSet& set, int64_t i) {
    return set.images.slice(i, i + 1).to_vector<uint8_t>();
  };
  for (int64_t i = 0; i < held.size(); ++i)
    for (int64_t j = 0; j < learnt.size(); ++j) EXPECT_NE(row(held, i), row(learnt, j));
  EXPECT_EQ(held.labels.to_vector<int64_t>(),
            argmax(run.fused_test_logits(), 1).to_vector<int64_t>());
  RunConfig seeded = c;
  seeded.seed = 5;
  const data::ImageSet pool = ImagePool::open(folder + "/synth").load();
  EXPECT_NE(pool_part(pool, c, true).labels.to_vector<int64_t>(),
            pool_part(pool, seeded, true).labels.to_vector<int64_t>());

  // A second call answers from the markers.
  const PipelineResult again = run_pipeline(c, folder, log);
  EXPECT_EQ(again.students[0].agreement, r.students[0].agreement);
  EXPECT_EQ(again.students[0].agreement_best, r.students[0].agreement_best);
  EXPECT_EQ(again.teachers[1].agreement, r.teachers[1].agreement);
  fs::remove_all(folder);
  fs::remove_all(files);
}

TEST(NoData, StoppedOrKilledAnywhereEndsTheSame) {
  const std::string files = fresh_folder("no_data_files");
  for (const int64_t rounds : {0, 1}) {
    RunConfig c = without_data(files);
    c.rounds.per_epoch = rounds;
    if (rounds > 0) c.distill.epochs = 1, c.distill.steps_per_epoch = 3;
    c.distill.checkpoint_every = 2;  // a kill leaves what the last checkpoint has
    const std::string whole = fresh_folder("no_data_whole");
    RunLog log(whole, false);
    run_pipeline(c, whole, log);
    for (const bool kill : {true, false}) {
      const std::string cut = fresh_folder("no_data_cut");
      EXPECT_GE(run_with_interruptions(c, cut, kill ? 5 : 2, kill), 2);
      expect_equal_results(whole, cut);
      fs::remove_all(cut);
    }
    fs::remove_all(whole);
  }
  fs::remove_all(files);
}

// What a data set would have said must come from somewhere, or the run is refused.
TEST(NoData, RefusesWhatCannotBeKnown) {
  const std::string files = fresh_folder("no_data_files"), folder = fresh_folder("no_data");
  const RunConfig good = without_data(files);
  const auto with = [&](const auto& change) {
    RunConfig c = good;
    change(c);
    return refusal(c);
  };
  EXPECT_THAT(with([](RunConfig& c) { c.data.classes = 0; }), HasSubstr("set data.classes"));
  EXPECT_THAT(with([](RunConfig& c) { c.data.pixels = 0; }), HasSubstr("data.pixels"));
  EXPECT_THAT(with([](RunConfig& c) { c.data.channels = 2; }), HasSubstr("1 or 3"));
  EXPECT_THAT(with([](RunConfig& c) { c.data.test_limit = 9; }), HasSubstr("data.train_limit"));
  EXPECT_THAT(with([](RunConfig& c) { c.teachers[1].weights = ""; }),
              HasSubstr("no images to train teacher \"second\""));
  EXPECT_THAT(with([](RunConfig& c) { c.metrics.classifier_model = "resnet8"; }),
              HasSubstr("metrics.classifier_model"));
  EXPECT_THAT(with([](RunConfig& c) { c.data.holdout = 30; }), HasSubstr("30 of 36"));
  EXPECT_THAT(with([](RunConfig& c) { c.data.name = "cifar10"; }),
              HasSubstr("are for data.name = \"none\""));
  // A normalisation that nobody gives: not another teacher's.
  RunConfig c = good;
  c.teachers[1].weights = teacher_file(files, 3, {});
  RunLog log;
  try {
    run_pipeline(c, folder, log);
    FAIL() << "took a normalisation from somewhere";
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), AllOf(HasSubstr("second"), HasSubstr("set mean and std")));
  }
  c.teachers[1].mean = kTheirs.mean;
  c.teachers[1].std = kTheirs.std;
  EXPECT_EQ(run_teachers(c, folder, log).size(), 2u);
  fs::remove_all(folder);
  fs::remove_all(files);
}

// Where files name their classes, those of the first are the set's, and others are put in order.
TEST(NoData, ClassesAreThoseOfTheFirstTeacherThatNamesThem) {
  const std::string files = fresh_folder("no_data_files"), folder = fresh_folder("no_data");
  RunConfig c = without_data(files);
  std::vector<std::string> names;
  for (char k = 'a'; k < 'k'; ++k) names.emplace_back(1, k);
  const std::vector<std::string> reversed(names.rbegin(), names.rend());
  c.teachers[0].weights = teacher_file(files, 4, kTheirs, names);
  c.teachers[1].weights = teacher_file(files, 5, kTheirs, reversed);
  RunLog log;
  run_teachers(c, folder, log);
  RunContext run(c, folder);
  EXPECT_EQ(run.class_names(), names);
  ModelCard card;
  const nn::ModelSpec spec{"vgg8_w0.125", 3, 32, 10};
  const auto bias = [&](const std::string& path) {
    const auto net = load_model(path, spec, "", &card);
    return net->state_dict().back().second.to_vector<float>();
  };
  std::vector<float> before = bias(c.teachers[1].weights);
  const std::vector<float> after = bias(folder + "/teachers/second/model.safetensors");
  std::reverse(before.begin(), before.end());
  EXPECT_EQ(before, after);
  EXPECT_EQ(card.classes, names);
  fs::remove_all(folder);
  fs::remove_all(files);
}

}  // namespace
}  // namespace mtcki
