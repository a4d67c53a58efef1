#include "tensor/op_error.h"

#include <algorithm>

#include "tensor/context.h"

namespace mtcki {

std::string OpError::text(const std::string& rule) const {
  std::string out = std::string(op_) + ": " + rule;
  size_t width = 2;  // of "in"
  for (const auto& [name, tensor] : operands_) width = std::max(width, std::string(name).size());
  const auto line = [&](const std::string& name, const std::string& value) {
    out += "\n  " + name + std::string(width - name.size() + 2, ' ') + value;
  };
  for (const auto& [name, tensor] : operands_) line(name, tensor.describe());
  const std::string where = context_path();
  if (!where.empty()) line("in", where);
  if (!hint_.empty()) out += "\n  hint: " + hint_;
  return out;
}

void check_rank(const char* op, const char* name, const Tensor& t, int rank) {
  if (!t.defined() || t.rank() != rank) OpError(op, name, t).shape(name, " needs rank ", rank);
}

void check_floating(const char* op, const char* name, const Tensor& t) {
  if (!t.defined() || !is_floating(t.dtype()))
    OpError(op, name, t).dtype(name, " needs a floating dtype (f32, f64, bf16)");
}

void check_same_shape(const char* op, const char* a_name, const Tensor& a, const char* b_name,
                      const Tensor& b) {
  if (a.shape() != b.shape())
    OpError(op, a_name, a, b_name, b).shape(a_name, " and ", b_name, " need equal shapes");
}

void check_same_dtype_device(const char* op, const char* a_name, const Tensor& a,
                             const char* b_name, const Tensor& b) {
  if (a.dtype() != b.dtype())
    OpError(op, a_name, a, b_name, b).dtype(a_name, " and ", b_name, " need equal dtypes");
  if (a.device() != b.device())
    OpError(op, a_name, a, b_name, b).device(a_name, " and ", b_name, " are on different devices");
}

}  // namespace mtcki
