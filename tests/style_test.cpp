// What a reader meets in every file: prose is wrapped as the code is, and no file has two subjects.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

// Of the project's own folders, relative to the root; build folders and data are left out.
std::vector<fs::path> files(const std::vector<std::string>& extensions) {
  std::vector<fs::path> out;
  const fs::path root = MTCKI_SOURCE_DIR;
  const auto add = [&](const fs::path& path) {
    const std::string e = path.extension().string();
    if (std::find(extensions.begin(), extensions.end(), e) != extensions.end()) out.push_back(path);
  };
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.is_regular_file()) add(entry.path());
  for (const char* folder : {"autograd", "bench", "configs", "course", "data", "docs", "examples",
                             "launcher", "mtcki", "nn", "optim", "scripts", "tensor", "tests"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.is_regular_file()) add(entry.path());
  return out;
}

int64_t characters(const std::string& line) {  // of UTF-8
  return std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Tables, code, a command in the text and links cannot be broken.
TEST(Style, MarkdownIsWrappedAt100Columns) {
  static const std::regex unbreakable(R"(^\s*(\||\S+$|!\[|\(?`[^`]+`,?$)|https?://)");
  const auto all = files({".md"});
  EXPECT_GT(all.size(), 20u);
  for (const fs::path& path : all) {
    std::ifstream in(path);
    std::string line;
    bool code = false;
    for (int number = 1; std::getline(in, line); ++number) {
      if (line.find("```") != std::string::npos) code = !code;
      if (code || characters(line) <= 100 || std::regex_search(line, unbreakable)) continue;
      ADD_FAILURE() << path << ":" << number << ": " << characters(line) << " columns";
    }
  }
}

TEST(Style, NoSourceFileIsLongerThan500Lines) {
  const auto all = files({".h", ".cpp", ".cu", ".cuh", ".py"});
  EXPECT_GT(all.size(), 300u);
  for (const fs::path& path : all) {
    std::ifstream in(path);
    const auto lines = std::count(std::istreambuf_iterator<char>(in), {}, '\n');
    EXPECT_LE(lines, 500) << path;
  }
}

}  // namespace
