// A tiny run, stopped or killed anywhere, and the comparison of what two runs left.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "mtcki/run/pipeline.h"
#include "mtcki/training/stage_control.h"

namespace mtcki {

namespace fs = std::filesystem;

inline RunConfig tiny() {
  RunConfig c;
  c.seed = 4;
  c.data.name = "synth10";
  c.data.train_limit = 64;
  c.data.test_limit = 40;
  c.train.epochs = 2;
  c.train.batch_size = 16;
  c.train.lr = 0.05;
  c.train.pad = 2;
  c.teachers.resize(2);
  c.teachers[0].model = "vgg8_w0.125";
  c.teachers[1].name = "second";
  c.teachers[1].model = "vgg8_w0.125";
  c.synthesis.batches = 3;
  c.synthesis.batch_size = 12;
  c.synthesis.g_steps = 3;
  c.synthesis.nz = 8;
  c.synthesis.ngf = 8;
  c.synthesis.bank_size = 20;
  c.synthesis.bank_draw = 10;
  c.synthesis.head_dim = 8;
  c.distill.epochs = 2;
  c.distill.batch_size = 9;
  c.distill.lr = 0.05;
  c.distill.ts_queue = 20;
  c.distill.ema = 0.5;
  c.students.resize(1);
  c.students[0].name = "s";
  c.students[0].model = "vgg8_w0.125";
  return c;
}

// Of this process, as tests run beside each other; gone when it ends.
inline std::string fresh_folder(const std::string& name) {
  struct Root {
    fs::path path = fs::temp_directory_path() / ("mtcki_pipeline_" + std::to_string(getpid()));
    ~Root() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Root root;
  const fs::path dir = root.path / name;
  fs::remove_all(dir);
  fs::create_directories(dir);
  return dir.string();
}

inline std::string bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

// Everything that a run leaves and that must not depend on interruptions.
inline std::map<std::string, std::string> results(const std::string& folder) {
  std::map<std::string, std::string> out;
  for (const auto& e : fs::recursive_directory_iterator(folder)) {
    const std::string path = fs::relative(e.path(), folder).string();
    const std::string name = e.path().filename().string();
    const bool weights = name == "model.safetensors" || name == "best.safetensors";
    const bool shard = name.rfind("shard-", 0) == 0 && path.find("bank") == std::string::npos;
    const bool picture = e.path().extension() == ".png";  // also of the film of a batch
    if (weights || shard || picture ||
        (name == "manifest.json" && path.find("synth") != std::string::npos))
      out[path] = bytes(e.path());
  }
  return out;
}

inline void expect_equal_results(const std::string& a, const std::string& b) {
  auto x = results(a), y = results(b);
  EXPECT_FALSE(x.empty());
  for (auto& [path, content] : x) {
    std::string other = y[path];
    // The manifest holds the command with the folder's name, and a checksum of that too.
    if (path.find("manifest") != std::string::npos)
      for (std::string* text : {&content, &other}) {
        nlohmann::json manifest = nlohmann::json::parse(*text);
        EXPECT_EQ(manifest.erase("crc32c"), 1u) << path;
        *text = manifest.dump();
        for (const std::string& folder : {a, b})
          for (size_t at; (at = text->find(folder)) != std::string::npos;)
            text->replace(at, folder.size(), "FOLDER");
      }
    EXPECT_TRUE(content == other) << path << " differs";
  }
  EXPECT_EQ(x.size(), y.size());
}

// Runs until done, interrupted every `polls` steps.
inline int run_with_interruptions(const RunConfig& config, const std::string& folder, int64_t polls,
                                  bool kill) {
  for (int attempt = 0; attempt < 200; ++attempt) {
    (kill ? kill_after_polls : stop_after_polls)(polls);
    try {
      RunLog log(folder, false);
      run_pipeline(config, folder, log);
      (kill ? kill_after_polls : stop_after_polls)(0);
      return attempt;
    } catch (const SimulatedKill&) {
      EXPECT_TRUE(kill);
    } catch (const Stopped& s) {
      EXPECT_FALSE(kill);
      EXPECT_EQ(s.signal, SIGTERM);
    }
  }
  ADD_FAILURE() << "made no progress";
  return -1;
}

}  // namespace mtcki
