// The folder of a run as a user meets it: what a refused command leaves, what repairs damage, what
// is found before anything is computed.
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "data/formats/image_file.h"
#include "data/formats/state_file.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/run/context.h"
#include "tensor/tensor.h"
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

class CliFolder : public CliTest {
 protected:
  fs::path folder() const { return dir_ / "runs" / "tiny"; }
  // Folders of one grey image of each class, for both parts.
  std::string images(const std::string& name, const std::vector<std::string>& classes, int64_t size,
                     uint8_t shade) const {
    for (const char* split : {"train", "test"})
      for (const std::string& c : classes)
        for (int i = 0; i < 4; ++i) {
          const fs::path where = dir_ / name / split / c;
          fs::create_directories(where);
          const double value = shade + 20 * i;
          data::write_png((where / (std::to_string(i) + ".png")).string(),
                          Tensor::full({3, size, size}, value, DType::u8));
        }
    return (dir_ / name).string();
  }
};

TEST_F(CliFolder, ARefusedCommandLeavesTheRecord) {
  ASSERT_EQ(run({"run", config()}).code, 0);
  const std::string before = read_file(folder() / "config.toml");
  const std::string manifest = read_file(folder() / "manifest.json");
  const std::string report = read_file(folder() / "report.html");
  refused({"run", config(), "seed=1"}, 2, "under another configuration");
  // A stage alone does not rewrite what describes the others.
  refused({"distill", config(), "synthesis.g_steps=3"}, 2, "under another configuration");
  EXPECT_EQ(read_file(folder() / "config.toml"), before);
  EXPECT_EQ(read_file(folder() / "manifest.json"), manifest);
  EXPECT_EQ(read_file(folder() / "report.html"), report);
  std::ofstream(folder() / "synth/manifest.json.tmp-4711-0") << "of a process that died";
  EXPECT_EQ(run({"run", (folder() / "config.toml").string()}).code, 0);
  EXPECT_FALSE(fs::exists(folder() / "synth/manifest.json.tmp-4711-0"));
  // A stage that was begun counts too.
  fs::remove(folder() / "teachers/resnet8/done.json");
  refused({"train", config(), "train.lr=0.01"}, 2, "holds a checkpoint of another configuration");
  EXPECT_EQ(read_file(folder() / "config.toml"), before);
}

TEST_F(CliFolder, TheMetricsClassifierIsAStageToo) {
  const std::string model = "metrics.classifier_model=";
  ASSERT_EQ(run({"run", config(), model + "vgg8_w0.125"}).code, 0);
  const std::string before = read_file(folder() / "config.toml");
  refused({"run", config(), model + "resnet8"}, 2, "under another configuration");
  EXPECT_EQ(read_file(folder() / "config.toml"), before);
  // What only reads its judgement may change.
  EXPECT_EQ(run({"run", config(), model + "vgg8_w0.125", "metrics.samples=30"}).code, 0);
}

TEST_F(CliFolder, ADamagedSetIsMadeAnewAsTheMessageSays) {
  ASSERT_EQ(run({"run", config()}).code, 0);
  const fs::path shard = folder() / "synth/shard-00001.safetensors";
  const std::string whole = read_file(shard);
  std::ofstream(shard) << "";
  refused({"run", config()}, 3, "delete the folder \"" + (folder() / "synth").string() + "\"");
  fs::remove_all(folder() / "synth");
  EXPECT_EQ(run({"run", config()}).code, 0);
  EXPECT_EQ(read_file(shard), whole);
}

