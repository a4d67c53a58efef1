// Internal to golden_check: what the op functions share, and those that have options of their own.
#pragma once

#include <functional>

#include "autograd/functions.h"
#include "tests/golden/golden_check.h"

namespace mtcki::golden {

// Inputs in0, in1, ... as Variables; the floating ones that the file has a gradient for require
// one.
class Inputs {
 public:
  explicit Inputs(const Case& c) : case_(c) {
    for (const auto& [key, tensor] : c.tensors) {
      if (key.rfind("in", 0) != 0 || key.find('/') != std::string::npos) continue;
      const size_t i = static_cast<size_t>(std::stoul(key.substr(2)));
      if (i >= 64) throw DataError(str(c.name, ": input index ", i, " in '", key, "'"));
      if (variables_.size() <= i) variables_.resize(i + 1);
      variables_[i] = Variable(tensor, c.find("grad_" + key) != nullptr);
    }
  }
  size_t size() const { return variables_.size(); }
  bool has(size_t i) const { return i < variables_.size() && variables_[i].defined(); }
  const Variable& operator[](size_t i) const {
    if (!has(i)) throw DataError(str(case_.name, ": ", case_.op, " needs input in", i));
    return variables_[i];
  }
  Variable or_none(size_t i) const { return has(i) ? variables_[i] : Variable(); }
  const std::vector<Variable>& all() const { return variables_; }

 private:
  const Case& case_;
  std::vector<Variable> variables_;
};

struct Outputs {
  Variable y;                  // out0
  std::vector<Tensor> others;  // out1, out2, ...
  std::string note;
};
using Op = std::function<Outputs(const Inputs&, const Options&, const Case&)>;

[[noreturn]] inline void unsupported(const Case& c, const std::string& what) {
  throw UnsupportedError(str(c.name, ": ", c.op, ": ", what));
}

inline int positive_dim(int64_t dim, const Variable& x) {
  return static_cast<int>(dim < 0 ? dim + x.shape().rank() : dim);
}

inline Variable constant(const Shape& shape, double value, DType dtype) {
  return Variable(Tensor::full(shape, value, dtype));
}

Variable reduce(const Variable& values, const std::string& reduction, const Case& c);
Outputs run_conv2d(const Inputs& in, const Options& o, const Case& c);
Outputs run_conv_transpose2d(const Inputs& in, const Options& o, const Case& c);
Outputs run_batch_norm(const Inputs& in, const Options& o, const Case& c);
Outputs run_normalize(const Inputs& in, const Options& o, const Case& c);
Outputs run_max_pool2d(const Inputs& in, const Options& o, const Case& c);
Outputs run_avg_pool2d(const Inputs& in, const Options& o, const Case& c);
Outputs run_adaptive_avg_pool2d(const Inputs& in, const Options& o, const Case& c);
Outputs run_interpolate(const Inputs& in, const Options& o, const Case& c);
Outputs run_softmax(const Inputs& in, const Options& o, const Case& c);
Outputs run_log_softmax(const Inputs& in, const Options& o, const Case& c);
Outputs run_cross_entropy(const Inputs& in, const Options& o, const Case& c);
Outputs run_nll_loss(const Inputs& in, const Options& o, const Case& c);
Outputs run_kl_div(const Inputs& in, const Options& o, const Case& c);

}  // namespace mtcki::golden
