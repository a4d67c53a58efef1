// Every file that a run reads again, damaged in every stage at which it is read: the run refuses in
// one line that says what to delete, or ends with the same bits; and when what it names is deleted,
// it ends with the same bits too. MTCKI_TORTURE=1 tries every damage on every file, otherwise each
// file meets a flipped bit and one damage more.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <sstream>

#include "mtcki/host/console.h"
#include "mtcki/run/folder.h"
#include "mtcki/run/pipeline.h"
#include "mtcki/training/stage_control.h"
#include "tensor/error.h"

namespace mtcki::damage_test {
namespace {

namespace fs = std::filesystem;

RunConfig tiny(const fs::path& out, uint64_t seed) {
  RunConfig c;
  c.out = out.string();
  c.name = "x";
  c.seed = seed;
  c.tensorboard = false;
  c.data.name = "synth10";
  c.data.train_limit = 16;
  c.data.test_limit = 10;
  c.train.epochs = 2;
  c.train.batch_size = 8;
  c.train.lr = 0.05;
  c.teachers.resize(1);
  c.teachers[0].name = "t";
  c.teachers[0].model = "vgg8_w0.125";
  c.synthesis.batches = 3;
  c.synthesis.batch_size = 6;
  c.synthesis.g_steps = 2;
  c.synthesis.nz = 4;
  c.synthesis.ngf = 4;
  c.synthesis.bank_size = 18;
  c.synthesis.bank_draw = 4;
  c.synthesis.head_dim = 4;
  c.synthesis.checkpoint_every = 1;
  c.rounds.per_epoch = 1;
  c.synthesis.loss["adv"] = 0.5;
  c.distill.epochs = c.distill.steps_per_epoch = 2;
  c.distill.batch_size = 6;
  c.distill.lr = 0.05;
  c.distill.ts_queue = 12;
  c.metrics.neighbours = 2;
  c.students.resize(1);
  c.students[0].name = "s";
  c.students[0].model = "vgg8_w0.125";
  return c;
}

std::string bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

void write(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

// What the next run of this folder opens for reading, and nothing that it only appends to.
bool is_read(const std::string& path) {
  for (const char* unread : {"log.txt", "report.html", "samples/", "events/", "lock"})
    if (path.rfind(unread, 0) == 0) return false;
  return fs::path(path).filename() != "latest";
}

std::vector<std::string> files_of(const fs::path& folder) {
  std::vector<std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(folder))
    if (e.is_regular_file() && !e.is_symlink())
      if (const std::string path = fs::relative(e.path(), folder).string(); is_read(path))
        out.push_back(path);
  std::sort(out.begin(), out.end());
  return out;
}

// What a finished run leaves, but for times.
std::map<std::string, std::string> results(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const std::string& path : files_of(folder)) {
    const std::string name = fs::path(path).filename().string();
    const bool weights = name == "model.safetensors" || name == "best.safetensors";
    const bool images =
        name.rfind("shard-", 0) == 0 || (name == "manifest.json" && path != "manifest.json");
    // Which shards of the bank are left depends on where it was resumed.
    const bool bank = path.find("bank/") != std::string::npos;
    if (!bank && (weights || images || name == "confusion.json" || path.rfind("metrics/", 0) == 0))
      out[path] = bytes(folder / path);
  }
  const auto result = nlohmann::json::parse(bytes(folder / "result.json"));
  for (const char* key : {"teachers", "students", "synthetic"}) out[key] = result.at(key).dump();
  return out;
}

// One attempt; killed at a poll when polls > 0.
void attempt(const RunConfig& config, int64_t polls = 0) {
  RunFolder folder(config, {"mtcki", "run"}, false);
  RunLog log(folder.path(), false);
  kill_after_polls(polls);
  try {
    const PipelineResult result = run_pipeline(config, folder.path(), log);
    kill_after_polls(0);
    folder.write_result(result);
    folder.finish("finished", 0, {});
  } catch (...) {
    kill_after_polls(0);
    throw;
  }
}

// What the message tells the user to delete.
std::optional<std::string> named_for_deletion(const std::string& message) {
  std::smatch m;
  if (std::regex_search(message, m, std::regex("^(.*?): damaged; delete it"))) return m[1];
  if (std::regex_search(message, m, std::regex("delete the folder \"([^\"]+)\""))) return m[1];
  if (std::regex_search(message, m, std::regex("delete (/[^ ;]+)"))) return m[1];
  // A file of a run with another configuration.
  if (std::regex_search(message, m, std::regex("^(.*?): was finished under another configuration")))
    return m[1];
  if (std::regex_search(message, m, std::regex("^\"(.*?)/ckpt\" holds a checkpoint of another")))
    return m[1];
  return std::nullopt;
}

enum class Damage { flip, truncate, empty, of_another_run, remove };

class DamageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    console::set_silent(true);
    root_ = fs::temp_directory_path() / ("mtcki_damage_" + std::to_string(getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
    attempt(config_ = tiny(root_ / "work", 4));
    folder_ = root_ / "work" / "x";
    whole_ = results(folder_);
  }
  void TearDown() override {
    fs::remove_all(root_);
    console::set_silent(false);
  }

  // The folder of a run that was killed at a poll; 0: finished.
  fs::path state(const std::string& name, uint64_t seed, int64_t polls) const {
    const RunConfig config = tiny(root_ / "work", seed);
    fs::remove_all(folder_);
    try {
      attempt(config, polls);
      EXPECT_EQ(polls, 0) << name << ": no such poll";
    } catch (const SimulatedKill&) {
    }
    const fs::path kept = root_ / name;
    fs::copy(folder_, kept, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    return kept;
  }

  bool damage(const std::string& file, Damage how, const fs::path& other) const {
    const fs::path path = folder_ / file;
    std::string content = bytes(path);
    switch (how) {
      case Damage::flip:
        // In the last value of weights, in the middle of a text.
        content[file.ends_with("json") || file.ends_with("toml") ? content.size() / 2
                                                                 : content.size() - 1] ^= 2;
        write(path, content);
        return true;
      case Damage::truncate:
        write(path, content.substr(0, content.size() * 2 / 3));
        return true;
      case Damage::empty:
        write(path, "");
        return true;
      case Damage::of_another_run:
        if (!fs::exists(other / file)) return false;
        write(path, bytes(other / file));
        return true;
      case Damage::remove:
        return fs::remove(path);
    }
    return false;
  }

  // Runs, and where it refuses does what it says.
  void expect_refusal_or_same_bits(const std::string& what) {
    for (int refusals = 0; refusals < 4; ++refusals) {
      try {
        attempt(config_);
        const auto now = results(folder_);
        for (const auto& [path, content] : whole_) {
          const auto it = now.find(path);
          EXPECT_TRUE(it != now.end() && it->second == content) << what << ": other " << path;
        }
        return;
      } catch (const Error& e) {
        const std::string text = e.what();
        EXPECT_TRUE(e.exit_code() == 2 || e.exit_code() == 3) << what << ": " << text;
        EXPECT_EQ(text.find('\n'), std::string::npos) << what << ": " << text;
        const auto path = named_for_deletion(text);
        ASSERT_TRUE(path) << what << ": does not say what to delete: " << text;
        EXPECT_GT(fs::remove_all(*path), 0u) << what << ": names what is not there: " << text;
      } catch (const std::exception& e) {
        FAIL() << what << ": internal: " << e.what();
      }
    }
    FAIL() << what << ": still refused after what was named is gone";
  }

  void try_all(const std::string& name, int64_t polls) {
    const fs::path mine = state(name, 4, polls), other = state(name + "_other", 5, polls);
    const char* const torture = std::getenv("MTCKI_TORTURE");
    int number = 0, checkpoints = 0;
    for (const std::string& file : files_of(mine)) {
      ++number;
      checkpoints += file.find("/ckpt/") != std::string::npos;
      for (const Damage how : {Damage::flip, Damage::truncate, Damage::empty,
                               Damage::of_another_run, Damage::remove}) {
        const int d = static_cast<int>(how);
        if (!torture && d != 0 && d != 1 + number % 4) continue;
        fs::remove_all(folder_);
        fs::copy(mine, folder_, fs::copy_options::recursive | fs::copy_options::copy_symlinks);
        if (!damage(file, how, other)) continue;
        expect_refusal_or_same_bits(name + ", damage " + std::to_string(d) + " of " + file);
      }
    }
    EXPECT_GT(number, 5);
    EXPECT_TRUE(polls == 0 || checkpoints > 0) << "killed elsewhere than the test means to";
  }

  RunConfig config_;
  fs::path root_, folder_;
  std::map<std::string, std::string> whole_;
};

// The teacher takes 4 polls, a batch of synthesis 2 (the last of the stage none), a round 4.
TEST_F(DamageTest, InTheMiddleOfTheTeacher) { try_all("teacher", 3); }
TEST_F(DamageTest, InTheMiddleOfTheSynthesis) { try_all("synthesis", 3 + 3); }
TEST_F(DamageTest, InTheMiddleOfTheRounds) { try_all("rounds", 3 + 5 + 5); }
TEST_F(DamageTest, OfAFinishedRun) { try_all("finished", 0); }

}  // namespace
}  // namespace mtcki::damage_test