// A stage that starts over leaves no lines of the attempt before.
TEST_F(CliFolder, MetricsOfAStageThatStartsOver) {
  ASSERT_EQ(run({"run", config()}).code, 0);
  fs::remove_all(folder() / "teachers");
  fs::remove_all(folder() / "synth");
  fs::remove_all(folder() / "students");
  ASSERT_EQ(run({"run", config(), "train.lr=0.01"}).code, 0);
  std::set<std::tuple<std::string, std::string, int64_t>> seen;
  std::istringstream lines(read_file(folder() / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto j = nlohmann::json::parse(line);
    EXPECT_TRUE(seen.emplace(j.at("stage"), j.at("kind"), j.at("step")).second) << line;
  }
  EXPECT_GT(seen.size(), 6u);
}

TEST_F(CliFolder, CheckFindsMissingFilesAndWhatTheGeneratorCannotMake) {
  fs::create_directories(dir_ / "empty");
  const std::string empty = "data.dir=" + (dir_ / "empty").string();
  for (const char* name : {"cifar10", "fashion-mnist"})
    refused({"run", config(), "--check", std::string("data.name=") + name, empty}, 3, "no file");
  // Training images are needed until the teachers are there, and by no other stage.
  for (const char* name : {"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"})
    fs::copy(fs::path(MTCKI_SOURCE_DIR "/data/fashion-mnist") / name, dir_ / "empty" / name);
  const std::string fashion = "data.name=fashion-mnist";
  for (const char* stage : {"run", "train"})
    refused({stage, config(), "--check", fashion, empty}, 3, "train-images");
  EXPECT_EQ(run({"invert", config(), "--check", fashion, empty}).code, 0);
  const RunConfig c = load_config({config()}, {fashion, empty});
  const RunContext context(c, folder().string());
  const std::string teacher = context.teacher_dir(c.teachers[0]);
  fs::create_directories(teacher);
  write_marker(teacher, context.teacher_sha(c.teachers[0]), nlohmann::json::object(), {});
  std::ofstream(folder() / "lock") << "";
  EXPECT_EQ(run({"run", config(), "--check", fashion, empty}).code, 0);
  // What the run would refuse is not fine.
  refused({"run", config(), "--check", fashion, empty, "train.lr=0.01"}, 2,
          "under another configuration");
  std::ofstream(folder() / "diary.txt") << "mine";
  refused({"run", config(), "--check", fashion, empty}, 2, "nor the folder of a run");
  fs::remove_all(folder());
  const std::string set = images("set", {"a", "b"}, 30, 0);
  const std::vector<std::string> more{config(), "data.name=imagefolder", "data.dir=" + set};
  refused({"run", more[0], "--check", more[1], more[2]}, 2, "synthesis.generator");
  EXPECT_EQ(run({"train", more[0], "--check", more[1], more[2]}).code, 0);
  // Noise, real images and sets of other runs need no generator.
  EXPECT_EQ(run({"run", more[0], "--check", more[1], more[2], "synthesis.source=noise"}).code, 0);
}

// data.size also where the set has a size of its own.
TEST_F(CliFolder, CheckKnowsTheSizeThatImagesAreBroughtTo) {
  fs::create_directories(dir_ / "tiny/val");
  std::ofstream(dir_ / "tiny/wnids.txt") << "n01443537";
  std::ofstream(dir_ / "tiny/val/val_annotations.txt") << "";
  const std::vector<std::string> command{"run", config(), "--check", "data.name=tiny-imagenet",
                                         "data.dir=" + (dir_ / "tiny").string()};
  EXPECT_EQ(run(command).code, 0);
  std::vector<std::string> sized = command;
  sized.push_back("data.size=30");
  refused(sized, 2, "synthesis.generator");
}

TEST_F(CliFolder, ImagesOfSeveralSizesAreVerifiedWithOne) {
  images("set", {"a", "b"}, 30, 0);
  const std::string set = images("set", {"c"}, 40, 0);
  refused({"data", "verify", "imagefolder", "--data-dir", set}, 3, "--data-size N");
  const Outcome o = run({"data", "verify", "imagefolder", "--data-dir", set, "--data-size", "32"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("12 images 3x32x32, 3 classes"));
}

TEST_F(CliFolder, ExportedWeightsCarryTheNormalisationThatIsGiven) {
  ASSERT_EQ(run({"train", config()}).code, 0);
  const std::string from = (folder() / "teachers/resnet8/model.safetensors").string();
  const std::string to = (dir_ / "out.safetensors").string();
  const std::vector<std::string> command{"export", "weights", "--weights", from, "--out", to};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), command.begin(), command.end());
    return more;
  };
  EXPECT_EQ(run(with({"--mean", "0.1,0.2,0.3", "--std", "1,2,3"})).code, 0);
  refused(with({"--mean", "120,120,120", "--std", "60,60,60"}), 2, "divide both by 255");
  const ModelCard card = read_model_card(to, data::read_safetensors(to).metadata);
  EXPECT_EQ(card.normalization.mean, (std::vector<double>{0.1, 0.2, 0.3}));
  EXPECT_EQ(card.normalization.std, (std::vector<double>{1, 2, 3}));
  refused(with({"--mean", "0.1,0.2,0.3"}), 2, "give both");
  refused(with({"--mean", "0.1", "--std", "1"}), 2, "1 values for 3 input channels");
  refused(with({"--classes", "7"}), 2, "says itself");
  // The manifest of a run is not that of a set.
  refused({"export", "images", folder().string(), "--out", (dir_ / "png").string()}, 3,
          "no synthetic set there");
}

