// Checkpoints under kills, full disks, truncation and bit flips.
#include "mtcki/training/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "data/formats/atomic_file.h"
#include "mtcki/host/console.h"
#include "nn/state_dict.h"
#include "tensor/error.h"

namespace mtcki {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

StageState make_state(int64_t step) {
  StageState s;
  s.step = step;
  s.meta = {{"epoch", step / 10}, {"best", 0.5 + static_cast<double>(step)}, {"ring", {1, 2, 3}}};
  std::vector<float> values(24);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i) * 0.1f + static_cast<float>(step);
  s.put(
      {{"w", Tensor::from(values, {2, 3, 4})}, {"n", Tensor::from(std::vector<int64_t>{step}, {})}},
      "model.");
  s.put({{"image", Tensor::from(std::vector<uint8_t>{1, 2, static_cast<uint8_t>(step)}, {3})}},
        "pool.");
  return s;
}

void expect_same(const StageState& a, const StageState& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.meta, b.meta);
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (const auto& [name, t] : a.tensors) {
    const auto found = b.take(name);
    ASSERT_EQ(found.size(), 1u) << name;
    const Tensor& u = found[0].second;
    ASSERT_EQ(t.describe(), u.describe()) << name;
    EXPECT_EQ(std::memcmp(t.raw(), u.raw(), t.nbytes()), 0) << name;
  }
}

std::string read_file(const fs::path& p) {
  std::ifstream in(p, std::ios::binary);
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}
void write_file(const fs::path& p, const std::string& text) {
  std::ofstream(p, std::ios::binary | std::ios::trunc) << text;
}

int countdown = -1;  // operations until the fault; negative: none
int fault_errno = 0;
int operations = 0;
bool fault_now() {
  ++operations;
  return countdown >= 0 && countdown-- == 0;
}
void die_at(const char*) {
  if (fault_now()) _exit(9);
}
int die_at_io(const char*) {
  if (fault_now()) _exit(9);
  return 0;
}
int fail_at_io(const char*) { return fault_now() ? fault_errno : 0; }

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    console::set_silent(true);
    dir_ = fs::temp_directory_path() / ("mtcki_ckpt_" + std::to_string(getpid()));
    fs::remove_all(dir_);
  }
  void TearDown() override {
    set_checkpoint_hook(nullptr);
    data::set_io_hook(nullptr);
    fs::remove_all(dir_);
  }
  CheckpointStore store(const std::string& sha = "abc") const { return {dir_.string(), sha, 2}; }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : fs::directory_iterator(dir_)) out.push_back(e.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }
  fs::path dir_;
};

TEST_F(CheckpointTest, RoundTripAndRetention) {
  CheckpointStore s = store();
  EXPECT_FALSE(s.load().has_value());
  EXPECT_FALSE(fs::exists(dir_)) << "looking creates nothing";
  for (int64_t step : {10, 20, 30}) s.save(make_state(step));
  EXPECT_EQ(names(), (std::vector<std::string>{"latest", "step-00000020", "step-00000030"}));
  EXPECT_EQ(fs::read_symlink(dir_ / "latest"), "step-00000030");
  const auto loaded = s.load();
  ASSERT_TRUE(loaded);
  expect_same(make_state(30), *loaded);
  EXPECT_EQ(loaded->take("model.").size(), 2u);
  EXPECT_TRUE(loaded->take("optim.").empty());
}

