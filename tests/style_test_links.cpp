// Links in Markdown: the files and headings that they name exist. And what belongs together is
// there: a page of the site for every page of docs/, a page of the course for every exercise.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/style_testing.h"

namespace {

namespace fs = std::filesystem;

// Without blocks and spans of code, which may look like links or headings.
std::string without_code(const std::string& markdown) {
  std::istringstream in(markdown);
  std::string line, out;
  bool code = false;
  while (std::getline(in, line)) {
    const bool fence = line.find("```") != std::string::npos;
    if (fence) code = !code;
    if (!code && !fence) out += line + "\n";
  }
  return out;
}

// The anchor that GitHub gives a heading: lower case, punctuation left out, spaces become hyphens.
// Bytes of UTF-8 stay.
std::string anchor_of(const std::string& heading) {
  std::string out;
  for (const char c : heading) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::isalnum(byte) || c == '-' || c == '_')
      out += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
    else if (c == ' ')
      out += '-';
  }
  return out;
}

std::set<std::string> anchors_of(const std::string& markdown) {
  std::istringstream in(without_code(markdown));
  std::set<std::string> anchors;
  std::map<std::string, int> seen;
  std::string line;
  static const std::regex link(R"(\[([^\]]*)\]\([^)]*\))");
  while (std::getline(in, line)) {
    const size_t level = line.find_first_not_of('#');
    if (level == 0 || level == std::string::npos || line[level] != ' ') continue;
    const std::string anchor = anchor_of(std::regex_replace(line.substr(level + 1), link, "$1"));
    const int before = seen[anchor]++;
    anchors.insert(before == 0 ? anchor : anchor + "-" + std::to_string(before));
  }
  return anchors;
}

std::vector<std::string> links_of(const std::string& markdown) {
  static const std::regex spans("`[^`]*`"), link(R"(\]\(([^()\s]+(\([^()\s]*\))?)\))");
  const std::string text = std::regex_replace(without_code(markdown), spans, "x");
  std::vector<std::string> links;
  for (std::sregex_iterator it(text.begin(), text.end(), link), end; it != end; ++it)
    links.push_back((*it)[1]);
  return links;
}

// What is wrong with a link of a file; "" when nothing is. Others' sites are not asked.
std::string fault_of(const fs::path& file, const std::string& link) {
  if (link.find("://") != std::string::npos || link.rfind("mailto:", 0) == 0) return "";
  const size_t hash = link.find('#');
  const std::string path = link.substr(0, hash);
  const fs::path target = path.empty() ? file : file.parent_path() / path;
  if (!fs::exists(target)) return "no such file or folder";
  if (hash == std::string::npos || target.extension() != ".md") return "";
  const std::string anchor = link.substr(hash + 1);
  return anchors_of(read(target)).count(anchor) ? "" : "no such heading";
}

std::vector<fs::path> pages() {
  std::vector<fs::path> out;
  const fs::path root = MTCKI_SOURCE_DIR;
  for (const auto& entry : fs::directory_iterator(root))
    if (entry.path().extension() == ".md") out.push_back(entry.path());
  for (const char* folder : {"bench", "configs", "course", "docs", "examples", "scripts", "tests"})
    for (const auto& entry : fs::recursive_directory_iterator(root / folder))
      if (entry.path().extension() == ".md") out.push_back(entry.path());
  return out;
}

TEST(Links, FilesAndHeadingsExist) {
  size_t count = 0;
  for (const fs::path& page : pages())
    for (const std::string& link : links_of(read(page))) {
      ++count;
      const std::string fault = fault_of(page, link);
      EXPECT_TRUE(fault.empty()) << page << ": (" << link << "): " << fault;
    }
  EXPECT_GT(count, 200u);
}

