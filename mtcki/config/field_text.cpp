// A key's value as TOML text, and what messages and the reference say that it takes.
#include <fmt/format.h>

#include "mtcki/config/keys.h"

namespace mtcki::config_keys {

namespace {

std::string toml_number(double v) {
  std::string s = fmt::format("{}", v);  // shortest text that reads back to the same value
  if (s.find_first_of(".en") == std::string::npos) s += ".0";
  return s;
}

std::string toml_text(const std::string& s) {
  std::string out = "\"";
  for (const char ch : s) {
    const auto u = static_cast<unsigned char>(ch);
    if (ch == '"' || ch == '\\') {
      out += '\\';
      out += ch;
    } else if (ch == '\n') {
      out += "\\n";
    } else if (ch == '\t') {
      out += "\\t";
    } else if (u < 0x20 || u == 0x7f) {
      out += fmt::format("\\u{:04X}", u);
    } else {
      out += ch;
    }
  }
  return out + "\"";
}

struct ToToml {
  const Field& field;

  std::string operator()(const Mode& mode) const { return toml_text(field.choices[mode.get()]); }
  std::string operator()(const int64_t* v) const { return std::to_string(*v); }
  std::string operator()(const uint64_t* v) const { return std::to_string(*v); }
  std::string operator()(const double* v) const { return toml_number(*v); }
  std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
  std::string operator()(const std::string* v) const { return toml_text(*v); }
  std::string operator()(const std::vector<int64_t>* v) const {
    return list(*v, [](int64_t x) { return std::to_string(x); });
  }
  std::string operator()(const std::vector<double>* v) const { return list(*v, toml_number); }
  std::string operator()(const std::vector<std::string>* v) const { return list(*v, toml_text); }

 private:
  template <class T, class F>
  static std::string list(const std::vector<T>& values, const F& text) {
    std::string out = "[";
    for (size_t i = 0; i < values.size(); ++i) out += (i ? ", " : "") + text(values[i]);
    return out + "]";
  }
};

}  // namespace

std::string Field::type() const {
  static const char* const names[] = {
      "an integer",         "an integer",        "a number",        "true or false", "text",
      "a list of integers", "a list of numbers", "a list of texts", "text"};
  return names[target.index()];
}

std::string Field::value() const { return std::visit(ToToml{*this}, target); }

bool Field::is_text() const {
  return std::holds_alternative<std::string*>(target) || std::holds_alternative<Mode>(target);
}

std::string Field::accepted() const {
  if (choices.empty()) return range.to_string();
  std::string out;
  for (const std::string& c : choices) out += (out.empty() ? "" : " | ") + c;
  return out;
}

}  // namespace mtcki::config_keys
