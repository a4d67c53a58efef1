// A teacher that is an ONNX file.
#include "data/formats/state_file.h"
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

std::string onnx(const char* name) {
  return str(MTCKI_SOURCE_DIR "/tests/data/onnx/", name, ".onnx");
}

TEST_F(CliTest, AnOnnxFileIsATeacher) {
  const std::string toml = file("onnx.toml", "out = \"" + (dir_ / "runs").string() + R"("
threads = 1
[data]
name = "none"
classes = 7
pixels = 16
[[teachers]]
name = "mobile"
weights = ")" + onnx("mobile") + R"("
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[synthesis]
source = "pixels"
batches = 2
batch_size = 16
g_steps = 2
bank_size = 32
bank_draw = 16
[distill]
epochs = 1
batch_size = 8
[[students]]
model = "resnet8"
)");
  const Outcome o = run({"run", toml});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("5 batch norms, features of 16"));
  EXPECT_THAT(o.out, HasSubstr("mobile           onnx"));
  const Outcome dry = run({"run", toml, "--dry-run", "distill.views=1"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  // Folded batch norms: what to do is said, and done without statistics only when asked.
  const std::string folded = "teachers.0.weights=" + onnx("mobile_dynamo");
  refused({"run", toml, folded, "name=folded", "--check"}, 2,
          "export it again with torch.onnx.export(");
  EXPECT_EQ(run({"run", toml, folded, "name=folded", "synthesis.bn=0"}).code, 0);
  refused(
      {"run", toml, folded, "name=folded", "synthesis.bn=0", "distill.teacher_bn=batch", "--check"},
      2, "distill.teacher_bn: no teacher has a batch norm");
  refused({"run", toml, "teachers.0.model=resnet8", "name=x", "--check"}, 2, "leave model");
  // The data of a model that is two files is missed.
  fs::copy_file(onnx("mobile_dynamo"), dir_ / "alone.onnx");
  refused(
      {"run", toml, "teachers.0.weights=" + (dir_ / "alone.onnx").string(), "name=x", "--check"}, 3,
      "keep them together");
}

// As others write it into a file: mean and std beside the graph.
TEST_F(CliTest, TheNormalisationOfAnOnnxFile) {
  const std::string path = (dir_ / "normalised.onnx").string();
  const auto read = [&path](const std::string& mean, const std::string& std) {
    const auto field = [](char tag, const std::string& content) {
      return std::string{tag, static_cast<char>(content.size())} + content;
    };
    std::ofstream(path, std::ios::binary)
        << read_file(onnx("mobile")) << field('\x72', field('\x0a', "mean") + field('\x12', mean))
        << field('\x72', field('\x0a', "std") + field('\x12', std));
    const data::StateFile f = data::read_state_file(path);
    const auto text = [&f](const char* key) {
      const auto it = f.metadata.find(key);
      return it == f.metadata.end() ? std::string() : it->second;
    };
    return str(text("mtcki.mean"), " | ", text("mtcki.std"), f.notes.empty() ? "" : f.notes[0]);
  };
  EXPECT_EQ(read("0.5,0.25,0.5", "0.25,0.25,1"), "0.5,0.25,0.5 | 0.25,0.25,1");
  EXPECT_EQ(read("[0.5, 0.25, 0.5]", "(0.25; 0.25 1)"), "0.5,0.25,0.5 | 0.25,0.25,1");
  EXPECT_THAT(read("127.5,0,51", "255,255,255"), HasSubstr("0.5,0,0.20000000000000001 | 1,1,1its"));
  for (const char* std : {"", "1,1", "0,1,1", "imagenet", "1,1,1x"})
    EXPECT_THAT(read("0.5,0.5,0.5", std), HasSubstr(" | its metadata's mean and std")) << std;
  // What the file does not say of its images is taken from the flags.
  const std::string out = (dir_ / "again.onnx").string();
  refused({"export", "weights", "--weights", path, "--out", out}, 3, "7 classes, but 10");
  const Outcome o = run({"export", "weights", "--weights", path, "--out", out, "--classes", "7",
                         "--size", "28", "--mean", "0.5,0.5,0.5", "--std", "1,1,1"});
  EXPECT_EQ(o.code, 0) << o.err;
}

// Classes and sizes that the file declares, without a flag.
TEST_F(CliTest, InspectTakesTheSizesOfAnOnnxFile) {
  const Outcome o = run({"inspect", onnx("tall")});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("3 input channels, 7 classes"));
  EXPECT_THAT(o.out, HasSubstr("depthwise_1"));
  refused({"inspect", onnx("tall"), "--size", "24"}, 3, "do not fit");
}

}  // namespace
}  // namespace mtcki
