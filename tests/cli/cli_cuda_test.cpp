// The program with --device cuda: a whole tiny run, and what it says about the device.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/cuda_testing.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string read_file(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

class CliCuda : public testing::CudaTest {
 protected:
  void SetUp() override {
    testing::CudaTest::SetUp();
    dir_ = fs::temp_directory_path() / ("mtcki_cli_cuda_" + std::to_string(getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  // The program on this test's device; the exit code.
  int run(const std::string& arguments) {
    const std::string program =
        cuda::is_emulated() ? MTCKI_BINARY_DIR "/tests/mtcki_emulated" : MTCKI_BINARY_DIR "/mtcki";
    const std::string command = program + " " + arguments + " >" + (dir_ / "out").string() + " 2>" +
                                (dir_ / "err").string();
    const int status = std::system(command.c_str());
    out_ = read_file(dir_ / "out");
    err_ = read_file(dir_ / "err");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  fs::path dir_;
  std::string out_, err_;
};

TEST_F(CliCuda, WholeRun) {
  std::ofstream(dir_ / "tiny.toml") << R"(name = "tiny"
read_every = 2
[data]
name = "synth10-gray"
train_limit = 16
test_limit = 10
[train]
epochs = 1
batch_size = 4
[[teachers]]
model = "vgg8_w0.125"
[synthesis]
batches = 2
batch_size = 6
g_steps = 3
nz = 4
ngf = 2
bank_size = 8
bank_draw = 6
head_dim = 4
[distill]
epochs = 1
batch_size = 4
ts_queue = 4
[[students]]
model = "vgg8_w0.125"
name = "pupil"
[metrics]
neighbours = 0
)";
  const std::string base = "run " + (dir_ / "tiny.toml").string() + " out=" + dir_.string();
  ASSERT_EQ(run(base + " --device cuda"), 0) << err_;
  EXPECT_THAT(err_, HasSubstr("device: cuda:0"));
  EXPECT_THAT(err_, HasSubstr("math: f32 strict"));
  const auto result = nlohmann::json::parse(read_file(dir_ / "tiny/result.json"));
  EXPECT_EQ(result.dump().find("null"), std::string::npos);
  EXPECT_TRUE(fs::exists(dir_ / "tiny/students/pupil/model.safetensors"));
  // What it wrote is what a run on the CPU continues from.
  ASSERT_EQ(run(base + " --device cpu"), 0) << err_;
  const std::string weights = (dir_ / "tiny/students/pupil/model.safetensors").string();
  ASSERT_EQ(run("eval --data synth10-gray --limit 10 --json --device cuda --weights " + weights), 0)
      << err_;
  const auto there = nlohmann::json::parse(out_);
  ASSERT_EQ(run("eval --data synth10-gray --limit 10 --json --device cpu --weights " + weights), 0);
  EXPECT_EQ(nlohmann::json::parse(out_).at("top1"), there.at("top1"));
}

TEST_F(CliCuda, InfoNamesTheDevice) {
  ASSERT_EQ(run("info"), 0);
  EXPECT_THAT(out_, HasSubstr("GPU"));
  EXPECT_THAT(out_, HasSubstr(cuda::device_info(0).name));
}

TEST_F(CliCuda, UnknownDeviceIsRefused) {
  EXPECT_EQ(run("eval --data synth10-gray --weights none --device cuda:99"), 2);
  EXPECT_THAT(err_, HasSubstr("cuda:99"));
}

}  // namespace
}  // namespace mtcki
