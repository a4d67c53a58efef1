// The program `mtcki` as a user meets it: exit codes, one clear line, suggestions, nothing left
// behind.
#include <sys/file.h>

#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <regex>
#include <thread>

#include "data/formats/state_file.h"
#include "data/sets/dataset.h"
#include "mtcki/networks/model_file.h"
#include "mtcki/networks/zoo.h"
#include "nn/models/model.h"
#include "tensor/cuda/runtime.h"
#include "tests/cli/cli_testing.h"

namespace mtcki {
namespace {

TEST_F(CliTest, HelpOfEveryCommandExplainsItsFlags) {
  const Outcome top = run({"--help"});
  EXPECT_EQ(top.code, 0);
  for (const std::string command :
       {"run", "train", "invert", "distill", "eval", "report", "summary", "profile", "roof", "data",
        "export", "info", "matrix", "zoo", "completion"}) {
    EXPECT_THAT(top.out, HasSubstr("  " + command + " "));
    const Outcome o = run({command, "--help"});
    EXPECT_EQ(o.code, 0) << command;
    EXPECT_THAT(o.out, HasSubstr("mtcki " + command)) << "usage line";
    EXPECT_EQ(o.err, "");
    std::istringstream lines(top.out + o.out);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
  }
  EXPECT_THAT(run({"data", "get", "--help"}).out, HasSubstr("mtcki data get"));
  EXPECT_THAT(run({"--version"}).out, HasSubstr("mtcki 0."));
  const auto info = nlohmann::json::parse(run({"info", "--json"}).out);
  EXPECT_TRUE(info.contains("CPU") && info.contains("oneDNN") && info.contains("datasets"));
}

TEST_F(CliTest, UnknownFlagsAndCommandsSuggest) {
  refused({"rnu"}, 2, "unknown command \"rnu\"; did you mean \"run\"?");
  refused({"eval", "--wieghts", "x", "--data", "synth10"}, 2, "did you mean \"--weights\"?");
  refused({"run", "x.toml", "--frseh"}, 2, "did you mean \"--fresh\"?");
  refused({"data", "lsit"}, 2, "did you mean \"list\"?");
  refused({"eval", "--weights", "x"}, 2, "error: --data is missing: data set (mtcki data list)");
  refused({"report"}, 2, "error: runs is missing: run folders");
  refused({"data"}, 2, "error: choose one of list, verify, get (see: mtcki data --help)");
  refused({"profile", "--batch", "many"}, 2, "--batch \"many\": must be a whole number");
  refused({"profile", "--batch", "1"}, 2, "--batch 1: must be at least 2");
  refused({"profile", "--batch", "99999999999999999999"}, 2, "must be at most 65536");
  refused({"profile", "--size", "30"}, 2, "--size \"30\": must be 28, 32 or 64");
  refused({"profile", "--step", "tarin"}, 2, "--step \"tarin\": must be train, inference");
  refused({"profile", "--step", "tarin"}, 2, "did you mean \"train\"?");
  refused({"profile", "diff", "a", "b"}, 3, "profile \"a\": no such file");
  refused({"run", "--resume"}, 2, "resuming is the default; --fresh starts over");
  refused({"demo"}, 2, "scripts/demo");
  refused({"profile", "--level", "kernels", "--device", "cpu"}, 2, "--level kernels");
  refused({"eval", "--weights", "x", "--data", "cifra10"}, 2, "did you mean \"cifar10\"?");
  refused({"summary", "--model", "resnet21"}, 2, "resnet20");
  EXPECT_EQ(run({}).code, 2);
}

TEST_F(CliTest, BadConfigurationsAreRefusedBeforeAnythingIsWritten) {
  const std::string good = config();
  refused({"run"}, 2, "no configuration given");
  refused({"run", "none.toml"}, 2, "no such file");
  refused({"run", good, "synthesis.g_step=3"}, 2, "did you mean \"synthesis.g_steps\"?");
  refused({"run", good, "train.lr=fast"}, 2, "train.lr: expects a number");
  refused({"run", good, "train.epochs=0"}, 2, "out of range");
  refused({"run", file("typo.toml", "[train]\nepoch = 3\n")}, 2, "typo.toml:2: unknown key");
  refused({"run", good, "teachers.0.model=resnet9"}, 2, "resnet8");
  refused({"run", good, "students.0.model=wrn15_1"}, 2, "students \"pupil\"");
  refused({"run", good, "data.name=cifar10", "data.dir=" + (dir_ / "nowhere").string()}, 3,
          "no folder");
  refused({"run", good, "teachers.0.weights=" + (dir_ / "w.pth").string()}, 3, "no such file");
  refused({"run", good, "teachers.0.mean=[0.5]", "teachers.0.std=[0.5]"}, 2, "3 channels");
  if (const cuda::Availability& gpu = cuda::availability(); !gpu.usable)
    refused({"run", good, "--device", "cuda"}, 2,
            "--device cuda: " + gpu.why + "; use --device cpu");
  refused({"run", good, "--device", "tpu"}, 2, "tpu");
  refused({"run", good, "--precision", "fp8"}, 2, "fp8");
  refused({"run", good, "graph=perhaps"}, 2, "none of auto");
  refused({"distill", config(), "students=[]"}, 2, "none given");
  fs::remove_all(dir_ / "runs");
  refused({"run", good, "graph=explode"}, 2, "none of auto");
  EXPECT_FALSE(fs::exists(dir_ / "runs")) << "a refused run leaves nothing";
  const Outcome fine = run({"run", good, "--check"});
  EXPECT_EQ(fine.code, 0) << fine.err;
  EXPECT_FALSE(fs::exists(dir_ / "runs"));
}

TEST_F(CliTest, PrintsTheResolvedConfigurationWhichReadsBack) {
  const Outcome a = run({"run", config(), "seed=5", "--print-config"});
  EXPECT_EQ(a.code, 0);
  EXPECT_THAT(a.out, ContainsRegex("\nseed = 5 +# command line\n"));
  EXPECT_THAT(a.out, ContainsRegex("\ntrain_limit = 60 +# .*tiny.toml:6\n"));
  const Outcome b = run({"run", file("again.toml", a.out), "--print-config"});
  const auto values = [](const std::string& text) {
    return std::regex_replace(text, std::regex(" +#.*"), "");
  };
  EXPECT_EQ(values(a.out), values(b.out));
  EXPECT_THAT(run({"run", "--help-config"}).out, HasSubstr("`synthesis.g_steps`"));
  const Outcome flags =
      run({"run", config(), "--precision", "bf16", "--conv", "direct", "--graph", "off",
           "--no-deterministic", "--autotune", "--recompute", "--print-config"});
  for (const char* line : {"precision = \"bf16\"", "conv = \"direct\"", "graph = \"off\"",
                           "deterministic = false", "autotune = true", "recompute = true"})
    EXPECT_THAT(flags.out, HasSubstr(line));
}

// What the shells and man make of these.
TEST_F(CliTest, CompletionAndManualComeFromTheCommandsThemselves) {
  const Outcome bash = run({"completion", "bash"});
  EXPECT_EQ(bash.code, 0);
  const std::string script = file("complete.sh", bash.out + R"(
for line in "$@"; do
  read -ra COMP_WORDS <<< "$line"
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  _mtcki
  echo "${COMPREPLY[@]}"
done
)");
  ASSERT_EQ(std::system(("bash '" + script +
                         "' 'mtcki pr' 'mtcki run x.toml --dry' 'mtcki profile d' "
                         "'mtcki profile diff --ro' 'mtcki eval --weights ' > '" +
                         (dir_ / "words").string() + "'")
                            .c_str()),
            0);
  EXPECT_EQ(read_file(dir_ / "words"), "profile\n--dry-run\ndiff\n--rows\n\n");
  EXPECT_THAT(run({"completion", "zsh"}).out, HasSubstr("bashcompinit"));
  const Outcome fish = run({"completion", "fish"});
  EXPECT_THAT(fish.out, HasSubstr("complete -c mtcki -n '__fish_seen_subcommand_from run' -l "
                                  "dry-run -d 'run a few steps"));
  const Outcome man = run({"completion", "man"});
  EXPECT_THAT(man.out, AllOf(HasSubstr(".TH MTCKI 1"), HasSubstr(".SH MTCKI profile diff\n"),
                             HasSubstr(".B \\-\\-overfit\\-batch\n")));
  refused({"completion", "csh"}, 2, "unknown command \"csh\"; did you mean");
}

// The page of the documentation is what the program says, and what it says can be right: each
// network has as many parameters as were published for the file.
TEST_F(CliTest, TheZooIsTheOneOfTheDocumentation) {
  const std::string list = run({"zoo", "list"}).out;
  EXPECT_THAT(read_file(MTCKI_SOURCE_DIR "/docs/teachers.md"), HasSubstr("```\n" + list + "```\n"));
  for (const ZooFile& f : zoo()) {
    EXPECT_THAT(list, HasSubstr("\n" + f.name + " "));
    nn::Init init;
    const auto net =
        nn::make_classifier({f.model, 3, 32, data::dataset_info(f.data).num_classes}, init);
    int64_t parameters = 0;
    for (const Variable& p : net->parameters()) parameters += p.numel();
    const double rounding = f.name.starts_with("akamaster") ? 0.05 : 0.006;
    EXPECT_NEAR(static_cast<double>(parameters) * 1e-6, f.parameters_m, rounding) << f.name;
  }
  const Outcome one = run({"zoo", "show", "akamaster/cifar10/resnet20"});
  const std::string written = file("zoo.toml", one.out);
  EXPECT_EQ(run({"run", written, "--print-config"}).code, 0);
  EXPECT_THAT(one.out, HasSubstr("weights = \"resnet20-12fca82f.th\"\nmean = [0.485,0.456,0.406]"));
  refused({"zoo", "show", "akamaster/cifar10/resnet21"}, 2, "akamaster/cifar10/resnet20");
}

TEST_F(CliTest, OverfitsOneBatchAndLeavesNothing) {
  const Outcome o = run({"run", config(), "--overfit-batch"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, ContainsRegex("student/pupil +loss .* steps: learned the batch\n"));
  EXPECT_FALSE(fs::exists(dir_ / "runs"));
  refused({"run", config(), "train.lr=1e-9", "students=[]", "--overfit-batch"}, 4, "train.lr");
}

TEST_F(CliTest, DamagedAndForeignWeightFiles) {
  const auto eval = [&](const std::string& name, const std::string& content,
                        const std::string& text) {
    refused({"eval", "--model", "resnet8", "--data", "synth10", "--limit", "10", "--weights",
             file(name, content)},
            3, text);
  };
  eval("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
       "LFS");
  eval("page.pth", "<!DOCTYPE html><html>", "HTML");
  eval("empty.pth", "", "empty.pth");
  eval("zeros.safetensors", std::string(100, '\0'), "zeros.safetensors");
  eval("zip.pth", "PK\x03\x04garbage that is no archive", "zip.pth");
  refused({"eval", "--model", "resnet8", "--data", "synth10", "--weights", dir_.string()}, 3,
          "is a folder");

  nn::Init init(1);
  const auto net = nn::make_classifier({"resnet8", 3, 32, 10}, init);
  const std::string good = (dir_ / "good.safetensors").string();
  ModelCard card;
  card.spec = {"resnet8", 3, 32, 10};
  card.normalization = {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
  write_model_file(good, *net, card);
  const std::string whole = read_file(good);
  for (const size_t part : {size_t{7}, size_t{100}, whole.size() / 2, whole.size() - 1})
    eval("cut.safetensors", whole.substr(0, part), "cut.safetensors");
  // Another architecture or class count.
  refused({"eval", "--model", "wrn10_1", "--data", "synth10", "--weights", good}, 3, "resnet8");
  refused({"eval", "--model", "resnet8", "--data", "synth10-gray", "--weights", good}, 3,
          "channel");
  refused({"eval", "--data", "synth10", "--weights", good, "--mean", "0.5,0.5", "--std", "0.5"}, 2,
          "--mean has 2 values, --std 1");
  refused({"eval", "--data", "synth10", "--weights", good, "--mean", "0.5", "--std", "0.5"}, 2,
          "3 channels");
  refused({"eval", "--data", "synth10", "--weights", good, "--mean", "1,1,1", "--std", "1,0,1"}, 2,
          "above 0");
  // The good file, its own metadata instead of --model.
  const Outcome o =
      run({"eval", "--data", "synth10", "--limit", "50", "--weights", good, "--json"});
  EXPECT_EQ(o.code, 0) << o.err;
  const auto j = nlohmann::json::parse(o.out);
  EXPECT_EQ(j["n"], 50);
  EXPECT_GE(j["top5"].get<double>(), j["top1"].get<double>());
  EXPECT_THAT(run({"eval", "--data", "synth10", "--limit", "50", "--weights", good}).out,
              HasSubstr("top-1"));
}

TEST_F(CliTest, DirectConvolutionsAreNamedAndChangeBits) {
  const auto profile = [&](const char* conv) {
    return run({"profile", "--model", "resnet8", "--batch", "4", "--steps", "1", "--rows", "0",
                "--device", "cpu", "--conv", conv})
        .out;
  };
  EXPECT_THAT(profile("auto"), HasSubstr("winograd"));
  EXPECT_THAT(profile("direct"), AllOf(HasSubstr("conv2d"), Not(HasSubstr("winograd"))));
  EXPECT_EQ(run({"train", config(), "name=fast", "--device", "cpu"}).code, 0);
  const Outcome o = run({"train", config(), "name=direct", "--device", "cpu", "--conv", "direct"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr("math: f32 strict, direct convolutions"));
  const auto weights = [&](const char* name) {
    return read_file(dir_ / "runs" / name / "teachers/resnet8/model.safetensors");
  };
  EXPECT_NE(weights("direct"), weights("fast"));
}

TEST_F(CliTest, RecomputeRunsNormsAgainAndChangesNoBit) {
  const auto train = [&](const char* name, bool recompute) {
    const Outcome o = run({"train", config(), str("name=", name), "--conv", "direct", "--profile",
                           "1", "--device", "cpu", recompute ? "--recompute" : "--no-recompute"});
    EXPECT_EQ(o.code, 0) << o.err;
    std::string profiles;
    for (const auto& e : fs::recursive_directory_iterator(dir_ / "runs" / name / "profile"))
      if (e.is_regular_file()) profiles += read_file(e.path());
    return std::pair(profiles,
                     read_file(dir_ / "runs" / name / "teachers/resnet8/model.safetensors"));
  };
  const auto [kept_ops, kept] = train("kept", false);
  const auto [again_ops, again] = train("again", true);
  EXPECT_THAT(kept_ops, Not(HasSubstr("batch_norm_apply")));
  EXPECT_THAT(again_ops, HasSubstr("batch_norm_apply"));
  EXPECT_EQ(again, kept);
}

TEST_F(CliTest, WholeRunThenSkipsThenReports) {
  const Outcome dry = run({"run", config(), "--dry-run"});
  EXPECT_EQ(dry.code, 0) << dry.err;
  EXPECT_THAT(dry.out, HasSubstr("total      estimated"));
  EXPECT_FALSE(fs::exists(dir_ / "runs" / "tiny")) << "a dry run leaves nothing behind";
  const Outcome first = run({"run", config()});
  EXPECT_THAT(first.err, HasSubstr("math: f32 strict"));
  ASSERT_EQ(first.code, 0) << first.err;
  const fs::path folder = dir_ / "runs" / "tiny";
  const auto result = nlohmann::json::parse(read_file(folder / "result.json"));
  ASSERT_EQ(result["teachers"].size(), 1u);
  EXPECT_EQ(result["teachers"][0]["model"], "resnet8");
  EXPECT_TRUE(result["teachers"][0]["top1"].is_number());
  ASSERT_EQ(result["students"].size(), 1u);
  EXPECT_EQ(result["students"][0]["name"], "pupil");
  EXPECT_TRUE(result["students"][0]["top1"].is_number());
  EXPECT_TRUE(result["students"][0]["top1_best"].is_number());
  EXPECT_EQ(result["synthetic"]["images"], 32);
  EXPECT_TRUE(result["seconds"].is_object());
  for (const char* name :
       {"config.toml", "manifest.json", "metrics.jsonl", "report.html", "log.txt"})
    EXPECT_GT(fs::file_size(folder / name), 0u) << name;
  EXPECT_THAT(first.out, HasSubstr("pupil"));
  EXPECT_THAT(first.out, HasSubstr("report.html"));
  std::istringstream printed(first.out);
  for (std::string line; std::getline(printed, line) && !line.starts_with("result: ");)
    EXPECT_LE(line.size(), 80u) << line;
  EXPECT_THAT(read_file(folder / "report.html"), HasSubstr("Batch 1, from noise"));

  const std::string weights = read_file(folder / "students/pupil/model.safetensors");
  const Outcome second = run({"run", config()});
  EXPECT_EQ(second.code, 0) << second.err;
  // Everything is skipped, the results are shown again; the memory of the skipping process is less.
  EXPECT_EQ(second.out, first.out);
  EXPECT_EQ(nlohmann::json::parse(read_file(folder / "result.json")), result);
  EXPECT_EQ(read_file(folder / "students/pupil/model.safetensors"), weights);
  refused({"run", config(), "--conv", "direct"}, 2, "another configuration");

  EXPECT_EQ(run({"report", folder.string(), "--out", (dir_ / "r.html").string()}).code, 0);
  EXPECT_THAT(read_file(dir_ / "r.html"), HasSubstr("pupil"));
  const Outcome png = run({"export", "images", folder.string(), "--out", (dir_ / "png").string()});
  EXPECT_EQ(png.code, 0) << png.err;
  int64_t pictures = 0;
  for (const auto& e : fs::recursive_directory_iterator(dir_ / "png"))
    pictures += e.path().extension() == ".png";
  EXPECT_EQ(pictures, 32);
  EXPECT_TRUE(fs::exists(dir_ / "png" / "009"));
  refused({"export", "images", folder.string(), "--out", (dir_ / "png").string()}, 2,
          "not an empty");
  const std::string pupil = (folder / "students/pupil/model.safetensors").string();
  const fs::path onnx = dir_ / "p.onnx";
  EXPECT_EQ(run({"export", "weights", "--weights", pupil, "--out", onnx.string(), "--opset", "17",
                 "--fold-bn"})
                .code,
            0);
  EXPECT_THAT(read_file(onnx), Not(HasSubstr("BatchNormalization")));
  refused(
      {"export", "weights", "--weights", pupil, "--out", (dir_ / "p.npz").string(), "--fold-bn"}, 2,
      "only for .onnx");
  refused({"export", "weights", "--weights", pupil, "--out", onnx.string(), "--opset", "18"}, 2,
          "--opset");
}

// SIGTERM: saved, exit 143, and the finished run equals the one that was never stopped.
TEST_F(CliTest, StopsOnSignalAndResumesToTheSameWeights) {
  const std::string file_name = config();
  ASSERT_EQ(run({"run", file_name, "name=straight"}).code, 0);
  const fs::path folder = dir_ / "runs" / "stopped";
  int stops = 0;
  Outcome o;
  for (int attempt = 0; attempt < 40; ++attempt) {
    const pid_t child = start({"run", file_name, "name=stopped"});
    // Once it logs, it is inside a stage.
    const size_t before =
        fs::exists(folder / "metrics.jsonl") ? fs::file_size(folder / "metrics.jsonl") : 0;
    for (int i = 0; i < 2000; ++i) {
      if (fs::exists(folder / "metrics.jsonl") && fs::file_size(folder / "metrics.jsonl") != before)
        break;
      siginfo_t ended{};
      if (waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOHANG | WNOWAIT) != 0 ||
          ended.si_pid == child)
        break;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    kill(child, attempt % 3 == 2 ? SIGKILL : attempt % 3 == 1 ? SIGINT : SIGTERM);
    o = wait_for(child);
    if (o.code == 0) break;
    ++stops;
    ASSERT_TRUE(o.code == 143 || o.code == 130 || o.code == 1000 + SIGKILL) << o.code << o.err;
    if (o.code == 143) {
      EXPECT_THAT(o.err, HasSubstr("Run the same command again to continue."));
    }
  }
  if (o.code != 0) o = run({"run", file_name, "name=stopped"});
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_GT(stops, 0);
  for (const char* name : {"teachers/resnet8/model.safetensors", "students/pupil/model.safetensors",
                           "synth/shard-00001.safetensors"})
    EXPECT_EQ(read_file(folder / name), read_file(dir_ / "runs" / "straight" / name)) << name;
}

TEST_F(CliTest, OneWriterAndSafeFresh) {
  const fs::path folder = dir_ / "runs" / "tiny";
  fs::create_directories(folder);
  const std::string lock = (folder / "lock").string();
  FILE* held = fopen(lock.c_str(), "w");
  ASSERT_NE(held, nullptr);
  fprintf(held, "4711\n");
  fflush(held);
  ASSERT_EQ(flock(fileno(held), LOCK_EX | LOCK_NB), 0);
  refused({"run", config()}, 2, "being written by another mtcki (process 4711)");
  fclose(held);
  std::ofstream(folder / "diary.txt") << "mine";
  refused({"run", config(), "--fresh"}, 2, "is neither empty nor the folder of a run");
  EXPECT_TRUE(fs::exists(folder / "diary.txt"));
}

TEST_F(CliTest, SummaryTotals) {
  const auto j = nlohmann::json::parse(run({"summary", "--model", "wrn40_2", "--json"}).out);
  EXPECT_EQ(j["parameters"], 2243546);
  EXPECT_EQ(j["state_keys"], 227);
  EXPECT_NEAR(j["macs"].get<double>() / 1e6, 327.6, 0.1);
  EXPECT_THAT(run({"summary", "--list"}).out, HasSubstr("resnet20_a"));
  const auto generator = [&](const std::string& ngf) {
    const auto out = run({"summary", "--generator", "cmi", "--json", "--nz", "64", "--ngf", ngf});
    return nlohmann::json::parse(out.out)["macs"].get<double>();
  };
  EXPECT_GT(generator("32"), 2 * generator("16"));
  refused({"summary"}, 2, "--model");
  refused({"summary", "--generator", "cmi", "--nz", "0"}, 2, "--nz");
}

TEST_F(CliTest, RunProfilesTheFirstStepsOfEachStage) {
  const Outcome o = run({"run", config(), "--profile", "2", "--device", "cpu"});
  ASSERT_EQ(o.code, 0) << o.err;
  const fs::path folder = dir_ / "runs/tiny/profile";
  int profiles = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto j = nlohmann::json::parse(read_file(entry.path()));
    if (entry.path().string().find(".trace.json") != std::string::npos) {
      EXPECT_GT(j["traceEvents"].size(), 10u) << entry.path();
      continue;
    }
    ++profiles;
    EXPECT_EQ(j["schema"], "mtcki-profile/1");
    EXPECT_EQ(j["steps"], 2) << entry.path();
    EXPECT_GT(j["ops_us"], 0.0);
  }
  EXPECT_EQ(profiles, 3) << "teacher, synthesis, student";
}

TEST_F(CliTest, ThreadsAreThoseOfTheFlagElseOfTheEnvironment) {
  const char* set = std::getenv("OMP_NUM_THREADS");
  const std::string before = set ? set : "";
  setenv("OMP_NUM_THREADS", "3", 1);
  std::vector<std::string> command{"profile", "--model", "resnet8",  "--batch", "2",
                                   "--steps", "1",       "--device", "cpu"};
  EXPECT_THAT(run(command).out, HasSubstr("3 threads"));
  command.insert(command.end(), {"--threads", "2"});
  EXPECT_THAT(run(command).out, HasSubstr("2 threads"));
  set ? setenv("OMP_NUM_THREADS", before.c_str(), 1) : unsetenv("OMP_NUM_THREADS");
}

// libgomp prints the turns for which its threads spin; without the program's doing that is 300000.
TEST_F(CliTest, ThreadsWaitBrieflyUnlessTheUserChose) {
  const auto turns = [&](const std::vector<std::pair<std::string, std::string>>& chosen) {
    const pid_t child = fork();
    if (child == 0) {
      unsetenv("OMP_WAIT_POLICY");
      unsetenv("GOMP_SPINCOUNT");
      setenv("OMP_DISPLAY_ENV", "verbose", 1);
      for (const auto& [name, value] : chosen) setenv(name.c_str(), value.c_str(), 1);
      const Outcome o = run({"--version"});
      std::ofstream(dir_ / "all") << o.out << o.err;
      _exit(o.code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    const std::string all = read_file(dir_ / "all"), name = "GOMP_SPINCOUNT = '";
    const size_t at = all.rfind(name);  // a program that is started anew prints twice
    if (at == std::string::npos) return std::string("not printed: " + all);
    return all.substr(at + name.size(), all.find('\'', at + name.size()) - at - name.size());
  };
  EXPECT_EQ(turns({}), "5000");
  EXPECT_EQ(turns({{"GOMP_SPINCOUNT", "7"}}), "7");
  EXPECT_EQ(turns({{"OMP_WAIT_POLICY", "passive"}}), "0");
}

TEST_F(CliTest, ProfileWritesItsFilesAndReadsTheRoof) {
  const auto path = [&](const char* name) { return (dir_ / name).string(); };
  const std::string roof = path("cache/roof.json"), csv = path("p.csv"), trace = path("t.json");
  Outcome o = run({"roof", "--device", "cpu", "--threads", "1", "--megabytes", "1", "--gemm", "64",
                   "--repeats", "1", "--out", roof});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("copy_gbs"));
  for (const std::string step : {"train", "inference", "inversion", "synthesis", "distill"}) {
    const std::string json = path((step + ".json").c_str());
    o = run({"profile", "--model",   "resnet8", "--batch",  "20",  "--steps", "1",  "--step",
             step,      "--threads", "1",       "--device", "cpu", "--roof",  roof, "--trace",
             trace,     "--csv",     csv,       "--json",   json,  "--rows",  "0"});
    EXPECT_EQ(o.code, 0) << step << o.err;
    EXPECT_THAT(o.out, HasSubstr("conv2d")) << step;
    EXPECT_THAT(o.out, HasSubstr("headroom us")) << step;
    EXPECT_THAT(o.out, HasSubstr("profile_overhead")) << step;
    EXPECT_GT(nlohmann::json::parse(read_file(trace))["traceEvents"].size(), 10u);
    EXPECT_THAT(read_file(csv), HasSubstr("\nconv2d,"));
    const auto profile = nlohmann::json::parse(read_file(json));
    EXPECT_EQ(profile["schema"], "mtcki-profile/1");
    EXPECT_EQ(profile["step"], step);
    EXPECT_GT(profile["floor_us"], 0.0);
    EXPECT_GT(profile["clocks"]["mhz"], 0.0);
    EXPECT_GT(profile["timeline"].size(), 10u);
  }
  o = run({"profile", "diff", path("inference.json"), path("train.json"), "--by", "op"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("conv2d_grad_weight"));
  EXPECT_THAT(o.out, HasSubstr("new"));
  const std::string html = path("p.html");
  o = run({"profile", "diff", path("inference.json"), path("train.json"), "--html", html});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(read_file(html), HasSubstr("<h2>Rooflines</h2>"));
  o = run({"profile", "--model", "resnet8", "--batch", "4", "--steps", "1", "--device", "cpu",
           "--roof", roof, "--html", html});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(read_file(html), HasSubstr("aria-label=\"Roofline\""));
  o = run({"profile", "--model", "resnet8", "--steps", "1", "--device", "cpu", "--roof", roof,
           "--sweep", "batch=2..4", "--json", path("s.json"), "--html", html});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("per batch"));
  EXPECT_EQ(nlohmann::json::parse(read_file(path("s.json")))["points"].size(), 2u);
  EXPECT_THAT(read_file(html), HasSubstr("against batch"));
  refused({"profile", "--sweep", "batch=2..4", "--csv", csv}, 2, "leave --sweep out");
  refused({"profile", "--sweep", "batch"}, 2, "--sweep \"batch\": batch=8..1024");
  o = run({"profile", "--model", "resnet8", "--batch", "20", "--steps", "1", "--device", "cpu",
           "--roof", roof, "--memory", "--rows", "0"});
  EXPECT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("memory at the peak, by where it was taken: "));
  EXPECT_THAT(o.out, HasSubstr(" %  forward/layer1.0"));
  refused({"profile", "diff", csv, csv}, 3, "not a profile");
  refused({"profile", "--roof", csv, "--batch", "2"}, 3, "not a roof file");
}

}  // namespace
}  // namespace mtcki
