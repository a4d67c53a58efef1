// What a reader meets in every file: prose is wrapped as the code is, and no file has two subjects.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
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

// The text without comments, literals and preprocessor lines; line breaks stay.
std::string bare(const std::string& s) {
  std::string out;
  const auto skip_to = [&](size_t* i, size_t end) {
    for (; *i < end; ++*i)
      if (s[*i] == '\n') out += '\n';
  };
  for (size_t i = 0; i < s.size();) {
    const auto starts = [&](const char* text) {
      return s.compare(i, std::strlen(text), text) == 0;
    };
    const auto end_of = [&](const std::string& text, size_t from) {
      const size_t at = s.find(text, from);
      return at == std::string::npos ? s.size() : at + text.size();
    };
    if (starts("//") || (s[i] == '#' && (i == 0 || s[i - 1] == '\n'))) {
      size_t end = s.find('\n', i);
      while (end != std::string::npos && s[end - 1] == '\\') end = s.find('\n', end + 1);
      skip_to(&i, std::min(end, s.size()));
    } else if (starts("R\"")) {
      const size_t open = s.find('(', i);
      skip_to(&i, end_of(")" + s.substr(i + 2, open - i - 2) + "\"", open));
    } else if (s[i] == '"' || (s[i] == '\'' && (i == 0 || !std::isalnum(s[i - 1])))) {
      size_t end = i + 1;
      while (end < s.size() && s[end] != s[i]) end += s[end] == '\\' ? 2 : 1;
      skip_to(&i, std::min(end + 1, s.size()));
      out += "0";
    } else {
      out += s[i++];
    }
  }
  return out;
}

struct Function {
  std::string name;
  int64_t line = 0, lines = 0;
};

// Outermost functions of clang-formatted code: bodies behind ") {", ") const {" and the like. What is
// nested in one, lambdas too, counts as its lines.
std::vector<Function> functions(const std::string& source) {
  static const std::regex scope(R"(\b(namespace|class|struct|union|enum|extern)\b)");
  struct Open {
    bool scope, function;
    int64_t line;
    std::string text;
  };
  std::vector<Function> out;
  std::vector<Open> stack;
  std::string text;              // of the declaration that a brace may follow
  int64_t line = 1, inside = 0;  // how many braces are open that are no scopes
  char before = ' ';
  for (const char c : bare(source)) {
    if (c == '\n') ++line;
    if (c == '{') {
      const size_t last = text.find_last_not_of(" \n");
      const char end = last == std::string::npos ? ' ' : text[last];
      const bool is_scope = inside == 0 && end != ')' && std::regex_search(text, scope);
      const bool is_function = inside == 0 && !is_scope && before == ' ' && end != '=' &&
                               text.find('(') != std::string::npos;
      stack.push_back({is_scope, is_function, line, text});
      inside += is_scope ? 0 : 1;
      if (is_scope || is_function) text.clear();
    } else if (c == '}') {
      if (!stack.empty()) {
        const Open o = stack.back();
        stack.pop_back();
        inside -= o.scope ? 0 : 1;
        const size_t name = o.text.find_first_not_of(" \n");
        if (o.function)
          out.push_back({o.text.substr(name, o.text.find('(') - name), o.line, line - o.line + 1});
        if (o.scope || o.function) text.clear();
      }
    } else if (inside == 0) {
      if (c == ';') {
        text.clear();
      } else {
        text += c;
      }
    }
    before = c;
  }
  return out;
}

TEST(Style, FunctionsAreFoundAsTheyAre) {
  const auto found = functions(
      "// } a comment {\n"
      "namespace a {\nstruct B : C {\n  B() : x_(1), y_{2} {\n    f(\"}\");\n  }\n  int z = "
      "3;\n};\n"
      "const Row kRows[] = {{1, [] { return 2; }}};\n"
      "template <class T>\nint g(const T& t) {\n  if (t) {\n    return '}';\n  }\n"
      "  const auto l = [&](int x) { return x; };\n  return l(1);\n}\n}  // namespace a\n");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].line, 4);
  EXPECT_EQ(found[0].lines, 3);
  EXPECT_NE(found[1].name.find("int g"), std::string::npos);
  EXPECT_EQ(found[1].lines, 7);
}

TEST(Style, NoFunctionIsLongerThan80Lines) {
  int64_t checked = 0;
  for (const fs::path& path : files({".h", ".cpp", ".cu", ".cuh"})) {
    const std::string room = *fs::relative(path, MTCKI_SOURCE_DIR).begin();
    if (room != "mtcki" && room != "autograd" && room != "nn" && room != "optim") continue;
    std::ifstream in(path);
    for (const Function& f : functions({std::istreambuf_iterator<char>(in), {}})) {
      EXPECT_LE(f.lines, 80) << path << ":" << f.line << ": " << f.name;
      ++checked;
    }
  }
  EXPECT_GT(checked, 1000);
}

}  // namespace
