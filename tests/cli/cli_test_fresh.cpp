// --fresh and the folder of a run: what no run wrote stays.
#include <fcntl.h>
#include <sys/file.h>

#include <nlohmann/json.hpp>

#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

class CliFresh : public CliTest {
 protected:
  fs::path folder() const { return dir_ / "runs" / "tiny"; }
  static void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
};

TEST_F(CliFresh, AFolderOfSomebodyIsNotUsed) {
  write(folder() / "photos/wedding.jpg", "p");
  for (const char* flag : {"--fresh", "--quiet"}) {
    refused({"run", config(), flag}, 2, "is neither empty nor the folder of a run");
    refused({"train", config(), flag}, 2, "nothing there was touched");
  }
  EXPECT_FALSE(fs::exists(folder() / "lock"));
  EXPECT_EQ(read_file(folder() / "photos/wedding.jpg"), "p");
  fs::remove_all(folder());
  // Two files of these names make no run, nor does a lock beside them.
  write(folder() / "manifest.json", R"({"name":"pwa"})");
  write(folder() / "config.toml", "title=\"site\"");
  write(folder() / "content/thesis.md", "t");
  refused({"run", config(), "--fresh"}, 2, "nor the folder of a run");
  write(folder() / "lock", "4711\n");
  refused({"run", config(), "--fresh"}, 2, "nor the folder of a run");
  fs::remove_all(folder() / "content");
  write(folder() / "lock", "pip 24.0\n");
  fs::remove(folder() / "manifest.json");
  refused({"run", config(), "--fresh"}, 2, "nor the folder of a run");
  EXPECT_EQ(read_file(folder() / "lock"), "pip 24.0\n");
  fs::remove_all(folder());
  fs::create_directories(folder());  // an empty one is as good as none
  EXPECT_EQ(run({"train", config()}).code, 0);
}

// A run that was killed before its manifest was there, and one whose manifest is damaged.
TEST_F(CliFresh, AFolderWithoutManifest) {
  write(folder() / "lock", "4711\n");
  write(folder() / "manifest.json.tmp-4711-0", "{");
  ASSERT_EQ(run({"train", config()}).code, 0);
  EXPECT_FALSE(fs::exists(folder() / "manifest.json.tmp-4711-0"));
  const std::string good = read_file(folder() / "manifest.json");
  std::string flipped = good;
  flipped[good.find("finished")] ^= 1;
  write(folder() / "manifest.json", flipped);
  refused({"train", config()}, 3, "manifest.json: damaged; delete it");
  refused({"train", config(), "--fresh"}, 3, "manifest.json: damaged; delete it");
  fs::remove(folder() / "manifest.json");
  ASSERT_EQ(run({"train", config()}).code, 0);
  fs::remove(folder() / "manifest.json");
  EXPECT_EQ(run({"train", config(), "--fresh"}).code, 0);
  // What is somebody's is safe there too.
  fs::remove(folder() / "manifest.json");
  write(folder() / "notes.txt", "mine");
  refused({"train", config(), "--fresh"}, 2, "nor the folder of a run");
}

TEST_F(CliFresh, OnlyWhatARunWritesIsRemoved) {
  // Everything that a run can write.
  const Outcome o = run({"run", config(), "rounds.per_epoch=1", "distill.epochs=1",
                         "distill.steps_per_epoch=2", "synthesis.adv=0.5",
                         "metrics.classifier_model=vgg8_w0.125", "--profile", "1"});
  ASSERT_EQ(o.code, 0) << o.err;
  for (const char* name : {"profile", "metrics/neighbours.safetensors", "students/pupil/bank"})
    ASSERT_TRUE(fs::exists(folder() / name)) << name;
  fs::create_directories(folder() / "synth/ckpt/.tmp-1-4");
  write(folder() / "synth/ckpt/.tmp-1-4/state.safetensors", "half");
  Outcome again = run({"train", config(), "--fresh"});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.err, Not(HasSubstr("--fresh")));
  for (const char* gone : {"students", "synth", "bank", "metrics", "profile", "result.json"})
    EXPECT_FALSE(fs::exists(folder() / gone)) << gone;
  const auto manifest = nlohmann::json::parse(read_file(folder() / "manifest.json"));
  EXPECT_EQ(manifest["attempts"].size(), 1u);

  const std::vector<std::string> mine{
      "notes.txt",       "teachers/resnet8/mine.pth",       "samples/holiday-1.png",
      "bank/shards.txt", "events/events.out.tfevents.mine", "synth/ckpt/step-00000001/mine"};
  for (const std::string& name : mine) write(folder() / name, "mine");
  fs::create_directories(folder() / "empty");
  const fs::path away = dir_ / "away";
  write(away / "model.safetensors", "elsewhere");
  fs::create_directory_symlink(away, folder() / "teachers/linked");
  again = run({"train", config(), "--fresh"});
  ASSERT_EQ(again.code, 0) << again.err;
  for (const std::string& name : mine) EXPECT_EQ(read_file(folder() / name), "mine") << name;
  EXPECT_TRUE(fs::exists(folder() / "empty"));
  EXPECT_TRUE(fs::is_symlink(folder() / "teachers/linked"));
  EXPECT_EQ(read_file(away / "model.safetensors"), "elsewhere");
  EXPECT_THAT(again.err, AllOf(HasSubstr("--fresh: what no run wrote stays in"),
                               HasSubstr("bank/shards.txt"), HasSubstr("and 3 more")));
}

TEST_F(CliFresh, ARunInsideAnother) {
  ASSERT_EQ(run({"train", config()}).code, 0);
  const fs::path inner = folder() / "students" / "pupil";
  ASSERT_EQ(run({"train", config(), "out=" + inner.parent_path().string(), "name=pupil"}).code, 0);
  const std::string model = read_file(inner / "teachers/resnet8/model.safetensors");
  const int held = open((inner / "lock").c_str(), O_RDWR);
  ASSERT_EQ(flock(held, LOCK_EX | LOCK_NB), 0);
  write(inner / "result.json.tmp-4711-3", "being written");
  const Outcome o = run({"train", config(), "--fresh"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("students/pupil/"));
  EXPECT_EQ(read_file(inner / "teachers/resnet8/model.safetensors"), model);
  EXPECT_TRUE(fs::exists(inner / "result.json.tmp-4711-3"));
  close(held);
}

TEST_F(CliFresh, ALockThatIsALinkIsNotFollowed) {
  ASSERT_EQ(run({"train", config()}).code, 0);
  write(dir_ / "notes", "mine");
  fs::remove(folder() / "lock");
  fs::create_symlink(dir_ / "notes", folder() / "lock");
  refused({"train", config()}, 6, "cannot open");
  EXPECT_EQ(read_file(dir_ / "notes"), "mine");
}

}  // namespace
}  // namespace mtcki
