// Golden files: an op or a network, its inputs, and what another framework computed from them.
// Format: docs/golden-files.md.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "autograd/variable.h"
#include "data/formats/state_file.h"

namespace mtcki::golden {

// Named options of a case, with PyTorch's names. Absent and null mean the default.
class Options {
 public:
  explicit Options(nlohmann::json values) : values_(std::move(values)) {}
  bool has(const std::string& name) const;
  double number(const std::string& name, double fallback) const;
  int64_t integer(const std::string& name, int64_t fallback) const;
  bool boolean(const std::string& name, bool fallback) const;
  std::string text(const std::string& name, const std::string& fallback) const;
  bool is_text(const std::string& name) const;
  // One integer, or a list of them.
  std::vector<int64_t> integers(const std::string& name,
                                const std::vector<int64_t>& fallback) const;
  // (h, w): one integer stands for both.
  std::array<int64_t, 2> pair(const std::string& name, std::array<int64_t, 2> fallback) const;
  const nlohmann::json& raw(const std::string& name) const;
  // Options that no accessor asked for.
  std::vector<std::string> unused() const;

 private:
  const nlohmann::json* find(const std::string& name) const;
  nlohmann::json values_;
  mutable std::set<std::string> used_;
};

struct Case {
  std::string name, op, folder;  // of the file
  Options options{nlohmann::json::object()};
  std::map<std::string, Tensor> tensors;  // "in0", "grad_out", "state/conv1.weight", ...
  const Tensor* find(const std::string& key) const;
};

// What is compared: ours against the file's.
struct Check {
  std::string what;  // "out0", "grad_in1", "grad/conv1.weight"
  Tensor ours, expected;
};
struct Outcome {
  std::vector<Check> checks;
  std::string note;  // how an option that the file leaves open was read
};

// A case whose op is not known here, or whose options ask for what the op does not do: exit code 2.
struct UnsupportedError : Error {
  explicit UnsupportedError(const std::string& m) : Error(m, 2) {}
};

Outcome run_op(const Case& c);
Outcome run_model(const Case& c);
std::vector<std::string> op_names();

// Fails with DataError when the tensor is not in the file.
const Tensor& require(const Case& c, std::string_view key);

}  // namespace mtcki::golden
