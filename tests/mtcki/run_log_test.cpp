// metrics.jsonl, samples, events, progress text, signals.
#include "mtcki/log/run_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>
#include <vector>

#include "data/formats/image_file.h"
#include "mtcki/host/console.h"
#include "mtcki/host/progress.h"
#include "mtcki/host/stop_signal.h"
#include "mtcki/log/chance_watch.h"
#include "mtcki/log/metrics_file.h"
#include "mtcki/log/step_clock.h"
#include "tensor/error.h"
#include "tensor/ops/matmul.h"
#include "tensor/parallel.h"
#include "tensor/tensor.h"

namespace mtcki::run_log_test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

std::string read_file(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

class RunLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    console::set_silent(true);
    dir_ = fs::temp_directory_path() / ("mtcki_log_" + std::to_string(getpid()));
    fs::remove_all(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  std::string path() const { return dir_.string(); }
  std::vector<metrics_file::Line> lines(int64_t* skipped = nullptr) const {
    return metrics_file::read(path() + "/metrics.jsonl", skipped);
  }
  int event_files(const std::string& stage) const {
    int n = 0;
    for (const auto& e : fs::directory_iterator(dir_ / "events" / stage))
      n += e.path().filename().string().rfind("events.out.tfevents.", 0) == 0;
    return n;
  }
  fs::path dir_;
};

TEST_F(RunLogTest, WarnsOnceOfAContrastThatStaysAtChance) {
  RunLog log(path(), false);
  const double chance = std::log(4224.0);
  const auto step = [&](const std::string& stage, int64_t at, double loss) {
    log.metrics(stage, at, 0.1, "train", {{"contrast", loss}, {"contrast.chance", chance}});
  };
  const int logged = 3 * ChanceWatch::kLogged, every = ChanceWatch::kSteps / ChanceWatch::kLogged;
  for (int i = 0; i < logged; ++i) {
    step("student/a", i * every, 0.9 * chance);
    // As a healthy one begins: at chance for some steps.
    step("student/b", i * every, i % ChanceWatch::kLogged == 0 ? 0.9 * chance : 1.01 * chance);
    step("student/short", i, chance);  // many logged steps, but few steps
  }
  EXPECT_TRUE(log.warnings().empty());
  for (int i = 0; i < logged; ++i) step("student/c", (i + 1) * every, 8.348);
  ASSERT_EQ(log.warnings().size(), 1u);
  EXPECT_THAT(log.warnings()[0], HasSubstr("student/c: contrast stays at chance (8.348 of 8.349"));
  EXPECT_EQ(lines().size(), static_cast<size_t>(4 * logged + 1));
}

TEST_F(RunLogTest, ProgressShowsChanceBesideItsLoss) {
  EXPECT_THAT(Progress::text("s", 1, 2, 0, 5, {{"contrast", 5.25}, {"contrast.chance", 8.349}}, 0),
              HasSubstr("contrast 5.25 (chance 8.349)"));
}

TEST_F(RunLogTest, EveryLineIsAJsonObjectThatReadsBack) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  {
    RunLog log(path(), true);
    log.metrics("student/a", 3, 0.25, "train", {{"loss", 0.1}, {"acc", 50.0}});
    log.metrics("student/a", 4, 0.5, "eval", {{"loss", nan}, {"big", INFINITY}});
    log.warn("a \"strange\"\nwarning \xff");
  }
  std::istringstream text(read_file(dir_ / "metrics.jsonl"));
  int count = 0;
  for (std::string line; std::getline(text, line); ++count)
    EXPECT_TRUE(nlohmann::json::parse(line).is_object()) << line;
  EXPECT_EQ(count, 3);
  const auto l = lines();
  ASSERT_EQ(l.size(), 3u);
  EXPECT_EQ(l[0].stage, "student/a");
  EXPECT_EQ(l[0].step, 3);
  EXPECT_EQ(l[0].kind, "train");
  EXPECT_DOUBLE_EQ(l[0].epoch, 0.25);
  EXPECT_GT(l[0].t, 1.6e9);
  ASSERT_EQ(l[0].values.size(), 2u);
  EXPECT_EQ(l[0].values[1], (std::pair<std::string, double>{"loss", 0.1}));
  EXPECT_EQ(l[1].values[0].second, INFINITY);
  EXPECT_TRUE(std::isnan(l[1].values[1].second));
  EXPECT_EQ(l[2].kind, "warning");
  EXPECT_EQ(event_files("student-a"), 1);
}

// A kill tears at most the last line: every such tear is repaired by the next process.
TEST_F(RunLogTest, TornLastLineIsCutOff) {
  {
    RunLog log(path(), false);
    log.metrics("s", 1, 0, "train", {{"loss", 1.0}});
    log.metrics("s", 2, 0, "train", {{"loss", 2.0}});
  }
  const std::string whole = read_file(dir_ / "metrics.jsonl");
  const size_t first = whole.find('\n') + 1;
  for (size_t n = 0; n < whole.size(); ++n) {
    std::ofstream(dir_ / "metrics.jsonl", std::ios::binary | std::ios::trunc) << whole.substr(0, n);
    int64_t skipped = -1;
    const size_t readable = lines(&skipped).size();
    EXPECT_EQ(skipped, 0) << "a torn last line is no damage";
    EXPECT_LE(readable, 2u);
    RunLog(path(), false).metrics("s", 3, 0, "train", {});
    const auto l = lines(&skipped);
    EXPECT_EQ(skipped, 0);
    ASSERT_EQ(l.size(), n < first ? 1u : 2u) << n;
    EXPECT_EQ(l.back().step, 3);
  }
}

