// docs/api.md: which header of the library has which name. Made anew by
//   MTCKI_WRITE_API=1 ctest --test-dir build -R ApiIndex
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/style_testing.h"

namespace {

namespace fs = std::filesystem;

// Everything that mtcki.h includes, directly or not.
void collect(const std::string& header, std::set<std::string>* all) {
  std::istringstream lines(read(fs::path(MTCKI_SOURCE_DIR) / header));
  static const std::regex include("^#include \"([a-z_/]+\\.h)\"");
  std::smatch found;
  for (std::string line; std::getline(lines, line);)
    if (std::regex_search(line, found, include) && all->insert(found[1]).second)
      collect(found[1], all);
}

// Types, functions and constants of a namespace, which stand at the beginning of a line.
std::vector<std::string> names_of(const std::string& header) {
  static const std::regex type("^(?:class|struct|enum class) (\\w+)[^;]*$"),
      alias("^using (\\w+) ="), constant("^(?:inline )?constexpr [\\w:<>]+ (k\\w+)"),
      function(
          "^(?!using|return|namespace|template|friend)[A-Za-z_][\\w:<>,&* ]*[ &*]([a-z]\\w*)\\(");
  std::vector<std::string> out;
  std::istringstream lines(read(fs::path(MTCKI_SOURCE_DIR) / header));
  std::smatch found;
  for (std::string line; std::getline(lines, line);)
    for (const std::regex* r : {&type, &alias, &constant, &function})
      if (std::regex_search(line, found, *r)) {
        if (std::ranges::find(out, found[1]) == out.end()) out.push_back(found[1]);
        break;
      }
  return out;
}

std::string page() {
  std::set<std::string> headers;
  collect("mtcki.h", &headers);
  std::string out =
      "# Which header has it\n"
      "\n"
      "The names of the library: functions, types and constants of every header that `mtcki.h` "
      "brings, in\n"
      "the order in which they stand there, with their formulas, shapes and errors. Gradients are "
      "one level\n"
      "up: `add` of Variables is in `autograd/functions.h`, `add` of Tensors in "
      "`tensor/ops/elementwise.h`.\n"
      "A test holds this page to the headers.\n"
      "\n"
      "| Header | Names |\n"
      "|---|---|\n";
  for (const std::string& header : headers) {
    std::string names;
    for (const std::string& name : names_of(header))
      names += (names.empty() ? "`" : ", `") + name + "`";
    if (!names.empty()) out += "| [" + header + "](../" + header + ") | " + names + " |\n";
  }
  return out;
}

TEST(ApiIndex, NamesEveryFunctionAndTypeOfTheLibrary) {
  const fs::path file = fs::path(MTCKI_SOURCE_DIR) / "docs/api.md";
  const std::string now = page();
  for (const char* name : {"`Tensor`", "`randn`", "`cross_entropy`", "`make_sgd`", "`Loader`",
                           "`gradcheck`", "`make_classifier`", "`mean`", "`conv2d`"})
    EXPECT_NE(now.find(name), std::string::npos) << name;
  if (std::getenv("MTCKI_WRITE_API")) std::ofstream(file) << now;
  EXPECT_EQ(read(file), now) << "docs/api.md is old: see tests/style_test_api.cpp";
}

}  // namespace
