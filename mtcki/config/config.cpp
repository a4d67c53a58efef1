#include "mtcki/config/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <set>

#include "data/formats/file_bytes.h"
#include "data/sets/dataset.h"
#include "data/sets/digest.h"
#include "mtcki/config/keys.h"
#include "mtcki/config/paths.h"
#include "tensor/error.h"
#include "tensor/nearest_name.h"

namespace mtcki {

namespace {

using config_keys::Field;
using config_keys::index_free;

constexpr uint64_t kMostText = uint64_t{1} << 20;  // bytes of a file
constexpr size_t kMostElements = 1000;             // of [[teachers]], [[students]]

// Where a value came from, for messages: "configs/demo.toml:12" or "command line".
struct Source {
  std::string file;  // empty: the command line
  ConfigOrigins* origins = nullptr;
  std::string at(const toml::node& node) const {
    return file.empty() ? "command line" : fmt::format("{}:{}", file, node.source().begin.line);
  }
};

std::string one_line(std::string s) {
  std::ranges::replace_if(
      s, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return s;
}

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw UsageError(one_line(where + ": " + what));
}

// Every key that exists, without element numbers, and the section names.
std::vector<std::string> known_paths() {
  RunConfig sample;
  sample.teachers.resize(1);
  sample.students.resize(1);
  std::vector<std::string> out = config_keys::sections();
  for (const Field& f : config_keys::fields(sample)) out.push_back(index_free(f.path));
  return out;
}

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// Nearest key in the same section first, then anywhere: "g_step" -> g_steps, "lr_g" ->
// synthesis.lr_g.
[[noreturn]] void unknown_key(const std::string& where, const std::string& path) {
  const std::string plain = index_free(path);
  const std::string section =
      plain.find('.') == std::string::npos ? "" : plain.substr(0, plain.rfind('.') + 1);
  std::vector<std::string> siblings;
  std::string elsewhere;
  int best = 1 + std::max<int>(1, static_cast<int>(last_part(plain).size()) / 4);
  for (const std::string& k : known_paths()) {
    if (k.compare(0, section.size(), section) == 0 &&
        k.find('.', section.size()) == std::string::npos)
      siblings.push_back(k.substr(section.size()));
    const int d = edit_distance(last_part(plain), last_part(k));
    if (d < best) {
      best = d;
      elsewhere = k;
    }
  }
  std::string near = likely_name(last_part(plain), siblings);
  if (!near.empty() && edit_distance(near, last_part(plain)) <= best) {
    near = section + near;
  } else if (!elsewhere.empty()) {
    near = elsewhere;
  } else if (!near.empty()) {
    near = section + near;
  }
  std::string help = " (mtcki run --help-config lists them all)";
  if (!near.empty()) {
    help = "; did you mean \"" + near + "\"?";
  } else if (!section.empty() && !siblings.empty() && siblings.size() <= 20) {
    help = fmt::format("; [{}] has {}", section.substr(0, section.size() - 1),
                       fmt::join(siblings, ", "));
  }
  fail(where, "unknown key \"" + plain + "\"" + help);
}

std::string describe(const toml::node& node) {
  if (const auto* v = node.as_string()) return "\"" + v->get() + "\"";
  if (const auto* v = node.as_integer()) return std::to_string(v->get());
  if (const auto* v = node.as_floating_point()) return fmt::format("{}", v->get());
  if (const auto* v = node.as_boolean()) return v->get() ? "true" : "false";
  if (node.is_array()) return "a list";
  return node.is_table() ? "a table" : "a date or time";
}

// Writes one TOML value into its field, after checking type and range.
class Assign {
 public:
  Assign(const Field& field, const toml::node& node, std::string where)
      : field_(field), node_(node), where_(std::move(where)) {}

  void operator()(int64_t* out) const { *out = integer(node_); }
  void operator()(uint64_t* out) const { *out = static_cast<uint64_t>(integer(node_)); }
  void operator()(double* out) const { *out = number(node_); }
  void operator()(bool* out) const {
    const auto* v = node_.as_boolean();
    if (!v) wrong_type(node_);
    *out = v->get();
  }
  void operator()(std::string* out) const { *out = text(node_); }
  void operator()(const config_keys::Mode& mode) const {
    const auto& all = field_.choices;
    mode.set(static_cast<size_t>(std::ranges::find(all, text(node_)) - all.begin()));
  }
  void operator()(std::vector<int64_t>* out) const {
    list(out, [this](const toml::node& n) { return integer(n); });
  }
  void operator()(std::vector<double>* out) const {
    list(out, [this](const toml::node& n) { return number(n); });
  }
  void operator()(std::vector<std::string>* out) const {
    list(out, [this](const toml::node& n) { return text(n); });
  }

