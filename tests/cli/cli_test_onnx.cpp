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
