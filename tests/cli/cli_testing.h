// The program `mtcki` started as a user starts it. CMake passes the path of the built binary.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace mtcki {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

struct Outcome {
  int code = -1;
  std::string out, err;
};

inline std::string read_file(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_cli_" + std::to_string(getpid()));
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  pid_t start(const std::vector<std::string>& arguments) const {
    const pid_t child = fork();
    if (child != 0) return child;
    std::vector<char*> argv;
    std::string program = MTCKI_BINARY_DIR "/mtcki";
    argv.push_back(program.data());
    std::vector<std::string> copy = arguments;
    for (std::string& a : copy) argv.push_back(a.data());
    argv.push_back(nullptr);
    if (!freopen((dir_ / "out").c_str(), "w", stdout)) _exit(98);
    if (!freopen((dir_ / "err").c_str(), "w", stderr)) _exit(98);
    execv(program.c_str(), argv.data());
    _exit(99);
  }
  Outcome wait_for(pid_t child) const {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    Outcome o;
    o.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    o.out = read_file(dir_ / "out");
    o.err = read_file(dir_ / "err");
    return o;
  }
  Outcome run(const std::vector<std::string>& arguments) const {
    return wait_for(start(arguments));
  }
  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return (dir_ / name).string();
  }
  std::string config(const std::string& more = "") const {
    return file("tiny.toml", "name = \"tiny\"\nout = \"" + (dir_ / "runs").string() + R"("
threads = 1
[data]
name = "synth10"
train_limit = 60
test_limit = 40
[train]
epochs = 2
batch_size = 20
[[teachers]]
model = "resnet8"
[synthesis]
batches = 2
batch_size = 16
g_steps = 2
nz = 8
ngf = 4
bank_size = 32
bank_draw = 16
head_dim = 16
[distill]
epochs = 2
batch_size = 16
ts_queue = 32
[[students]]
model = "resnet8"
name = "pupil"
)" + more);
  }
  // The last line of stderr, which is the error.
  static std::string last_line(const std::string& text) {
    std::istringstream in(text);
    std::string line, last;
    while (std::getline(in, line))
      if (!line.empty()) last = line;
    return last;
  }
  void refused(const std::vector<std::string>& arguments, int code, const std::string& text) const {
    const Outcome o = run(arguments);
    std::string command;
    for (const std::string& a : arguments) command += a + " ";
    EXPECT_EQ(o.code, code) << command << o.err;
    EXPECT_THAT(last_line(o.err), HasSubstr(text)) << command;
    EXPECT_THAT(last_line(o.err), HasSubstr("error: ")) << command;
    EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n') <= 4, true) << o.err;
  }
  fs::path dir_;
};

}  // namespace mtcki