 private:
  std::string text(const toml::node& node) const {
    const auto* v = node.as_string();
    if (!v) wrong_type(node);
    if (v->get().find('\0') != std::string::npos)
      fail(where_, field_.path + ": text must not hold a zero byte");
    if (!field_.choices.empty() &&
        std::ranges::find(field_.choices, v->get()) == field_.choices.end()) {
      fail(where_, fmt::format("{}: \"{}\" is none of {}{}", field_.path, v->get(),
                               field_.accepted(), did_you_mean(v->get(), field_.choices)));
    }
    return v->get();
  }
  [[noreturn]] void wrong_type(const toml::node& node) const {
    fail(where_,
         fmt::format("{}: expects {}{}, found {}", field_.path, field_.type(),
                     field_.choices.empty() ? "" : " (" + field_.accepted() + ")", describe(node)));
  }
  void check(double v, const toml::node& node) const {
    if (!std::isfinite(v) || !field_.range.holds(v))
      fail(where_, fmt::format("{}: {} is out of range (accepted: {})", field_.path, describe(node),
                               field_.range.to_string()));
  }
  int64_t integer(const toml::node& node) const {
    const auto* v = node.as_integer();
    if (!v) wrong_type(node);
    check(static_cast<double>(v->get()), node);
    return v->get();
  }
  double number(const toml::node& node) const {
    double v = 0;
    if (const auto* f = node.as_floating_point()) {
      v = f->get();
    } else if (const auto* i = node.as_integer()) {
      v = static_cast<double>(i->get());
    } else {
      wrong_type(node);
    }
    check(v, node);
    return v;
  }
  template <class T, class F>
  void list(std::vector<T>* out, const F& element) const {
    const auto* a = node_.as_array();
    if (!a) wrong_type(node_);
    std::vector<T> values;
    for (const toml::node& n : *a) values.push_back(element(n));
    *out = std::move(values);
  }

  const Field& field_;
  const toml::node& node_;
  std::string where_;
};

void assign(const std::vector<Field>& fields, const std::string& path, const toml::node& node,
            const Source& source) {
  for (const Field& f : fields) {
    if (f.path != path) continue;
    std::visit(Assign(f, node, source.at(node)), f.target);
    if (source.origins) (*source.origins)[path] = source.at(node);
    return;
  }
  unknown_key(source.at(node), path);
}

template <class T>
void assign_elements(std::vector<T>* list, const std::string& section, const toml::node& node,
                     const Source& source) {
  const toml::array* array = node.as_array();
  if (!array)
    fail(source.at(node), fmt::format("{0}: expects tables, written as [[{0}]]", section));
  if (array->size() > kMostElements)
    fail(source.at(node), fmt::format("{}: more than {} tables", section, kMostElements));
  list->assign(array->size(), T{});  // a later file replaces the list as a whole
  if (source.origins)
    std::erase_if(*source.origins,
                  [&section](const auto& o) { return o.first.starts_with(section + "."); });
  for (size_t i = 0; i < array->size(); ++i) {
    const toml::table* table = (*array)[i].as_table();
    const std::string prefix = fmt::format("{}.{}.", section, i);
    if (!table)
      fail(source.at((*array)[i]), fmt::format("{0}: expects tables, written as [[{0}]]", section));
    const std::vector<Field> fields = config_keys::fields((*list)[i], prefix);
    for (const auto& [key, value] : *table)
      assign(fields, prefix + std::string(key.str()), value, source);
  }
}

void apply(RunConfig* config, const toml::table& root, const Source& source) {
  for (const auto& [key, value] : root) {
    const std::string name(key.str());
    if (name == "teachers") {
      assign_elements(&config->teachers, name, value, source);
    } else if (name == "students") {
      assign_elements(&config->students, name, value, source);
    } else if (const auto& s = config_keys::sections(); std::ranges::find(s, name) != s.end()) {
      const toml::table* table = value.as_table();
      if (!table)
        fail(source.at(value), fmt::format("{0}: expects a table, written as [{0}]", name));
      const std::vector<Field> fields = config_keys::fields(*config);
      for (const auto& [inner, v] : *table)
        assign(fields, name + "." + std::string(inner.str()), v, source);
    } else {
      if (value.is_table()) unknown_key(source.at(value), name);
      assign(config_keys::fields(*config), name, value, source);
    }
  }
}

void apply_file(RunConfig* config, const std::string& path, ConfigOrigins* origins) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec))
    throw UsageError("config file \"" + path +
                     "\": " + (std::filesystem::exists(path, ec) ? "not a file" : "no such file"));
  toml::table root;
  try {
    root = toml::parse(data::read_text(path, kMostText), path);
  } catch (const toml::parse_error& e) {
    fail(fmt::format("{}:{}:{}", path, e.source().begin.line, e.source().begin.column),
         std::string(e.description()));
  }
  apply(config, root, {path, origins});
}

