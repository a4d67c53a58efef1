// `mtcki matrix` as processes: several of them on one matrix, one of which is killed; a cell that
// fails; tables.
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

class MatrixCli : public CliTest {
 protected:
  // Weights and images of a matrix: what must not depend on who computed them.
  static std::map<std::string, std::string> results(const fs::path& matrix) {
    std::map<std::string, std::string> out;
    for (const auto& e : fs::recursive_directory_iterator(matrix)) {
      const std::string name = e.path().filename().string(),
                        path = fs::relative(e.path(), matrix).string();
      if (path.find("/ckpt/") != std::string::npos || path.find("/final/") != std::string::npos)
        continue;
      if (name.ends_with(".safetensors") && e.is_regular_file()) out[path] = read_file(e.path());
    }
    return out;
  }
  std::vector<std::string> command(const std::string& name,
                                   const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all = {"-q",
                                    "matrix",
                                    MTCKI_SOURCE_DIR "/configs/protocols/synth10-tiny.toml",
                                    "out=" + dir_.string(),
                                    "name=" + name,
                                    "train.epochs=1",
                                    "distill.epochs=2",
                                    "synthesis.g_steps=2",
                                    "metrics.classifier_model=vgg8_w0.125"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  nlohmann::json record(const std::string& name) const {
    return nlohmann::json::parse(read_file(dir_ / name / "record.json"));
  }
  // Of the claims that a job ever had, those that were not interrupted.
  static int finished_claims(const fs::path& matrix, const std::string& job) {
    int n = 0;
    for (const auto& e : fs::directory_iterator(matrix / "claims"))
      if (e.path().stem() == job) n += read_file(e.path()).starts_with("finished ");
    return n;
  }
};

TEST_F(MatrixCli, FourProcessesOneOfWhichIsKilled) {
  const Outcome alone = run(command("alone", {"seeds=[0,1]"}));
  ASSERT_EQ(alone.code, 0) << alone.err;
  std::vector<pid_t> workers;
  for (int i = 0; i < 4; ++i) workers.push_back(start(command("many", {"seeds=[0,1]"})));
  // In the middle: when it has a job.
  const std::string held = "held ";
  const std::string owner = " " + std::to_string(workers[2]) + " ";
  bool working = false;
  for (int i = 0; i < 3000 && !working; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    std::error_code ec;
    for (const auto& e : fs::directory_iterator(dir_ / "many" / "claims", ec)) {
      const std::string text = read_file(e.path());
      working = working || (text.starts_with(held) && text.find(owner) != std::string::npos &&
                            fs::exists(dir_ / "many" / "cells"));
    }
  }
  EXPECT_TRUE(working);
  kill(workers[2], SIGKILL);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(wait_for(workers[i]).code, i == 2 ? 1000 + SIGKILL : 0);
  const auto whole = results(dir_ / "alone"), many = results(dir_ / "many");
  EXPECT_GT(whole.size(), 70u);
  ASSERT_EQ(many.size(), whole.size());
  for (const auto& [path, bytes] : whole) EXPECT_TRUE(many.at(path) == bytes) << path;
  int jobs = 0;
  for (const char* folder : {"cells", "shared"})
    for (const auto& e : fs::directory_iterator(dir_ / "many" / folder)) {
      EXPECT_EQ(finished_claims(dir_ / "many", e.path().filename().string()), 1) << e.path();
      ++jobs;
    }
  EXPECT_EQ(jobs, 22);
  // The same numbers, but for times and memory.
  auto a = record("alone"), b = record("many");
  for (auto* r : {&a, &b})
    for (auto& cell : (*r)["cells"]) {
      EXPECT_EQ(cell.at("status"), "finished");
      cell.erase("seconds");
      if (cell.contains("metrics"))
        for (const char* key : {"peak_memory_bytes", "peak_tensor_bytes"})
          cell["metrics"].erase(key);
    }
  EXPECT_EQ(a["cells"], b["cells"]);
  // A teacher was trained once and is the same file in every cell that uses it.
  EXPECT_EQ(whole.at("cells/mtcki.s0/teachers/a/model.safetensors"),
            whole.at("cells/real.s0/teachers/a/model.safetensors"));
  EXPECT_FALSE(read_file(dir_ / "alone/cells/mtcki.s0/metrics.jsonl").find("teacher/a") !=
               std::string::npos);
  // A cell is an ordinary run: the same bits come of its configuration alone.
  const Outcome again = run({"-q", "run", (dir_ / "alone/cells/mtcki.s1/config.toml").string(),
                             "out=" + dir_.string(), "name=lone"});
  ASSERT_EQ(again.code, 0) << again.err;
  for (const auto& [path, bytes] : results(dir_ / "lone"))
    EXPECT_TRUE(bytes == whole.at("cells/mtcki.s1/" + path)) << path;
  // Nothing is left to do.
  const auto before = fs::last_write_time(dir_ / "alone/cells/mtcki.s0/result.json");
  EXPECT_EQ(run(command("alone", {"seeds=[0,1]"})).code, 0);
  EXPECT_EQ(fs::last_write_time(dir_ / "alone/cells/mtcki.s0/result.json"), before);
  for (const char* text : {"MTCKI", "CMI-ensemble", "trained on real images", " ± ", "(p "})
    EXPECT_THAT(alone.out, HasSubstr(text));
  EXPECT_THAT(read_file(dir_ / "alone/cells/mtcki.s0/report.html"),
              HasSubstr("<td>held-out classifier</td>"));
  const std::string html = read_file(dir_ / "alone" / "table.html");
  for (const char* text : {"Accuracy over counted cost", "What the students learned from", "FID-C"})
    EXPECT_THAT(html, HasSubstr(text));
}

TEST_F(MatrixCli, AFailedCellIsShownAndStopsNoOther) {
  const std::string bad = file("bad.toml", R"(
seeds = [3]
base = [")" MTCKI_SOURCE_DIR R"(/configs/synth10-tiny.toml", "train.epochs=1", "distill.epochs=1"]
[[methods]]
name = "burst"
config = ["distill.lr=1e30"]
[[methods]]
name = "fine"
[[methods]]
name = "large"
config = ["synthesis.source=real", "synthesis.batches=1000"]
)");
  const std::string out = "out=" + dir_.string();
  const Outcome o = run({"-q", "matrix", bad, out});
  EXPECT_EQ(o.code, 4) << "that of the first failed cell: " << o.err;
  EXPECT_THAT(o.out, HasSubstr("failed: burst.s3: "));
  EXPECT_THAT(o.out, HasSubstr("lower distill.lr"));
  EXPECT_THAT(o.out, HasSubstr("failed: large.s3: synthesis.source: real has 120"));
  EXPECT_THAT(o.out, HasSubstr("fine "));
  const Outcome list = run({"matrix", bad, out, "--list"});
  EXPECT_THAT(list.out, HasSubstr("failed    burst.s3"));
  EXPECT_THAT(list.out, HasSubstr("finished  fine.s3"));
  // Left alone, until it is asked for again, or says something else.
  const auto attempts = [&] {
    return nlohmann::json::parse(read_file(dir_ / "bad/cells/burst.s3/manifest.json"))["attempts"]
        .size();
  };
  EXPECT_EQ(run({"-q", "matrix", bad, out}).code, 4);
  EXPECT_EQ(attempts(), 1u);
  EXPECT_EQ(run({"-q", "matrix", bad, out, "--retry", "--only", "burst"}).code, 4);
  EXPECT_EQ(attempts(), 2u);
  for (const char* form : {"markdown", "csv", "html", "json"})
    EXPECT_THAT(run({"matrix", bad, out, "--table", form}).out, HasSubstr("burst")) << form;
  refused({"matrix", bad, out, "--table", "latex"}, 2, "none of text | markdown");
}

TEST_F(MatrixCli, RecordsAreShownAndJoined) {
  const std::string record = MTCKI_SOURCE_DIR "/bench/results/matrix_cpu_fashion.json";
  const Outcome one = run({"matrix", record}), twice = run({"matrix", record, record});
  EXPECT_EQ(one.code, 0) << one.err;
  EXPECT_THAT(one.out, HasSubstr("CMI-ensemble"));
  EXPECT_EQ(twice.out, one.out) << twice.err;
  refused({"matrix", record, "nothere.json"}, 2, "record \"nothere.json\": no such file");
  refused({"matrix", record, "seeds=[1]"}, 2, "only records join a record");
  const std::string damaged = file("damaged.json", "{\"cells\": ");
  refused({"matrix", record, damaged}, 3, "damaged.json\": not the record of a matrix");
  refused({"matrix", record, MTCKI_SOURCE_DIR "/bench/results/matrix_cpu_fashion_choice.json"}, 2,
          "records of different matrices cannot be joined");
}

TEST_F(MatrixCli, StoppedAndContinued) {
  const pid_t worker = start(command("x", {"seeds=[0]", "distill.epochs=16"}));
  for (int i = 0; i < 3000 && !fs::exists(dir_ / "x/cells/mtcki.s0/students"); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  kill(worker, SIGTERM);
  const Outcome o = wait_for(worker);
  EXPECT_EQ(o.code, 143) << o.err;
  EXPECT_THAT(read_file(dir_ / "x/claims/mtcki.s0.1"), HasSubstr("stopped"));
  EXPECT_EQ(run(command("x", {"seeds=[0]", "distill.epochs=16", "--only", "mtcki"})).code, 0);
  EXPECT_EQ(record("x")["cells"][0]["status"], "finished");
  EXPECT_EQ(record("x")["cells"][1]["status"], "open");
}

TEST_F(MatrixCli, FoldersOfOthersAndDryRuns) {
  fs::create_directories(dir_ / "photos");
  std::ofstream(dir_ / "photos" / "wedding.jpg") << "p";
  refused(command("photos"), 2, "is neither empty nor the folder of a matrix");
  const Outcome o = run(command("y", {"seeds=[0]", "--dry-run", "--only", "mtcki"}));
  ASSERT_EQ(o.code, 0) << o.err;
  for (const char* text : {"1 x teacher-a", "1 x classifier", "1 x mtcki", "total of one process"})
    EXPECT_THAT(o.out, HasSubstr(text));
  EXPECT_FALSE(fs::exists(dir_ / "y" / "cells"));
}

}  // namespace
}  // namespace mtcki
