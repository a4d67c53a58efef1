// Every configuration key once: where it lives, its range or choices, what it means. Internal to
// config.cpp and its tests; everybody else reads the structs of config.h.
#pragma once

#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "mtcki/config/config.h"

namespace mtcki::config_keys {

// Limits of a number (or of each element of a list).
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false;  // low itself is excluded

  bool holds(double v) const { return (open_low ? v > low : v >= low) && v <= high; }
  std::string to_string() const;  // "> 0", ">= 1", "0 .. 1", "" when unlimited
};

// A value of an enumeration, by the position of its name among the choices.
struct Mode {
  std::function<size_t()> get;
  std::function<void(size_t)> set;
};

struct Field {
  using Target =
      std::variant<int64_t*, uint64_t*, double*, bool*, std::string*, std::vector<int64_t>*,
                   std::vector<double>*, std::vector<std::string>*, Mode>;
  std::string path;  // "synthesis.g_steps", "teachers.0.model"
  Target target;     // into the config that was walked
  Range range;
  std::vector<std::string> choices;  // texts and modes; empty: free text
  std::string help;
  bool affects_results = true;  // part of config_sha256
  bool neutral = false;         // its default is no part of it

  std::string type() const;   // "integer", "number", "true or false", "text", "list of ..."
  std::string value() const;  // as TOML
  bool is_text() const;
  std::string accepted() const;  // range or choices as text
};

// "teachers.0.model" -> "teachers.model"
std::string index_free(const std::string& path);
// All fields of a config, in the order of the file. Arrays of tables appear once per element.
std::vector<Field> fields(RunConfig& config);
std::vector<Field> fields(TeacherConfig& teacher, const std::string& prefix);
std::vector<Field> fields(StudentConfig& student, const std::string& prefix);
// Sections in order ("data", "train", ...), and those that are arrays of tables.
const std::vector<std::string>& sections();
bool is_array(const std::string& section);

// The parts of validate() for [synthesis], [rounds], [distill] and for data.name = "none". UsageError.
void validate_method(const RunConfig& config);
void validate_data(const RunConfig& config);

}  // namespace mtcki::config_keys
