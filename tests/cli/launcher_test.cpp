// The launcher of several builds: which one it starts, what it passes through, what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "launcher/choose.h"

namespace mtcki::launcher {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Levels = std::vector<std::string>;

TEST(LauncherChoice, TakesTheBestThatTheCpuHas) {
  const Levels built{"x86-64-v4", "x86-64-v3", "x86-64"};
  EXPECT_EQ(choose(built, kLevels, "").level, "x86-64-v4");
  EXPECT_EQ(choose(built, {"x86-64-v3", "x86-64-v2", "x86-64"}, "").level, "x86-64-v3");
  EXPECT_EQ(choose(built, {"x86-64-v2", "x86-64"}, "").level, "x86-64");
  EXPECT_EQ(choose({"x86-64-v4", "x86-64-v3"}, {"x86-64-v2", "x86-64"}, "").error,
            "no build of mtcki runs on this CPU, which is x86-64-v2, x86-64; built are: "
            "x86-64-v4, x86-64-v3");
}

TEST(LauncherChoice, TheEnvironmentForcesOne) {
  const Levels built{"x86-64-v4", "x86-64-v3"}, old{"x86-64-v3", "x86-64-v2", "x86-64"};
  EXPECT_EQ(choose(built, kLevels, "x86-64-v3").level, "x86-64-v3");
  EXPECT_EQ(choose(built, old, "x86-64-v4").error,
            "MTCKI_CPU=x86-64-v4: this CPU does not have it, only x86-64-v3, x86-64-v2, x86-64");
  EXPECT_EQ(choose(built, old, "x86-64-v2").error,
            "MTCKI_CPU=x86-64-v2: was not built; built are: x86-64-v4, x86-64-v3");
  EXPECT_EQ(choose(built, old, "avx2").error,
            "MTCKI_CPU=avx2: no such instruction set; built are: x86-64-v4, x86-64-v3");
  for (const char* level : {"x86-64-v2", "x86-64-v4", "avx2"})
    EXPECT_EQ(choose(built, old, level).level, "");
}

// A folder with the launcher and programs that say who they are and with what they were called.
class Launcher : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("mtcki_launcher_" + std::to_string(getpid()));
    fs::create_directories(dir_ / "bin");
    fs::copy_file(MTCKI_LAUNCHER, dir_ / "bin/mtcki");
  }
  void TearDown() override { fs::remove_all(dir_); }

  void build(const std::string& level, const std::string& folder = "bin/variants") const {
    const fs::path program = dir_ / folder / level / "mtcki";
    fs::create_directories(program.parent_path());
    std::ofstream(program) << "#!/bin/sh\necho \"" << level << ":$#:$1:$2:$0\"\nexit 7\n";
    fs::permissions(program, fs::perms::owner_all);
  }

  struct Outcome {
    int code;
    std::string text;  // both streams
  };
  Outcome run(const std::string& arguments = "", const std::string& environment = "") const {
    const std::string command =
        environment + " " + (dir_ / "bin/mtcki").string() + " " + arguments + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    Outcome o{-1, ""};
    for (int c; (c = std::fgetc(pipe)) != EOF;) o.text += static_cast<char>(c);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) o.code = WEXITSTATUS(status);
    return o;
  }

  static std::string best() {
    return __builtin_cpu_supports("x86-64-v4")   ? "x86-64-v4"
           : __builtin_cpu_supports("x86-64-v3") ? "x86-64-v3"
           : __builtin_cpu_supports("x86-64-v2") ? "x86-64-v2"
                                                 : "x86-64";
  }
  fs::path dir_;
};

TEST_F(Launcher, StartsTheBestWithTheSameArguments) {
  for (const std::string& level : kLevels) build(level);
  const Outcome o = run("train 'a b'");
  EXPECT_EQ(o.code, 7);
  EXPECT_THAT(o.text, StartsWith(best() + ":2:train:a b:"));
}

TEST_F(Launcher, TakesWhatThereIs) {
  build("x86-64");
  EXPECT_THAT(run().text, StartsWith("x86-64:0:"));
}

TEST_F(Launcher, InstalledWhereverThePrefixIs) {
  build("x86-64", fs::path("bin") / MTCKI_INSTALLED_VARIANTS);
  EXPECT_THAT(run("info").text, StartsWith("x86-64:1:info"));
  // Called through a link, as from /usr/local/bin, its own place counts.
  fs::rename(dir_ / "bin", dir_ / "real");
  fs::create_directories(dir_ / "bin");
  fs::create_symlink(dir_ / "real/mtcki", dir_ / "bin/mtcki");
  EXPECT_THAT(run("info").text, StartsWith("x86-64:1:info"));
}

TEST_F(Launcher, TheEnvironmentForcesOneOrFailsAsUsage) {
  for (const std::string& level : kLevels) build(level);
  EXPECT_THAT(run("", "MTCKI_CPU=x86-64").text, StartsWith("x86-64:0:"));
  EXPECT_THAT(run("", "MTCKI_CPU=").text, StartsWith(best()));
  Outcome o = run("", "MTCKI_CPU=sse9");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.text, StartsWith("error: MTCKI_CPU=sse9: no such instruction set"));
  fs::remove_all(dir_ / "bin/variants/x86-64-v2");
  o = run("", "MTCKI_CPU=x86-64-v2");
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.text, HasSubstr("was not built"));
}

TEST_F(Launcher, NothingBuiltIsAnError) {
  const Outcome o = run();
  EXPECT_EQ(o.code, 2);
  EXPECT_THAT(o.text, HasSubstr("built are: none"));
}

TEST_F(Launcher, AProgramThatDoesNotStartIsNamed) {
  build("x86-64");
  std::ofstream(dir_ / "bin/variants/x86-64/mtcki") << "#!/no/such/interpreter\n";
  const Outcome o = run();
  EXPECT_EQ(o.code, 1);
  EXPECT_THAT(o.text, HasSubstr("bin/variants/x86-64/mtcki: No such file"));
}

}  // namespace
}  // namespace mtcki::launcher