TEST_F(CheckpointTest, RefusesWhatCannotBeRestored) {
  StageState s = make_state(1);
  EXPECT_THROW(s.put({{"w", Tensor::scalar(1)}}, "model."), Error) << "a name twice";
  s.meta["loss"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(store().save(s), Error) << "JSON would turn NaN into null";
}

TEST_F(CheckpointTest, AnotherConfigurationIsAnError) {
  store("abc").save(make_state(1));
  try {
    store("def").load();
    FAIL();
  } catch (const UsageError& e) {
    EXPECT_THAT(e.what(), HasSubstr("another configuration"));
  }
  EXPECT_THROW(store("def").require_same_config(), UsageError);
  store("abc").require_same_config();
}

// A process that dies before any single operation of a save leaves the old or the new state.
TEST_F(CheckpointTest, DeathAtEveryOperationLeavesOldOrNew) {
  int saw_old = 0, saw_new = 0;
  bool finished = false;
  for (int k = 0; k < 200 && !finished; ++k) {
    fs::remove_all(dir_);
    store().save(make_state(10));
    store().save(make_state(20));
    const pid_t child = fork();
    if (child == 0) {
      countdown = k;
      set_checkpoint_hook(die_at);
      data::set_io_hook(die_at_io);
      store().save(make_state(30));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << k;
    finished = WEXITSTATUS(status) == 0;
    if (!finished) {
      ASSERT_EQ(WEXITSTATUS(status), 9) << k;
    }
    CheckpointStore s = store();
    const auto loaded = s.load();
    ASSERT_TRUE(loaded) << k;
    EXPECT_TRUE(s.warnings().empty()) << s.warnings()[0];
    ASSERT_TRUE(loaded->step == 20 || loaded->step == 30) << k;
    (loaded->step == 20 ? saw_old : saw_new)++;
    expect_same(make_state(loaded->step), *loaded);
    s.save(make_state(40));
    for (const std::string& name : names()) EXPECT_NE(name[0], '.') << "left over: " << name;
    expect_same(make_state(40), *s.load());
  }
  EXPECT_TRUE(finished);
  EXPECT_GT(saw_old, 10);
  EXPECT_GT(saw_new, 2);
}

// The same when a step is saved again over a damaged folder of that step.
TEST_F(CheckpointTest, DeathWhileReplacingADamagedOne) {
  bool finished = false;
  for (int k = 0; k < 200 && !finished; ++k) {
    fs::remove_all(dir_);
    store().save(make_state(10));
    store().save(make_state(20));
    write_file(dir_ / "step-00000020" / "state.json", "{}");
    const pid_t child = fork();
    if (child == 0) {
      countdown = k;
      set_checkpoint_hook(die_at);
      data::set_io_hook(die_at_io);
      store().save(make_state(20));
      _exit(0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    const auto loaded = store().load();
    ASSERT_TRUE(loaded) << k;
    expect_same(make_state(loaded->step), *loaded);
  }
  EXPECT_TRUE(finished);
  EXPECT_EQ(store().load()->step, 20);
}

TEST_F(CheckpointTest, FullDiskAtEveryOperationKeepsTheOld) {
  store().save(make_state(10));
  operations = 0;
  countdown = -1;
  data::set_io_hook(fail_at_io);
  store().save(make_state(20));
  const int total = operations;
  ASSERT_GT(total, 8);
  int failures = 0;
  for (const int error : {ENOSPC, EIO}) {
    for (int k = 0; k < total; ++k) {
      fault_errno = error;
      countdown = k;
      try {
        store().save(make_state(30));
      } catch (const DiskError& e) {
        ++failures;
        EXPECT_EQ(e.exit_code(), 6);
        EXPECT_THAT(e.what(), HasSubstr(std::strerror(error)));
      }
      countdown = -1;
      const auto loaded = store().load();
      ASSERT_TRUE(loaded) << k;
      expect_same(make_state(loaded->step), *loaded);
      for (const std::string& name : names()) EXPECT_NE(name[0], '.') << "left over: " << name;
    }
  }
  EXPECT_GE(failures, total);
}

TEST_F(CheckpointTest, EveryTruncationFallsBack) {
  store().save(make_state(10));
  store().save(make_state(20));
  for (const char* name : {"state.json", "state.safetensors"}) {
    const fs::path path = dir_ / "step-00000020" / name;
    const std::string whole = read_file(path);
    // The newline that ends the JSON carries nothing.
    const size_t end = whole.size() - (whole.back() == '\n' ? 1 : 0);
    for (size_t n = 0; n < end; ++n) {
      write_file(path, whole.substr(0, n));
      CheckpointStore s = store();
      const auto loaded = s.load();
      ASSERT_TRUE(loaded);
      ASSERT_EQ(loaded->step, 10) << name << " cut to " << n;
      ASSERT_EQ(s.warnings().size(), 1u);
      ASSERT_THAT(s.warnings()[0], HasSubstr("step-00000020\" is damaged"));
      ASSERT_THAT(s.warnings()[0], HasSubstr(name));
    }
    write_file(path, whole);
  }
  expect_same(make_state(20), *store().load());
}

TEST_F(CheckpointTest, EveryBitFlipIsCaughtOrHarmless) {
  store().save(make_state(10));
  store().save(make_state(20));
  for (const char* name : {"state.json", "state.safetensors"}) {
    const fs::path path = dir_ / "step-00000020" / name;
    const std::string whole = read_file(path);
    int fell_back = 0;
    for (size_t i = 0; i < whole.size(); ++i) {
      for (int bit = 0; bit < 8; bit += 5) {
        std::string bad = whole;
        bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
        write_file(path, bad);
        const auto loaded = store().load();
        ASSERT_TRUE(loaded);
        fell_back += loaded->step == 10;
        expect_same(make_state(loaded->step), *loaded);  // never a mixture
        if (std::string(name) == "state.safetensors") {
          ASSERT_EQ(loaded->step, 10) << i;
        }
      }
    }
    EXPECT_GT(fell_back, static_cast<int>(whole.size()));
    write_file(path, whole);
  }
}

TEST_F(CheckpointTest, IncompleteFoldersAreNotCheckpoints) {
  store().save(make_state(10));
  fs::create_directories(dir_ / "step-00000099");
  fs::create_directories(dir_ / "step-abc");
  fs::create_directories(dir_ / ".tmp-999999999-5");
  CheckpointStore s = store();
  EXPECT_EQ(s.load()->step, 10);
  EXPECT_EQ(s.warnings().size(), 1u);
  EXPECT_FALSE(fs::exists(dir_ / ".tmp-999999999-5")) << "its process is dead";
  s.save(make_state(11));
  EXPECT_FALSE(fs::exists(dir_ / "step-00000099")) << "a future that was rolled back";
  fs::remove(dir_ / "step-00000011" / "state.safetensors");
  EXPECT_EQ(s.load()->step, 10);
  EXPECT_THAT(s.warnings()[0], HasSubstr("state.safetensors is missing"));
}

TEST_F(CheckpointTest, AllDamagedIsAnErrorNotAFreshStart) {
  store().save(make_state(10));
  store().save(make_state(20));
  for (const char* step : {"step-00000010", "step-00000020"})
    write_file(dir_ / step / "state.safetensors", "x");
  try {
    store().load();
    FAIL();
  } catch (const DataError& e) {
    EXPECT_EQ(e.exit_code(), 3);
    EXPECT_THAT(e.what(), HasSubstr("step-00000010"));
    EXPECT_THAT(e.what(), HasSubstr("delete the folder"));
  }
}

TEST(StateUtil, NamesWhatIsNotFinite) {
  const Tensor nan = Tensor::full({3}, std::nan("")), one = Tensor::full({3}, 1);
  EXPECT_EQ(not_finite({}), "");
  EXPECT_EQ(not_finite({{"a", one}, {"n", Tensor::full({2}, 7, DType::i64)}}), "");
  EXPECT_EQ(not_finite({{"a", one}, {"b.x", nan}}), "b.x");
}

}  // namespace
}  // namespace mtcki
