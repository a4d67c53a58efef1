// The arrows of the architecture, read from the #include lines:
//   tensor <- autograd <- {nn, optim},  optim may use nn,  tensor <- data,  everything <- mtcki.
// Inside tensor/ no arrow points to a floor above. And what a CUDA source can reach (tensor/) stays
// free of heavy third-party headers.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file, target;  // file relative to the root; target between the quotes or brackets
  int line;
};

std::vector<Include> includes_of(const std::string& folder) {
  static const std::regex pattern(R"(^\s*#\s*include\s*[<"]([^>"]+)[>"])");
  std::vector<Include> result;
  const fs::path root = MTCKI_SOURCE_DIR;
  for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
    const std::string extension = entry.path().extension().string();
    if (!entry.is_regular_file() ||
        !std::set<std::string>{".h", ".cpp", ".cu", ".cuh"}.count(extension))
      continue;
    std::ifstream in(entry.path());
    std::string text;
    for (int line = 1; std::getline(in, text); ++line) {
      std::smatch match;
      if (std::regex_search(text, match, pattern))
        result.push_back({fs::relative(entry.path(), root).string(), match[1], line});
    }
  }
  return result;
}

std::string top_folder(const std::string& path) {
  const size_t slash = path.find('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> arrows{
      {"tensor", {"tensor"}},
      {"autograd", {"autograd", "tensor"}},
      {"nn", {"nn", "autograd", "tensor"}},
      {"optim", {"optim", "nn", "autograd", "tensor"}},
      {"data", {"data", "tensor"}},
      {"mtcki", {"mtcki", "data", "optim", "nn", "autograd", "tensor"}},
  };
  return arrows;
}

TEST(IncludeRules, ArrowsPointOneWay) {
  const std::set<std::string> folders{"tensor", "autograd", "nn",       "optim", "data",
                                      "mtcki",  "tests",    "examples", "bench"};
  for (const auto& [folder, targets] : allowed()) {
    const auto includes = includes_of(folder);
    EXPECT_FALSE(includes.empty()) << folder << " has no sources";
    for (const Include& i : includes) {
      const std::string target = top_folder(i.target);
      if (folders.count(target)) {
        EXPECT_TRUE(targets.count(target))
            << i.file << ":" << i.line << ": " << folder << " must not include " << i.target;
      }
    }
  }
}

// The rooms of mtcki/ from the ground up: a file includes headers of its own room and of those before
// it, so that no include runs upward and none in a circle.
TEST(IncludeRules, RoomsOfTheMethodRestOnThoseBelow) {
  static const std::vector<std::string> floors{"host",         "profile",    "log",    "config",
                                               "networks",     "training",   "losses", "synthesis",
                                               "distillation", "evaluation", "report", "export",
                                               "run",          "matrix",     "cli"};
  const auto floor_of = [](const std::string& path) {  // -1: not in a room
    for (size_t f = 0; f < floors.size(); ++f)
      if (path.rfind("mtcki/" + floors[f] + "/", 0) == 0) return static_cast<int>(f);
    return -1;
  };
  for (const Include& i : includes_of("mtcki")) {
    const int own = floor_of(i.file), target = floor_of(i.target);
    ASSERT_GE(own, 0) << i.file << " is in none of the rooms; give its folder a floor here";
    EXPECT_LE(target, own) << i.file << ":" << i.line << ": " << floors[static_cast<size_t>(own)]
                           << " must not include " << i.target << ", which lies above it";
  }
}

std::string folder_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

// The floors of tensor/, from below: the core and tensor/cuda, kernels/, ops/. The two devices
// behind tensor/cuda are above all of them: they implement what its headers declare.
TEST(IncludeRules, TensorHasFloors) {
  static const std::map<std::string, int> floors{{"tensor", 0},
                                                 {"tensor/cuda", 0},
                                                 {"tensor/start", 1},
                                                 {"tensor/kernels", 1},
                                                 {"tensor/ops", 2},
                                                 {"tensor/ops/conv", 2},
                                                 {"tensor/cuda/absent", 3},
                                                 {"tensor/cuda/native", 3}};
  // bytes_of() for the profiler's scopes.
  static const std::set<std::pair<std::string, std::string>> exceptions{
      {"tensor/comm.cpp", "tensor/ops/op_util.h"}};
  for (const Include& i : includes_of("tensor")) {
    if (top_folder(i.target) != "tensor" || exceptions.count({i.file, i.target})) continue;
    const auto from = floors.find(folder_of(i.file)), to = floors.find(folder_of(i.target));
    ASSERT_TRUE(from != floors.end()) << i.file << ": give its folder a floor here";
    ASSERT_TRUE(to != floors.end()) << i.target << ": give its folder a floor here";
    EXPECT_LE(to->second, from->second)
        << i.file << ":" << i.line << ": must not include " << i.target << ", a floor above it";
  }
}

TEST(IncludeRules, ProjectHeadersAreNamedFromTheRoot) {
  const fs::path root = MTCKI_SOURCE_DIR;
  for (const auto& [folder, targets] : allowed())
    for (const Include& i : includes_of(folder)) {
      if (!allowed().count(top_folder(i.target))) continue;
      EXPECT_TRUE(fs::exists(root / i.target)) << i.file << ":" << i.line << ": no " << i.target;
    }
}

TEST(IncludeRules, CudaSourcesReachNoHeavyHeaders) {
  // A .cu file includes headers of tensor/, and those include only each other. The sources of the
  // native device are compiled by the host compiler alone.
  static const std::regex heavy(
      R"(^(fmt|spdlog|nlohmann|toml\+\+|CLI|gtest|gmock|benchmark)/|toml\.h|^png\.h|^jpeglib\.h|^zlib\.h)");
  int headers = 0;
  for (const Include& i : includes_of("tensor")) {
    if (i.file.find("cuda/native/") != std::string::npos &&
        i.file.substr(i.file.size() - 4) == ".cpp")
      continue;
    headers += i.file.size() > 2 && i.file.substr(i.file.size() - 2) == ".h";
    EXPECT_FALSE(std::regex_search(i.target, heavy))
        << i.file << ":" << i.line << ": tensor must not include " << i.target;
  }
  EXPECT_GT(headers, 20);
}

TEST(IncludeRules, HeadersHaveAGuard) {
  const fs::path root = MTCKI_SOURCE_DIR;
  for (const auto& [folder, targets] : allowed())
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      if (entry.path().extension() != ".h") continue;
      std::ifstream in(entry.path());
      std::string line;
      bool guarded = false;
      while (!guarded && std::getline(in, line)) guarded = line == "#pragma once";
      EXPECT_TRUE(guarded) << entry.path();
    }
}

}  // namespace