TEST_F(RunLogTest, DamagedLinesInTheMiddleAreCounted) {
  {
    RunLog log(path(), false);
    log.metrics("s", 1, 0, "train", {});
  }
  std::ofstream(dir_ / "metrics.jsonl", std::ios::app) << "{broken\n[1,2]\n{\"step\":1e300}\n";
  int64_t skipped = 0;
  EXPECT_EQ(lines(&skipped).size(), 2u);
  EXPECT_EQ(skipped, 2);
}

TEST_F(RunLogTest, RewindForgetsOnlyLaterStepsOfThatStage) {
  {
    RunLog log(path(), true);
    for (int64_t step = 1; step <= 5; ++step) {
      log.metrics("a", step, 0, "train", {{"loss", 1.0}});
      log.metrics("b", step, 0, "train", {{"loss", 1.0}});
    }
  }
  {
    RunLog log(path(), true);
    log.rewind("a", 3);
    log.metrics("a", 4, 0, "train", {{"loss", 9.0}});
    log.metrics("b", 6, 0, "train", {{"loss", 1.0}});
  }
  int a = 0, b = 0;
  for (const auto& l : lines()) {
    (l.stage == "a" ? a : b)++;
    if (l.stage == "a" && l.step == 4) {
      EXPECT_DOUBLE_EQ(l.values[0].second, 9.0);
    }
  }
  EXPECT_EQ(a, 4);
  EXPECT_EQ(b, 6);
  // A resumed stage writes a new event file that begins by taking back what is redone.
  EXPECT_EQ(event_files("a"), 2);
}

TEST_F(RunLogTest, SamplesAreReadablePictures) {
  Tensor x = Tensor::full({5, 3, 4, 4}, 2.0);  // above 1: white
  x.data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  x.data<float>()[1] = 0.5f;
  RunLog log(path(), true);
  log.images("synthesis", 12, x, 3);
  log.images("odd/stage name", 1, Tensor::zeros({1, 1, 4, 4}, DType::u8));
  EXPECT_TRUE(fs::exists(dir_ / "samples" / "odd-stage-name-00000001.png"));
  const Tensor grid = data::read_image((dir_ / "samples" / "synthesis-00000012.png").string());
  EXPECT_GE(grid.size(1), 8);
  EXPECT_GE(grid.size(2), 12);
  const auto bytes = grid.to_vector<uint8_t>();
  EXPECT_NE(std::find(bytes.begin(), bytes.end(), 128), bytes.end()) << "0.5 is 128";
  EXPECT_THROW(log.images("s", 1, Tensor::zeros({2, 2, 4, 4})), ShapeError);
}

TEST_F(RunLogTest, NumbersOfTheWholeRunAreNoCurve) {
  RunLog log(path(), true);
  log.metrics("metrics", 0, 0, "summary", {{"diversity", 0.25}});
  EXPECT_EQ(lines().size(), 1u);
  EXPECT_FALSE(fs::exists(dir_ / "events" / "metrics"));
}

TEST_F(RunLogTest, NewsIsShownAfterTestsAndPictures) {
  RunLog log(path(), false);
  int shown = 0;
  log.on_news([&shown] { ++shown; });
  log.metrics("s", 1, 0, "train", {{"loss", 1}});
  EXPECT_EQ(shown, 0);
  log.metrics("s", 1, 0, "eval", {{"top1", 1}});
  log.images("s", 1, Tensor::zeros({1, 1, 4, 4}));
  EXPECT_EQ(shown, 1) << "not twice in five seconds";
}

TEST(StepClock, IsRecentAndLeavesPausesOut) {
  StepClock clock(100, Device::cpu());
  for (int i = 0; i < 3; ++i) {
    clock.begin();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    clock.end();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // a test between two steps
  }
  Progress::Values values;
  clock.report(&values);
  ASSERT_EQ(values.size(), 3u);
  EXPECT_EQ(values[0].first, "ms_per_step");
  EXPECT_GE(values[0].second, 10);
  EXPECT_NEAR(values[1].second * values[0].second, 1e5, 1e-6) << "100 images in each step";
  EXPECT_GT(clock.images_per_second(), 0);
  clock.report(&values);
  EXPECT_EQ(values.size(), 3u) << "no step since";
}

TEST_F(RunLogTest, SilentLogWritesNothing) {
  RunLog log;
  log.metrics("s", 1, 0, "train", {{"loss", 1}});
  log.images("s", 1, Tensor::zeros({1, 3, 4, 4}));
  log.progress("s", 1, 2, 3, {});
  log.rewind("s", 0);
  log.end_progress();
  EXPECT_FALSE(fs::exists(dir_));
}

