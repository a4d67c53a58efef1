// The file of a matrix.
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "data/formats/file_bytes.h"
#include "mtcki/matrix/matrix.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr uint64_t kMostText = uint64_t{1} << 20;
constexpr size_t kMostEntries = 1000;

json read_toml(const std::string& path) {
  if (!data::file_exists(path)) throw UsageError("matrix \"" + path + "\": no such file");
  try {
    const toml::table table = toml::parse(data::read_text(path, kMostText), path);
    std::ostringstream text;
    text << toml::json_formatter{table};
    return json::parse(text.str());
  } catch (const toml::parse_error& e) {
    throw UsageError(str(path, ":", e.source().begin.line, ": ", std::string(e.description())));
  }
}

bool fits(const json& j, const std::string&) { return j.is_string(); }
bool fits(const json& j, uint64_t) { return j.is_number_unsigned(); }
bool fits(const json& j, double) { return j.is_number(); }
template <class T>
bool fits(const json& j, const std::vector<T>&) {
  return j.is_array() && j.size() <= kMostEntries &&
         std::all_of(j.begin(), j.end(), [](const json& e) { return fits(e, T{}); });
}
const char* kind(const std::string&) { return "text"; }
const char* kind(double) { return "a number"; }
const char* kind(const std::vector<std::string>&) { return "a list of texts"; }
const char* kind(const std::vector<uint64_t>&) { return "a list of whole numbers, 0 or more"; }

// A table of which every key has to be asked for.
class Table {
 public:
  Table(const json& table, std::string where) : table_(table), where_(std::move(where)) {
    if (!table_.is_object()) throw UsageError(where_ + ": expects a table");
  }
  template <class T>
  T get(const char* key, T value) {
    asked_.emplace_back(key);
    const auto it = table_.find(key);
    if (it == table_.end()) return value;
    if (!fits(*it, value)) throw UsageError(str(where_, ": ", key, " expects ", kind(value)));
    return it->get<T>();
  }
  std::vector<json> tables(const char* key) {
    asked_.emplace_back(key);
    const auto it = table_.find(key);
    if (it == table_.end()) return {};
    if (!it->is_array() || it->size() > kMostEntries)
      throw UsageError(str(where_, ": ", key, " expects tables, written as [[", key, "]]"));
    return it->get<std::vector<json>>();
  }
  void end() const {
    for (const auto& [key, value] : table_.items())
      if (std::ranges::find(asked_, key) == asked_.end())
        throw UsageError(str(where_, ": unknown key \"", key, "\"", did_you_mean(key, asked_)));
  }

 private:
  json table_;
  std::string where_;
  std::vector<std::string> asked_;
};

// They become parts of names of folders, between dots.
std::string safe(const std::string& name, const std::string& where) {
  const auto ok = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; };
  if (name.empty() || name.size() > 30 || name[0] == '-' || !std::ranges::all_of(name, ok))
    throw UsageError(str(where, ": name \"", name,
                         "\" must be at most 30 letters, digits, '_' or '-': it becomes a folder"));
  return name;
}

std::vector<std::string> beside(std::vector<std::string> inputs, const fs::path& folder) {
  std::error_code ec;
  for (std::string& input : inputs)
    if (const fs::path there = folder / input; !is_override(input) && fs::exists(there, ec))
      input = there.string();
  return inputs;
}

std::vector<MatrixVariant> variants(Table& root, const char* key, const fs::path& folder) {
  std::vector<MatrixVariant> out;
  for (const json& j : root.tables(key)) {
    Table t(j, key);
    MatrixVariant v{safe(t.get("name", std::string()), key),
                    beside(t.get("config", std::vector<std::string>()), folder)};
    t.end();
    out.push_back(v);
  }
  if (out.empty()) out.emplace_back();  // what the base says
  return out;
}

MatrixMethod method_of(const json& j, const fs::path& folder) {
  Table t(j, "methods");
  MatrixMethod m;
  m.name = safe(t.get("name", std::string()), "methods");
  m.label = t.get("label", m.name);
  m.kind = t.get("kind", m.kind);
  m.config = beside(t.get("config", m.config), folder);
  m.teachers = t.get("teachers", m.teachers);
  m.budget = t.get("budget", m.budget);
  t.end();
  const std::vector<std::string> kinds = {"run", "alone", "scratch"};
  if (std::ranges::find(kinds, m.kind) == kinds.end())
    throw UsageError(str("methods.", m.name, ": kind \"", m.kind, "\" is none of run | alone | ",
                         "scratch", did_you_mean(m.kind, kinds)));
  return m;
}

// A published value, for the table: top1 in percent, and what it rests on.
json published_of(const json& j) {
  Table t(j, "published");
  json out;
  for (const char* key : {"method", "student", "teachers", "data", "mark", "source"})
    out[key] = t.get(key, std::string());
  out["top1"] = t.get("top1", -1.0);
  t.end();
  if (out["top1"] < 0 || out["student"] == "" || out["mark"] == "")
    throw UsageError("published: needs method, student, top1, and a mark of its evidence");
  return out;
}

}  // namespace

Matrix read_matrix_file(const std::vector<std::string>& inputs) {
  if (inputs.empty() || is_override(inputs[0]))
    throw UsageError("no matrix given, e.g. mtcki matrix configs/protocols/cpu-fashion.toml");
  const fs::path folder = fs::path(inputs[0]).parent_path();
  Matrix m;
  Table root(read_toml(inputs[0]), inputs[0]);
  m.name = root.get("name", fs::path(inputs[0]).stem().string());
  std::string out = root.get("out", std::string("runs"));
  m.seeds = root.get("seeds", std::vector<uint64_t>{0});
  m.against = root.get("against", m.against);
  m.base = beside(root.get("base", m.base), folder);
  m.data = variants(root, "data", folder);
  m.teachers = variants(root, "teachers", folder);
  for (const json& j : root.tables("methods")) m.methods.push_back(method_of(j, folder));
  for (const json& j : root.tables("published")) m.published.push_back(published_of(j));
  root.end();
  for (size_t i = 1; i < inputs.size(); ++i) {
    const std::string& input = inputs[i];
    const auto value = [&](const char* key) {
      return is_override(input) && input.starts_with(std::string(key) + "=");
    };
    const std::string text = input.substr(input.find('=') + 1);
    if (value("name")) {
      m.name = text;
    } else if (value("out")) {
      out = text;
    } else if (value("seeds")) {
      const json seeds = json::parse(text, nullptr, false);
      if (!fits(seeds, m.seeds)) throw UsageError("seeds: expects a list such as [0,1,2]");
      m.seeds = seeds.get<std::vector<uint64_t>>();
    } else {
      m.last.push_back(input);
    }
  }
  if (m.methods.empty()) throw UsageError(inputs[0] + ": no [[methods]]");
  if (m.seeds.empty()) throw UsageError(inputs[0] + ": seeds are empty");
  m.folder = (fs::path(out) / safe(m.name, "name")).string();
  return m;
}

}  // namespace mtcki