// Source files that a text names in passing, as `mtcki/losses/terms.cpp` or, without its ending,
// `examples/10_custom_layer`.
TEST(Links, NamedSourceFilesExist) {
  static const std::regex named(
      "`((autograd|bench|cmake|configs|course|data|docs|examples|launcher|mtcki|nn|optim|scripts|"
      "tensor|tests)/[A-Za-z0-9_./-]*)`");
  const fs::path root = MTCKI_SOURCE_DIR;
  size_t count = 0;
  for (const fs::path& page : pages()) {
    const std::string text = without_code(read(page));
    for (std::sregex_iterator it(text.begin(), text.end(), named), end; it != end; ++it, ++count) {
      const std::string name = (*it)[1];
      bool found = false;
      for (const char* ending : {"", ".h", ".cpp", ".cu"})
        found = found || fs::exists(root / (name + ending));
      EXPECT_TRUE(found) << page << " names " << name;
    }
  }
  EXPECT_GT(count, 100u);
}

TEST(Links, FaultsAreFound) {
  const fs::path readme = fs::path(MTCKI_SOURCE_DIR) / "README.md";
  EXPECT_EQ(fault_of(readme, "docs/absent.md"), "no such file or folder");
  EXPECT_EQ(fault_of(readme, "docs/results.md#absent"), "no such heading");
  EXPECT_EQ(fault_of(readme, "docs/results.md#the-demonstration"), "");
  EXPECT_EQ(links_of("a [b\nc](d.md#e), `[x](y)`\n```\n[x](z)\n```\n![p](q.png)"),
            (std::vector<std::string>{"d.md#e", "q.png"}));
  EXPECT_EQ(anchors_of("# Is `x` (so)?\n```\n# no\n```\n## A\n## A\n"),
            (std::set<std::string>{"is-x-so", "a", "a-1"}));
}

TEST(Links, EveryPageOfTheDocumentationIsOnTheSite) {
  const fs::path root = MTCKI_SOURCE_DIR;
  const std::string site = read(root / "mkdocs.yml");
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() != ".md") continue;
    const std::string name = fs::relative(entry.path(), root / "docs").string();
    EXPECT_NE(site.find(" " + name + "\n"), std::string::npos) << "mkdocs.yml lacks " << name;
  }
}

TEST(Links, EveryExerciseHasAPageThatNamesIt) {
  const fs::path root = MTCKI_SOURCE_DIR;
  int exercises = 0;
  for (const auto& entry : fs::directory_iterator(root / "course")) {
    if (entry.path().extension() != ".cpp") continue;
    ++exercises;
    const std::string name = entry.path().stem().string();
    const std::string page = read(root / "docs/course" / (name + ".md"));
    EXPECT_NE(page.find("](../../course/" + name + ".cpp)"), std::string::npos) << name;
    EXPECT_NE(page.find("scripts/course " + std::to_string(std::stoi(name))), std::string::npos)
        << name;
    EXPECT_NE(read(root / "docs/course/README.md").find("(" + name + ".md)"), std::string::npos);
  }
  EXPECT_EQ(exercises, 12);
}

TEST(Links, LinesOfKernelsThatAPageShowsAreInTheExamples) {
  const fs::path root = MTCKI_SOURCE_DIR;
  const auto trimmed = [](const std::string& line) {
    const size_t first = line.find_first_not_of(' ');
    return first == std::string::npos ? "" : line.substr(first);
  };
  std::set<std::string> code;
  std::string line;
  for (const auto& entry : fs::directory_iterator(root / "examples")) {
    std::ifstream in(entry.path());
    while (entry.is_regular_file() && std::getline(in, line)) code.insert(trimmed(line));
  }
  std::ifstream page(root / "docs/kernels.md");
  int shown = 0;
  for (bool inside = false; std::getline(page, line);) {
    if (line.find("```") == 0) {
      inside = line == "```c++";
    } else if (inside) {
      ++shown;
      EXPECT_TRUE(code.count(trimmed(line))) << "docs/kernels.md: no example has: " << line;
    }
  }
  EXPECT_GT(shown, 20);
}

}  // namespace
