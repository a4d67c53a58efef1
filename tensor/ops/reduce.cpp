#include "tensor/ops/reduce.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/op_util.h"
#include "tensor/ops/reduce_kernels.h"

namespace mtcki {

namespace {

struct Axis {
  int64_t outer = 1, count = 1, inner = 1;
};
Axis axis_of(const Shape& shape, int first, int last) {  // dimensions [first, last)
  Axis a;
  for (int i = 0; i < shape.rank(); ++i)
    (i < first ? a.outer : i < last ? a.count : a.inner) *= shape[i];
  return a;
}

// On the CPU: sums in f64 (integers: i64) over the marked dimensions, which stay as 1.
Tensor sum_marked(const Tensor& x, const std::vector<bool>& reduced) {
  const bool floating = is_floating(x.dtype());
  const DType wide = floating ? DType::f64 : DType::i64;
  const int rank = x.rank();
  if (floating && rank == 4 && reduced[0] && !reduced[1] && reduced[2] && reduced[3]) {
    Tensor y = Tensor::empty({1, x.size(1), 1, 1}, DType::f64, x.device());
    sum_channels_cpu(widen(x), y);
    return y;
  }
  if (rank == 4 && !reduced[0] && !reduced[1] && reduced[2] && reduced[3]) {  // in any layout
    Tensor y = Tensor::empty({x.size(0), x.size(1), 1, 1}, wide, x.device());
    const int64_t pixels = x.size(2) * x.size(3);
    const int64_t lanes = x.layout() == Layout::plain     ? 1
                          : x.layout() == Layout::blocked ? kChannelBlock
                                                          : x.size(1);
    sum_axis_cpu(x, y, lanes ? y.numel() / lanes : 0, pixels, lanes);
    return y;
  }
  bool all = true;
  for (int i = 0; i < rank; ++i) all = all && (reduced[i] || x.size(i) == 1);
  Tensor y = all ? x : x.plain();  // the order does not matter when nothing is kept
  Shape shape = x.shape();
  for (int last = rank; last > 0; --last) {
    if (!all && !reduced[last - 1]) continue;
    int first = all ? 0 : last - 1;
    while (first > 0 && reduced[first - 1]) --first;
    const Axis a = axis_of(shape, first, last);
    for (int i = first; i < last; ++i) shape.set(i, 1);
    Tensor next = Tensor::empty(shape, wide, x.device());
    sum_axis_cpu(y, next, a.outer, a.count, a.inner);
    y = next;
    last = first + 1;
  }
  return y.dtype() == wide ? y : y.to(wide);
}

// How a CUDA kernel walks x for a sum over the marked dimensions, whatever its layout.
SumPlan sum_plan(const Tensor& x, const std::vector<bool>& reduced) {
  const Strides at(x.shape(), x.layout());
  SumPlan plan;
  int innermost = -1;
  for (int i = 0; i < x.rank(); ++i) {
    const int d = memory_dim(x.layout(), i);
    if (reduced[static_cast<size_t>(d)]) plan.reduced.add(x.size(d), at.of[d]);
    if (!reduced[static_cast<size_t>(i)]) plan.kept.add(x.size(i), at.of[i]);
    if (x.size(d) > 1) innermost = d;
  }
  plan.by_rows = innermost < 0 || reduced[static_cast<size_t>(innermost)];
  return plan;
}

Tensor sum_scaled(const char* op, const Tensor& x, const std::vector<int>& dims, bool keepdim,
                  bool average) {
  check_defined(op, x);
  std::vector<bool> reduced(static_cast<size_t>(x.rank()), dims.empty());
  for (int d : dims) reduced[static_cast<size_t>(check_dim(op, x, d))] = true;
  Shape kept;
  int64_t count = 1;
  for (int i = 0; i < x.rank(); ++i) {
    if (reduced[static_cast<size_t>(i)]) count *= x.size(i);
    if (!reduced[static_cast<size_t>(i)] || keepdim)
      kept.push_back(reduced[static_cast<size_t>(i)] ? 1 : x.size(i));
  }
  ProfileScope scope(op, static_cast<double>(x.numel()), bytes_of(x));
  const DType dtype = is_floating(x.dtype()) ? x.dtype() : DType::i64;
  const double scale = average ? 1.0 / static_cast<double>(count) : 1.0;
  if (x.device().is_cuda()) {
    const Tensor y = Tensor::empty(kept, dtype, x.device());
    sum_cuda(x, y, sum_plan(x, reduced), SumKind::sum, scale);
    return y;
  }
  Tensor y = sum_marked(x, reduced);
  if (scale != 1.0) mul_(y, scale);
  return y.reshape(kept).to(dtype);
}

}  // namespace

Tensor sum(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  return sum_scaled("sum", x, dims, keepdim, false);
}

Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keepdim) {
  check_floating("mean", "input", x);
  return sum_scaled("mean", x, dims, keepdim, true);
}

