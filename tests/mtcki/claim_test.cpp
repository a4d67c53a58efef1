// Claims: one owner at a time, through death on this machine and silence of another one.
#include "mtcki/matrix/claim.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;

class ClaimTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = (fs::temp_directory_path() / ("mtcki_claim_" + std::to_string(getpid()))).string();
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  void put(const std::string& name, const std::string& text, int64_t age) const {
    const std::string path = dir_ + "/" + name;
    std::ofstream(path) << text;
    timespec times[2] = {{time(nullptr) - age, 0}, {time(nullptr) - age, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  std::string dir_;
};

TEST_F(ClaimTest, OneOwnerUntilItCloses) {
  EXPECT_EQ(read_claim(dir_, "a").number, 0);
  auto mine = Claim::take(dir_, "a");
  ASSERT_TRUE(mine);
  EXPECT_TRUE(read_claim(dir_, "a").held);
  EXPECT_FALSE(Claim::take(dir_, "a"));
  EXPECT_TRUE(Claim::take(dir_, "a.b")) << "another job";
  EXPECT_TRUE(mine->keep());
  mine->close("finished abc\nand more");
  const ClaimState state = read_claim(dir_, "a");
  EXPECT_EQ(state.text, "finished abc");
  EXPECT_FALSE(state.held);
  auto next = Claim::take(dir_, "a");
  ASSERT_TRUE(next);
  EXPECT_EQ(next->before(), "finished abc");
  next.reset();  // not closed
  EXPECT_EQ(read_claim(dir_, "a").text, "stopped");
  EXPECT_EQ(read_claim(dir_, "a").number, 2);
}

TEST_F(ClaimTest, AKilledOwnerIsKnownAtOnceAndItsChildKeepsTheClaim) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    auto claim = Claim::take(dir_, "a");
    const pid_t worker = fork();
    if (worker == 0) {  // inherits the file, as the process that computes
      pause();
      _exit(0);
    }
    if (write(ready[1], &worker, sizeof worker) < 0) _exit(1);
    pause();
    _exit(0);
  }
  pid_t worker = 0;
  ASSERT_EQ(read(ready[0], &worker, sizeof worker), static_cast<ssize_t>(sizeof worker));
  EXPECT_FALSE(Claim::take(dir_, "a"));
  kill(owner, SIGKILL);
  waitpid(owner, nullptr, 0);
  EXPECT_FALSE(Claim::take(dir_, "a")) << "what it started still writes";
  kill(worker, SIGKILL);
  std::optional<Claim> mine;
  for (int i = 0; i < 500 && !mine; ++i) {
    mine = Claim::take(dir_, "a");
    if (!mine) usleep(10000);
  }
  ASSERT_TRUE(mine);
  EXPECT_TRUE(mine->before().starts_with("held "));
  close(ready[0]);
  close(ready[1]);
}

TEST_F(ClaimTest, AnotherMachineIsBelievedForFiveMinutes) {
  put("a.1", "held other-boot 4711 node7\n", 200);
  EXPECT_TRUE(read_claim(dir_, "a").held);
  EXPECT_FALSE(Claim::take(dir_, "a"));
  put("a.1", "held other-boot 4711 node7\n", 400);
  EXPECT_FALSE(read_claim(dir_, "a").held);
  const auto mine = Claim::take(dir_, "a");
  ASSERT_TRUE(mine);
  EXPECT_TRUE(fs::exists(dir_ + "/a.2"));
  // One that has not written its line yet.
  put("b.1", "", 0);
  EXPECT_FALSE(Claim::take(dir_, "b"));
  put("b.1", "", 400);
  EXPECT_TRUE(Claim::take(dir_, "b"));
  for (const auto& entry : fs::directory_iterator(dir_))
    EXPECT_EQ(entry.path().filename().string().find("clock"), std::string::npos);
}

TEST_F(ClaimTest, OfManyProcessesOneGetsIt) {
  for (int round = 0; round < 5; ++round) {
    const std::string name = "job" + std::to_string(round);
    int go[2], done[2];
    ASSERT_EQ(pipe(go), 0);
    ASSERT_EQ(pipe(done), 0);
    std::vector<pid_t> all;
    for (int i = 0; i < 8; ++i) {
      all.push_back(fork());
      if (all.back() != 0) continue;
      char c;
      close(go[1]);
      close(done[1]);
      if (read(go[0], &c, 1) != 0) _exit(2);  // until all are there
      const auto mine = Claim::take(dir_, name);
      if (read(done[0], &c, 1) != 0) _exit(2);  // held until all have tried
      _exit(mine ? 1 : 0);
    }
    close(go[1]);
    usleep(200000);
    close(done[1]);
    int owners = 0;
    for (const pid_t p : all) {
      int status = 0;
      waitpid(p, &status, 0);
      owners += WEXITSTATUS(status);
    }
    EXPECT_EQ(owners, 1) << name;
    close(go[0]);
    close(done[0]);
  }
}

}  // namespace
}  // namespace mtcki
