#include "mtcki/report/labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <vector>

#include "tensor/allocator.h"

namespace mtcki {

extern const char kReportLabels[];  // labels.txt, embedded by cmake/MtckiStyle.cmake

namespace {

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= line.size();) {
    const size_t end = std::min(line.find(" | ", begin), line.size());
    out.push_back(line.substr(begin, end - begin));
    begin = end + 3;
  }
  return out;
}

std::map<std::string, Label> read_labels() {
  std::map<std::string, Label> out;
  std::istringstream lines(kReportLabels);
  for (std::string line; std::getline(lines, line);) {
    const auto f = fields_of(line);
    if (f.size() >= 5 && !line.starts_with("#"))
      out[f[0]] = {f[1], f[2], std::stoi(f[3]), f[4], f.size() > 5};
  }
  return out;
}

}  // namespace

Label label_of(const std::string& key) {
  static const std::map<std::string, Label> labels = read_labels();
  if (const auto known = labels.find(key); known != labels.end()) return known->second;
  Label own{key, "", 4, "", false};
  std::replace(own.title.begin(), own.title.end(), '_', ' ');
  return own;
}

std::string label_text(const Label& label, double v) {
  if (label.unit == "%") return fmt::format("{:.{}f} %", v, label.digits);
  if (label.unit == "B" && v >= 0 && v < 1e18) return human_bytes(static_cast<size_t>(v));
  const std::string unit = label.unit.starts_with("#") ? label.unit.substr(1) : " " + label.unit;
  const std::string tail = unit.size() > 1 ? unit : "";
  const std::pair<double, const char*> scales[] = {
      {1e15, "P"}, {1e12, "T"}, {1e9, "G"}, {1e6, "M"}};
  if (!label.unit.starts_with("#")) return fmt::format("{:.{}g}{}", v, label.digits, tail);
  for (const auto& [scale, letter] : scales)
    if (std::abs(v) >= scale) return fmt::format("{:.4g} {}{}", v / scale, letter, tail);
  return fmt::format("{:.0f}{}", v, tail);
}

}  // namespace mtcki