// Makes room when an override names the next element: "teachers.2.model=..." after two teachers.
void grow_for(RunConfig* config, const std::string& path) {
  const size_t dot = path.find('.');
  const std::string section = path.substr(0, dot);
  if (dot == std::string::npos || !config_keys::is_array(section)) return;
  const size_t end = path.find('.', dot + 1);
  const std::string index = path.substr(dot + 1, end - dot - 1);
  const size_t count = section == "teachers" ? config->teachers.size() : config->students.size();
  if (index.empty() || index.size() > 6 || !std::ranges::all_of(index, ::isdigit) ||
      (index[0] == '0' && index.size() > 1) || end == std::string::npos)
    fail("command line",
         fmt::format("{}: {} is a list: write {}.0.model=...", path, section, section));
  const size_t i = std::stoul(index);
  if (i > count)
    fail("command line", fmt::format("{}: there are {} {}, so the next one is {}.{}", path, count,
                                     section, section, count));
  if (i < count) return;
  if (section == "teachers") config->teachers.emplace_back();
  if (section == "students") config->students.emplace_back();
}

void apply_override(RunConfig* config, const std::string& text, ConfigOrigins* origins) {
  const Source source{"", origins};
  const size_t eq = text.find('=');
  if (eq == std::string::npos || eq == 0) fail("command line", "\"" + text + "\" is not key=value");
  const std::string path = text.substr(0, eq), value = text.substr(eq + 1);
  if (config_keys::is_array(path)) {
    try {
      apply(config, toml::parse(text), source);
    } catch (const toml::parse_error& e) {
      fail("command line", text + ": " + std::string(e.description()));
    }
    return;
  }
  grow_for(config, path);
  const std::vector<Field> fields = config_keys::fields(*config);
  const auto field = std::ranges::find_if(fields, [&](const Field& f) { return f.path == path; });
  const auto& sections = config_keys::sections();
  if (std::ranges::find(sections, path) != sections.end())
    fail("command line", fmt::format("{0} is a table: write {0}.KEY=VALUE", path));
  if (field == fields.end()) unknown_key("command line", path);
  // Text may be written bare, whatever it looks like: name=007, weights=a b.pth.
  const bool quoted = !value.empty() && (value[0] == '"' || value[0] == '\'');
  if (field->is_text() && !quoted) {
    assign(fields, path, toml::value<std::string>(value), source);
    return;
  }
  toml::table parsed;
  try {
    parsed = toml::parse("value = " + value);
  } catch (const toml::parse_error&) {
    fail("command line", fmt::format("{}: expects {}, found \"{}\"", path, field->type(), value));
  }
  if (parsed.size() != 1)
    fail("command line", fmt::format("{}: expects one value, found \"{}\"", path, value));
  assign(fields, path, *parsed.get("value"), source);
}

