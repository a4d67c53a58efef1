// golden_check FILE.safetensors...: runs the cases of golden files and prints the error of every
// output and gradient. Exit code 0: all within tolerance; 1: some are not; 2: usage, unknown op or
// option; 3: damaged or incomplete file. Format: docs/golden-files.md.
#include "tests/golden/golden_check.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tensor/ops/conv/conv.h"

namespace mtcki::golden {

const nlohmann::json* Options::find(const std::string& name) const {
  used_.insert(name);
  const auto it = values_.find(name);
  return it == values_.end() || it->is_null() ? nullptr : &*it;
}
bool Options::has(const std::string& name) const { return find(name) != nullptr; }
const nlohmann::json& Options::raw(const std::string& name) const { return *find(name); }
double Options::number(const std::string& name, double fallback) const {
  const nlohmann::json* v = find(name);
  if (!v) return fallback;
  if (!v->is_number())
    throw DataError(str("option ", name, ": expected a number, got ", v->dump()));
  return v->get<double>();
}
int64_t Options::integer(const std::string& name, int64_t fallback) const {
  const double v = number(name, static_cast<double>(fallback));
  if (v != std::floor(v) || std::abs(v) > 1e15)
    throw DataError(str("option ", name, ": expected an integer, got ", v));
  return static_cast<int64_t>(v);
}
bool Options::boolean(const std::string& name, bool fallback) const {
  const nlohmann::json* v = find(name);
  if (!v) return fallback;
  if (v->is_boolean()) return v->get<bool>();
  if (v->is_number()) return v->get<double>() != 0.0;
  throw DataError(str("option ", name, ": expected true or false, got ", v->dump()));
}
bool Options::is_text(const std::string& name) const {
  const nlohmann::json* v = find(name);
  return v && v->is_string();
}
std::string Options::text(const std::string& name, const std::string& fallback) const {
  const nlohmann::json* v = find(name);
  if (!v) return fallback;
  if (!v->is_string()) throw DataError(str("option ", name, ": expected text, got ", v->dump()));
  return v->get<std::string>();
}
std::vector<int64_t> Options::integers(const std::string& name,
                                       const std::vector<int64_t>& fallback) const {
  const nlohmann::json* v = find(name);
  if (!v) return fallback;
  if (v->is_number()) return {integer(name, 0)};
  std::vector<int64_t> out;
  if (v->is_array())
    for (const nlohmann::json& e : *v)
      if (e.is_number_integer()) out.push_back(e.get<int64_t>());
  if (!v->is_array() || out.size() != v->size())
    throw DataError(str("option ", name, ": expected integers, got ", v->dump()));
  return out;
}
std::array<int64_t, 2> Options::pair(const std::string& name,
                                     std::array<int64_t, 2> fallback) const {
  const std::vector<int64_t> v = integers(name, {fallback[0], fallback[1]});
  if (v.size() == 1) return {v[0], v[0]};
  if (v.size() != 2) throw DataError(str("option ", name, ": expected one or two integers"));
  return {v[0], v[1]};
}
std::vector<std::string> Options::unused() const {
  std::vector<std::string> out;
  for (const auto& [key, value] : values_.items())
    if (!used_.count(key) && !value.is_null()) out.push_back(key);
  return out;
}

const Tensor* Case::find(const std::string& key) const {
  const auto it = tensors.find(key);
  return it == tensors.end() ? nullptr : &it->second;
}
const Tensor& require(const Case& c, std::string_view key) {
  if (const Tensor* t = c.find(std::string(key))) return *t;
  throw DataError(str(c.name, ": tensor ", c.name, "/", key, " is missing"));
}

namespace {

bool has_prefix(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

// Names of the tensors of a case: a typo must not pass unnoticed.
void check_key(const Case& c, const std::string& key) {
  const auto indexed = [&](const std::string& prefix) {
    return has_prefix(key, prefix) && key.size() > prefix.size() &&
           key.size() < prefix.size() + 3 &&
           std::all_of(key.begin() + static_cast<int64_t>(prefix.size()), key.end(),
                       [](unsigned char ch) { return ch >= '0' && ch <= '9'; });
  };
  if (indexed("in") || indexed("out") || indexed("grad_in") || key == "grad_out" ||
      key == "grad_out0")
    return;
  if (c.op == "model" && (key == "loss" || has_prefix(key, "state/") || has_prefix(key, "grad/") ||
                          has_prefix(key, "state_dict/") || has_prefix(key, "buffer/")))
    return;
  throw DataError(str("case ", c.name, ": tensor name '", c.name, "/", key,
                      "' (known: inN, outN, grad_out, grad_inN)"));
}

std::vector<Case> read_cases(const std::string& path) {
  const data::StateFile file = data::read_safetensors(path);
  std::vector<Case> cases;
  for (const auto& [name, value] : file.metadata) {
    nlohmann::json json = nlohmann::json::parse(value, nullptr, false);
    const bool looks_like_case =
        json.is_object() && (json.contains("op") || json.contains("model"));
    if (!looks_like_case) {
      // Other metadata ("format": "pt") is allowed, but not under the name of a case.
      for (const auto& [tensor_name, tensor] : file.tensors)
        if (has_prefix(tensor_name, name + "/"))
          throw DataError(
              str("case ", name, ": its metadata is no JSON object with \"op\": ", value));
      continue;
    }
    Case c;
    c.name = name;
    c.folder = path.substr(0, path.rfind('/') + 1);
    if (json.contains("op") && !json["op"].is_string())
      throw DataError(str("case ", name, ": \"op\" must be text"));
    c.op = json.contains("op") ? json["op"].get<std::string>() : "model";
    json.erase("op");
    for (const char* prefix : {"torch.nn.functional.", "nn.functional.", "F.", "torch."})
      if (has_prefix(c.op, prefix)) c.op = c.op.substr(std::string(prefix).size());
    for (const char* nested : {"options", "kwargs"}) {  // options may also stand one level lower
      if (!json.contains(nested) || !json[nested].is_object()) continue;
      const nlohmann::json inner = json[nested];
      json.erase(nested);
      json.update(inner);
    }
    c.options = Options(json);
    cases.push_back(std::move(c));
  }
  // A tensor belongs to the case with the longest name that it begins with.
  for (const auto& [tensor_name, tensor] : file.tensors) {
    Case* owner = nullptr;
    for (Case& c : cases)
      if (has_prefix(tensor_name, c.name + "/") && (!owner || c.name.size() > owner->name.size()))
        owner = &c;
    if (!owner)
      throw DataError(str("tensor '", tensor_name,
                          "' belongs to no case: the metadata has no key '",
                          tensor_name.substr(0, tensor_name.rfind('/')), "'"));
    const std::string key = tensor_name.substr(owner->name.size() + 1);
    check_key(*owner, key);
    // Half precision is compared in f32.
    owner->tensors[key] = tensor.dtype() == DType::bf16 ? tensor.to(DType::f32) : tensor;
  }
  if (cases.empty()) throw DataError("no cases: the metadata has no JSON object with \"op\"");
  return cases;
}

struct Settings {
  double tolerance = 0;  // 0: by dtype
  bool quiet = false;
};

double default_tolerance(const Case& c) {
  bool f64 = true;
  for (const auto& [key, tensor] : c.tensors)
    if (is_floating(tensor.dtype()) && tensor.dtype() != DType::f64) f64 = false;
  // A network sums the rounding of all its layers.
  if (c.op == "model") return f64 ? 1e-8 : 2e-3;
  return f64 ? 1e-9 : 1e-4;
}

double largest(const std::vector<double>& v) {
  double m = 0;
  for (double x : v) m = std::max(m, std::abs(x));
  return m;
}

// Prints one line; true when the error is within tolerance.
//   |ours - expected| <= tolerance * scale,  scale = max(max|expected|, 1e-3 * (1 or the largest
//   expected gradient of the case)): a gradient that is zero but for rounding is not held against
//   us.
bool compare(const std::string& name, const Check& check, double tolerance, double floor,
             bool quiet) {
  const auto squeezed = [](const Shape& s) {
    std::vector<int64_t> out;
    for (int64_t d : s)
      if (d != 1) out.push_back(d);
    return out;
  };
  if (!check.ours.defined()) {
    std::printf("FAIL %s/%s: the op gave nothing\n", name.c_str(), check.what.c_str());
    return false;
  }
  if (squeezed(check.ours.shape()) != squeezed(check.expected.shape())) {
    std::printf("FAIL %s/%s: shape %s, expected %s\n", name.c_str(), check.what.c_str(),
                check.ours.shape().to_string().c_str(), check.expected.shape().to_string().c_str());
    return false;
  }
  const std::vector<double> ours = check.ours.to_vector<double>();
  const std::vector<double> expected = check.expected.to_vector<double>();
  double error = 0;
  size_t at = 0;
  bool finite = true;
  for (size_t i = 0; i < ours.size(); ++i) {
    if (ours[i] == expected[i] || (std::isnan(ours[i]) && std::isnan(expected[i]))) continue;
    const double d = std::abs(ours[i] - expected[i]);
    if (!std::isfinite(d)) finite = false;
    if (d > error || !std::isfinite(d)) error = d, at = i;
    if (!finite) break;
  }
  const double scale = std::max(largest(expected), floor);
  const double relative = error / scale;
  const bool ok =
      finite && (is_floating(check.expected.dtype()) ? relative <= tolerance : error == 0);
  if (!ok || !quiet)
    std::printf("%s %s/%s %s: max abs %.3g, relative %.3g\n", ok ? "ok  " : "FAIL", name.c_str(),
                check.what.c_str(), check.expected.shape().to_string().c_str(), error, relative);
  if (!ok)
    std::printf("     element %zu: got %.9g, expected %.9g; tolerance %.3g relative\n", at,
                ours[at], expected[at], tolerance);
  return ok;
}

bool run_case(const Case& c, const Settings& settings) {
  const Outcome outcome = c.op == "model" ? run_model(c) : run_op(c);
  if (outcome.checks.empty())
    throw DataError(str("case ", c.name, ": nothing to compare (no outN and no grad_inN)"));
  for (const std::string& name : c.options.unused())
    std::printf("note %s: option '%s' is not used by %s\n", c.name.c_str(), name.c_str(),
                c.op.c_str());
  if (!outcome.note.empty()) std::printf("note %s: %s\n", c.name.c_str(), outcome.note.c_str());
  double gradient = 0;
  for (const Check& check : outcome.checks)
    if (has_prefix(check.what, "grad"))
      gradient = std::max(gradient, largest(check.expected.to_vector<double>()));
  const double tolerance = settings.tolerance > 0 ? settings.tolerance : default_tolerance(c);
  bool ok = true;
  for (const Check& check : outcome.checks) {
    const double floor = 1e-3 * (has_prefix(check.what, "grad") ? std::min(gradient, 1.0) : 1.0);
    ok = compare(c.name, check, tolerance, std::max(floor, 1e-30), settings.quiet) && ok;
  }
  return ok;
}

constexpr const char* kUsage =
    "usage: golden_check [--tolerance REL] [--kernels auto|onednn|builtin] [--quiet] "
    "FILE.safetensors...\n"
    "  --tolerance  largest error relative to the largest expected value; default 1e-4 (f32),\n"
    "               1e-9 (f64), for networks 2e-3 and 1e-8\n"
    "  --kernels    which CPU kernels convolutions and matrix products use\n"
    "  --quiet      print only what fails\n";

int run(int argc, char** argv) {
  Settings settings;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw UsageError(a + " needs a value");
      return argv[++i];
    };
    if (a == "-h" || a == "--help") {
      std::fputs(kUsage, stdout);
      return 0;
    } else if (a == "--tolerance") {
      const std::string text = value();
      char* end = nullptr;
      settings.tolerance = std::strtod(text.c_str(), &end);
      if (end != text.c_str() + text.size() || !(settings.tolerance > 0))
        throw UsageError("--tolerance: expected a positive number, got '" + text + "'");
    } else if (a == "--kernels") {
      const std::string text = value();
      if (text == "auto")
        set_cpu_kernels(CpuKernels::automatic);
      else if (text == "onednn")
        set_cpu_kernels(CpuKernels::onednn);
      else if (text == "builtin")
        set_cpu_kernels(CpuKernels::builtin);
      else
        throw UsageError("--kernels: expected auto, onednn or builtin, got '" + text + "'");
    } else if (a == "--quiet") {
      settings.quiet = true;
    } else if (has_prefix(a, "-")) {
      throw UsageError("unknown flag '" + a + "'\n" + kUsage);
    } else {
      files.push_back(a);
    }
  }
  if (files.empty()) throw UsageError(std::string("no file given\n") + kUsage);

  int cases = 0, failed = 0, code = 0;
  for (const std::string& path : files) {
    try {
      for (const Case& c : read_cases(path)) {
        ++cases;
        if (!run_case(c, settings)) ++failed, code = std::max(code, 1);
      }
    } catch (const Error& e) {
      std::fprintf(stderr, "error: %s: %s\n", path.c_str(), e.what());
      // A shape that an op refuses is a fault of the file.
      code = std::max(code, e.exit_code() == 1 ? 3 : e.exit_code());
    } catch (const nlohmann::json::exception& e) {
      std::fprintf(stderr, "error: %s: options: %s\n", path.c_str(), e.what());
      code = 3;
    }
  }
  std::printf("%d cases, %d failed\n", cases, failed);
  return code;
}

}  // namespace
}  // namespace mtcki::golden

int main(int argc, char** argv) {
  try {
    return mtcki::golden::run(argc, argv);
  } catch (const mtcki::Error& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return e.exit_code();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s\n", e.what());
    return 3;
  }
}