// 25 steps take 0.1 s; every eighth time an evaluation of 1 s comes before a single step.
TEST(Progress, APauseIsNotTheRateOfTheStepAfterIt) {
  Pace pace;
  EXPECT_LT(pace.seconds_per_unit(), 0);
  double steps = 0, seconds = 0;
  for (int i = 1; i <= 200; ++i) {
    const bool pause = i % 8 == 0;
    pace.add(pause ? 1 : 25, pause ? 1.0 : 0.1);
    steps += pause ? 1 : 25;
    seconds += pause ? 1.0 : 0.1;
  }
  EXPECT_NEAR(pace.seconds_per_unit() / (seconds / steps), 1, 0.3);
}

TEST(Progress, AnEvaluationHardlyMovesTheEstimate) {
  Pace pace;
  for (int i = 0; i < 300; ++i) pace.add(1, 0.1);
  pace.add(1, 4);
  EXPECT_NEAR(pace.seconds_per_unit(), 0.1, 0.02);
  // But a change of speed is followed: after a minute it is mostly the new one.
  for (int i = 0; i < 300; ++i) pace.add(1, 0.2);
  EXPECT_NEAR(pace.seconds_per_unit(), 0.2, 0.05);
}

TEST(Progress, Text) {
  const Progress::Values values = {{"loss", 0.51234}, {"top1", 81.254}};
  const std::string plain = Progress::text("student/a", 30, 120, 1234.5, 93, values, 0);
  EXPECT_THAT(plain, HasSubstr("student/a"));
  EXPECT_THAT(plain, HasSubstr("25% 30/120"));
  EXPECT_THAT(plain, HasSubstr("loss 0.5123"));
  EXPECT_THAT(plain, HasSubstr("top1 81.25%"));
  EXPECT_THAT(plain, HasSubstr("img/s"));
  EXPECT_THAT(plain, HasSubstr("ETA 1:33"));
  EXPECT_THAT(Progress::text("s", 5, 10, 0, 1, {}, 100), HasSubstr("[##########----------]"));
  EXPECT_LT(Progress::text("student/a", 30, 120, 1234.5, 93, values, 40).size(), 40u);
  EXPECT_THAT(Progress::text("s", 10, 10, 0, 0, {}, 0), Not(HasSubstr("ETA")));
  // 80 columns: the short bar, and values that are whole.
  const Progress::Values many = {{"bn_statistics", 1.514},
                                 {"class_prior", 1.436},
                                 {"history_contrast", 7.003},
                                 {"loss", 22.18}};
  EXPECT_EQ(Progress::text("synthesis", 621, 1536, 1317, 88, many, 80),
            "synthesis [####------]  40% 621/1536  ETA 1:28  1317 img/s  bn_statistics 1.514");
  EXPECT_EQ(Progress::text("synthesis", 621, 1536, 1317, 88, many, 20), "synthesis  40% 621/");
  EXPECT_EQ(duration_text(7), "7s");
  EXPECT_EQ(duration_text(187), "3:07");
  EXPECT_EQ(duration_text(7387), "2:03:07");
  EXPECT_EQ(duration_text(-1), "?");
}

// In a child, because the handlers are of the whole process.
TEST(StopSignal, FirstSetsTheFlagSecondInterruptLeaves) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    const pid_t child = fork();
    if (child == 0) {
      if (!freopen("/dev/null", "w", stderr)) _exit(99);
      install_signal_handlers();
      if (stop_signal() != 0) _exit(1);
      raise(signal);
      if (stop_signal() != (signal == SIGINT ? SIGINT : SIGTERM)) _exit(2);
      if (signal != SIGINT) _exit(42);
      raise(SIGINT);
      _exit(3);  // not reached
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), signal == SIGINT ? 130 : 42);
  }
}

// A stop that arrives inside a product must not cost the memory around it: oneDNN's products use
// the stack pointer for something else. In a child, which a damaged heap ends.
TEST(StopSignal, WhileAProductRunsLeavesMemoryAlone) {
  const pid_t child = fork();
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(99);
    set_num_threads(1);
    install_signal_handlers();
    std::atomic<bool> done{false};
    std::thread sender([&] {
      while (!done) kill(getpid(), SIGUSR1);
    });
    const Tensor a = Tensor::full({32, 3072}, 1), b = Tensor::full({60, 3072}, 0.5);
    bool right = true;
    for (int i = 0; i < 300; ++i) {
      // Memory that is taken and given back between the products lies around their buffers.
      std::vector<std::string> around;
      for (size_t k = 0; k < 64; ++k) around.emplace_back(100 * k, 'm');
      const Tensor product = matmul(a, b, false, true);
      for (const float v : product.to_vector<float>()) right = right && v == 1536;
      for (const std::string& s : around)
        right = right && s.find_first_not_of('m') == std::string::npos;
    }
    done = true;
    sender.join();
    _exit(right && stop_signal() == SIGTERM ? 42 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

}  // namespace
}  // namespace mtcki::run_log_test