bool file_name_safe(const std::string& s) {
  return !s.empty() && s.size() <= 100 && s[0] != '.' && s[0] != '-' &&
         std::ranges::all_of(s, [](unsigned char c) {
           return std::isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

template <class T>
void name_elements(std::vector<T>* list, const char* section) {
  std::set<std::string> used;
  for (const T& e : *list) used.insert(e.name);
  for (size_t i = 0; i < list->size(); ++i) {
    T& e = (*list)[i];
    if (e.model.empty())
      throw UsageError(fmt::format("{}.{}: model is missing (mtcki summary --list)", section, i));
    if (e.name.empty()) {
      e.name = e.model;
      for (int n = 2; used.count(e.name); ++n) e.name = fmt::format("{}-{}", e.model, n);
    }
    used.insert(e.name);
  }
}

template <class T>
void check_names(const std::vector<T>& list, const char* section) {
  std::set<std::string> used;
  for (const T& e : list) {
    if (e.model.empty()) throw UsageError(fmt::format("{}: model is missing", section));
    if (!file_name_safe(e.name))
      throw UsageError(
          fmt::format("{}: name \"{}\" must be letters, digits, '.', '_' or '-': it "
                      "becomes a folder",
                      section, e.name));
    if (!used.insert(e.name).second)
      throw UsageError(
          fmt::format("{}: two are named \"{}\"; give one another name", section, e.name));
  }
}

}  // namespace

bool is_override(const std::string& input) {
  std::error_code ec;
  return input.find('=') != std::string::npos && !std::filesystem::is_regular_file(input, ec);
}

RunConfig load_config(const std::vector<std::string>& files,
                      const std::vector<std::string>& overrides, ConfigOrigins* origins) {
  RunConfig config;
  for (const std::string& f : files) {
    if (is_override(f))
      apply_override(&config, f, origins);
    else
      apply_file(&config, f, origins), resolve_paths(&config, f);
  }
  for (const std::string& o : overrides) apply_override(&config, o, origins);
  resolve_paths(&config, "");
  name_elements(&config.teachers, "teachers");
  name_elements(&config.students, "students");
  validate(config);
  return config;
}

void validate(const RunConfig& c) {
  if (!file_name_safe(c.name))
    throw UsageError("name: \"" + c.name +
                     "\" must be letters, digits, '.', '_' or '-': it becomes a folder");
  if (c.out.empty()) throw UsageError("out: must not be empty");
  if (c.teachers.empty())
    throw UsageError("teachers: none given; write [[teachers]], or teachers.0.model=...");
  check_names(c.teachers, "teachers");
  check_names(c.students, "students");
  double weights = 0;
  for (const TeacherConfig& t : c.teachers) {
    weights += t.weight;
    if (t.mean.size() != t.std.size())
      throw UsageError(
          fmt::format("teachers \"{}\": mean has {} values and std {}: give both, one "
                      "per channel",
                      t.name, t.mean.size(), t.std.size()));
    if (data::Normalization{t.mean, t.std}.is_of_bytes())
      throw UsageError("teachers \"" + t.name +
                       "\": mean and std are those of images in 0..255; here images are in [0,1]: "
                       "divide both by 255");
    if (t.weights.empty() && !(t.name_map + t.weights_key).empty())
      throw UsageError("teachers \"" + t.name + "\": name_map or weights_key without weights");
  }
  if (!(weights > 0) || !std::isfinite(weights))
    throw UsageError(fmt::format("teachers: the weights sum to {}", weights));
  const TrainConfig& t = c.train;
  if (t.warmup_epochs >= static_cast<double>(t.epochs))
    throw UsageError("train.warmup_epochs: must be less than train.epochs");
  if (t.batch_size % t.accumulate != 0 || t.batch_size / t.accumulate < 2)
    throw UsageError(
        fmt::format("train.accumulate: {} parts of at least 2 images each do not make "
                    "train.batch_size = {}",
                    t.accumulate, t.batch_size));
  if (t.schedule == "onecycle" && t.warmup_epochs > 0)
    throw UsageError("train.warmup_epochs: train.schedule=onecycle has its own rise; set it to 0");
  config_keys::validate_method(c);
  config_keys::validate_data(c);
  if (!c.metrics.classifier_weights.empty() && c.metrics.classifier_model.empty())
    throw UsageError("metrics.classifier_weights: metrics.classifier_model is missing");
}

SynthesisConfig without_student(SynthesisConfig config) {
  for (const LossTermRow& row : inversion_terms())
    if (row.needs_student) config.loss[row.key] = 0;
  return config;
}

namespace {

// Of `section` ("" for the root keys), as "key = value" lines; all sections when names is empty.
std::string canonical(const RunConfig& config, bool only_results,
                      const std::vector<std::string>& names) {
  RunConfig copy = config;
  std::string out;
  for (const Field& f : config_keys::fields(copy)) {
    if (only_results && !f.affects_results) continue;
    const std::string section = f.path.substr(0, f.path.find('.')), plain = index_free(f.path);
    if (!names.empty() && std::ranges::find(names, section) == names.end() &&
        std::ranges::find(names, plain) == names.end())
      continue;
    out += f.path + " = " + f.value() + "\n";
  }
  return out;
}

}  // namespace

std::string to_toml(const RunConfig& config, const ConfigOrigins* origins) {
  RunConfig copy = config;
  std::string out, head;
  for (const Field& f : config_keys::fields(copy)) {
    const size_t dot = f.path.rfind('.');
    const std::string owner = dot == std::string::npos ? "" : f.path.substr(0, dot);
    if (owner != head) {
      head = owner;
      const std::string section = owner.substr(0, owner.find('.'));
      out += config_keys::is_array(section) ? "\n[[" + section + "]]\n" : "\n[" + section + "]\n";
    }
    const std::string line = last_part(f.path) + " = " + f.value();
    if (!origins) {
      out += line + "\n";
    } else {
      const auto origin = origins->find(f.path);
      out += fmt::format("{:<40}  # {}\n", line,
                         origin == origins->end() ? "default" : one_line(origin->second));
    }
  }
  return out;
}

std::string config_sha256(const RunConfig& config) {
  return data::sha256_hex(canonical(config, true, {}));
}

std::string config_sha256(const RunConfig& config, const std::vector<std::string>& sections) {
  for (const std::string& s : sections) {
    const auto known = known_paths();
    if (std::ranges::find(known, s) == known.end())
      throw Error("config_sha256: no section or key \"" + s + "\"" + did_you_mean(s, known));
  }
  return data::sha256_hex(canonical(config, true, sections));
}

}  // namespace mtcki