namespace {
void max_into(const char* op, const Tensor& x, int dim, Tensor* value, Tensor* index) {
  check_defined(op, x);
  const int d = check_dim(op, x, dim);
  if (x.size(d) == 0)
    OpError(op, "input", x).shape("dimension ", dim, " is empty, it has no maximum");
  Shape shape = x.shape();
  shape.set(d, 1);
  const Axis a = axis_of(x.shape(), d, d + 1);
  const Tensor in = x.plain();
  if (value) *value = Tensor::empty(shape, x.dtype(), x.device());
  if (index) *index = Tensor::empty(shape, DType::i64, x.device());
  ProfileScope scope(op, static_cast<double>(x.numel()), bytes_of(x));
  MTCKI_ON_DEVICE(in, max_axis, in, value ? *value : Tensor(), index ? *index : Tensor(), a.outer,
                  a.count, a.inner);
}

Shape without(const Shape& shape, int dim) {
  Shape out;
  for (int i = 0; i < shape.rank(); ++i)
    if (i != (dim < 0 ? dim + shape.rank() : dim)) out.push_back(shape[i]);
  return out;
}
}  // namespace

Tensor max(const Tensor& x, int dim, bool keepdim) {
  Tensor value;
  max_into("max", x, dim, &value, nullptr);
  return keepdim ? value : value.reshape(without(x.shape(), dim));
}

Tensor argmax(const Tensor& x, int dim) {
  Tensor index;
  max_into("argmax", x, dim, nullptr, &index);
  return index.reshape(without(x.shape(), dim));
}

Tensor norm(const Tensor& x) {
  check_floating("norm", "input", x);
  ProfileScope scope("norm", 2.0 * static_cast<double>(x.numel()), bytes_of(x));
  if (x.device().is_cuda()) {
    const Tensor y = Tensor::empty({}, x.dtype(), x.device());
    const std::vector<bool> all(static_cast<size_t>(x.rank()), true);
    sum_cuda(x, y, sum_plan(x, all), SumKind::norm, 1.0);
    return y;
  }
  return Tensor::scalar(std::sqrt(sum_of_squares_cpu(widen(x))), x.dtype());
}

Tensor broadcast_to(const Tensor& x, const Shape& shape, Layout layout) {
  check_defined("broadcast_to", x);
  if (x.shape() == shape) return x.to(layout);
  const int lead = shape.rank() - x.rank();
  for (int i = 0; i < x.rank(); ++i)
    if (lead < 0 || (x.size(i) != 1 && x.size(i) != shape[lead + i]))
      OpError("broadcast_to", "input", x).shape("the input does not broadcast to ", shape);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device(), layout);
  ProfileScope scope("broadcast_to", 0, bytes_of(x, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(y, broadcast, y.device().is_cuda() ? x : x.plain(), y);
  return y;
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  check_defined("sum_to", x);
  if (x.shape() == shape) return x;
  const int lead = x.rank() - shape.rank();
  std::vector<int> dims;
  for (int i = 0; i < x.rank(); ++i) {
    if (lead >= 0 && i >= lead && x.size(i) == shape[i - lead]) continue;
    if (lead < 0 || (i >= lead && shape[i - lead] != 1))
      OpError("sum_to", "input", x).shape("the input is no broadcast of ", shape);
    dims.push_back(i);
  }
  return dims.empty() ? x.reshape(shape) : sum(x, dims, true).reshape(shape);
}

Tensor topk_correct(const Tensor& logits, const Tensor& labels, int k) {
  const char* op = "topk_correct";
  check_floating(op, "logits", logits);
  check_rank(op, "logits", logits, 2);
  if (k < 1) OpError(op, "logits", logits).argument("k needs to be at least 1, got ", k);
  check_labels(op, logits, labels);
  ProfileScope scope(op, static_cast<double>(logits.numel()), bytes_of(logits, labels));
  if (logits.device().is_cpu())
    return Tensor::from(std::vector<int64_t>{topk_correct_cpu(logits.to(DType::f64), labels, k)},
                        {});
  const Tensor correct = Tensor::zeros({}, DType::i64, logits.device());
  topk_correct_cuda(logits, labels, k, correct);
  return correct;
}

int64_t count_topk_correct(const Tensor& logits, const Tensor& labels, int k) {
  return static_cast<int64_t>(topk_correct(logits, labels, k).item());
}

}  // namespace mtcki