TEST_F(CliFolder, AnotherImageFolderIsAnotherConfiguration) {
  const std::string first = images("first", {"a", "caf\xe9"}, 32, 0);  // not UTF-8
  const std::string second = images("second", {"a", "caf\xe9"}, 32, 100);
  const std::vector<std::string> command{"run",
                                         config("[metrics]\nneighbours = 0\n"),
                                         "data.name=imagefolder",
                                         "data.dir=" + first,
                                         "train.batch_size=4",
                                         "students.0.model=resnet8"};
  const Outcome o = run(command);
  ASSERT_EQ(o.code, 0) << o.err;
  std::vector<std::string> other = command;
  other[3] = "data.dir=" + second;
  refused(other, 2, "under another configuration");
}

TEST_F(CliFolder, StagesAloneReportWhatTheyMade) {
  const Outcome o = run({"train", config()});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, Not(HasSubstr("synthetic images")));
}

TEST_F(CliFolder, AFinishedModelThatIsNotWhatTheStageWroteIsRefused) {
  ASSERT_EQ(run({"run", config()}).code, 0);
  for (const char* stage : {"teachers/resnet8", "students/pupil"}) {
    const fs::path marker = folder() / stage / "done.json",
                   model = folder() / stage / "model.safetensors";
    const std::string good = read_file(model);
    std::string other = good;
    other.back() = static_cast<char>(other.back() ^ 1);  // a bit of a weight
    std::ofstream(model, std::ios::binary) << other;
    refused({"run", config()}, 3, "not what the stage wrote; delete " + marker.string());
    fs::remove(model);
    refused({"distill", config()}, 3, "missing, or not what");
    fs::remove(marker);
    EXPECT_EQ(run({"run", config()}).code, 0);
    EXPECT_EQ(read_file(model), good);
  }
  const fs::path marker = folder() / "teachers/resnet8/done.json";
  auto fields = nlohmann::json::parse(read_file(marker));
  fields["top1"] = 99.5;
  std::ofstream(marker) << fields.dump();
  refused({"run", config()}, 3, "done.json: damaged; delete it");
  fields.erase("crc32c");  // one without a checksum is no marker
  std::ofstream(marker) << fields.dump();
  refused({"run", config()}, 3, "done.json: damaged; delete it");
  fs::remove(marker);
  EXPECT_EQ(run({"run", config()}).code, 0);
}

TEST_F(CliFolder, FoldersInThePlaceOfFiles) {
  const std::string here = dir_.string();
  refused({"profile", "diff", here, here}, 3, "cannot be read");
  refused({"profile", "diff", file("p.json", R"({"schema":5})"), here}, 3, "not a profile");
  std::ofstream(dir_ / "lock") << "";
  fs::create_directories(folder() / "teachers/resnet8/done.json");
  fs::copy(dir_ / "lock", folder() / "lock");
  refused({"run", config()}, 3, "damaged; delete it");
  refused({"run", config(), "data=3"}, 2, "data is a table");
  fs::remove_all(folder());
  std::ofstream(dir_ / "runs" / "tiny");
  refused({"run", config()}, 6, "cannot create folder");
}

TEST_F(CliFolder, OutputThatCannotBeWritten) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  const std::string command =
      std::string(MTCKI_BINARY_DIR "/mtcki") + " summary --model resnet8 --json";
  const auto code_of = [](const std::string& shell) {
    const int status = std::system(shell.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  };
  EXPECT_EQ(code_of(command + " > /dev/full 2> " + (dir_ / "err").string()), 6);
  EXPECT_THAT(read_file(dir_ / "err"), HasSubstr("cannot write the output: No space left"));
  // A reader who has seen enough is no error, also where SIGPIPE is ignored.
  const std::string code = (dir_ / "code").string();
  code_of("trap '' PIPE; { sleep 0.3; " MTCKI_BINARY_DIR "/mtcki run --help-config; echo $? > " +
          code + "; } 2> " + (dir_ / "err").string() + " | true");
  EXPECT_EQ(read_file(code), "0\n");
  EXPECT_EQ(read_file(dir_ / "err"), "");
  EXPECT_EQ(code_of("ulimit -f 1; " + command + " > " + (dir_ / "out").string()), 0);
}

}  // namespace
}  // namespace mtcki
