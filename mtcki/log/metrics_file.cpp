#include "mtcki/log/metrics_file.h"

#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "data/formats/atomic_file.h"
#include "data/formats/file_bytes.h"
#include "data/formats/json_file.h"
#include "tensor/error.h"

namespace mtcki::metrics_file {

using nlohmann::json;

namespace {

// Empty when there is no such file.
std::string read_all(const std::string& path) {
  return data::file_exists(path) ? data::read_text(path) : std::string();
}

// f(line without newline, complete) for each line.
template <class F>
void each_line(const std::string& text, const F& f) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    f(text.substr(begin, end == std::string::npos ? end : end - begin), end != std::string::npos);
    if (end == std::string::npos) break;
    begin = end + 1;
  }
}

}  // namespace

json number(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "Infinity" : "-Infinity";
  return v;
}

double to_double(const json& j) {
  if (j.is_number()) return j.get<double>();
  if (j == "Infinity") return std::numeric_limits<double>::infinity();
  if (j == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::numeric_limits<double>::quiet_NaN();
}

std::vector<Line> read(const std::string& path, int64_t* skipped) {
  std::vector<Line> out;
  int64_t bad = 0;
  each_line(read_all(path), [&](const std::string& text, bool complete) {
    const json j = data::parse_json(text);
    if (!j.is_object()) {
      if (complete) ++bad;
      return;
    }
    const auto text_of = [&](const char* key) {
      const auto it = j.find(key);
      return it != j.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    const auto number_of = [&](const char* key) {
      const auto it = j.find(key);
      return it != j.end() ? to_double(*it) : 0.0;
    };
    Line line{.t = number_of("t"),
              .epoch = number_of("epoch"),
              .stage = text_of("stage"),
              .kind = text_of("kind"),
              .text = text_of("text")};
    const double step = number_of("step");
    line.step = std::abs(step) < 9e15 ? static_cast<int64_t>(step) : 0;
    const auto values = j.find("values");
    if (values != j.end() && values->is_object())
      for (const auto& [name, value] : values->items())
        line.values.emplace_back(name, to_double(value));
    out.push_back(std::move(line));
  });
  if (skipped) *skipped = bad;
  return out;
}

void repair(const std::string& path) {
  std::error_code ec;
  const auto bytes = std::filesystem::file_size(path, ec);
  if (ec || bytes == 0) return;
  const std::string text = read_all(path);
  if (text.back() == '\n') return;
  const size_t last = text.rfind('\n');
  const auto keep = static_cast<off_t>(last == std::string::npos ? 0 : last + 1);
  if (truncate(path.c_str(), keep) != 0)
    throw DiskError("cannot repair \"" + path + "\": " + std::strerror(errno));
}

void forget_after(const std::string& path, const std::string& stage, int64_t step) {
  std::string kept;
  bool dropped = false;
  each_line(read_all(path), [&](const std::string& text, bool complete) {
    if (!complete) return;
    const json j = data::parse_json(text);
    if (j.is_object() && j.value("stage", json()) == stage && j.contains("step") &&
        j["step"].is_number() && j["step"].get<double>() > static_cast<double>(step)) {
      dropped = true;
      return;
    }
    kept += text + "\n";
  });
  if (dropped) data::write_file_atomic(path, kept);
}

}  // namespace mtcki::metrics_file
