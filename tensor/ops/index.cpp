#include "tensor/ops/index.h"

#include <algorithm>
#include <numeric>

#include "tensor/kernels/walk.h"
#include "tensor/ops/gradient_sum.h"
#include "tensor/ops/index_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

// Bytes of everything after dimension `dim` in memory, and the number of steps before it.
int64_t bytes_after(const Tensor& x, int dim) {
  int64_t n = static_cast<int64_t>(size_of(x.dtype()));
  for (int i = x.rank() - 1; memory_dim(x.layout(), i) != dim; --i)
    n *= x.size(memory_dim(x.layout(), i));
  return n;
}
int64_t count_before(const Tensor& x, int dim) {
  int64_t n = 1;
  for (int i = 0; memory_dim(x.layout(), i) != dim; ++i) n *= x.size(memory_dim(x.layout(), i));
  return n;
}
// Whether parts along `dim` can be cut out of a layout at multiples of `step`.
bool cuttable(Layout layout, int dim, int64_t step) {
  const bool whole_blocks = dim == 1 && step % kChannelBlock == 0;
  return dim == 0 || layout != Layout::blocked || whole_blocks;
}
// As it is where the parts that end at these places can be cut out of its layout.
Tensor cuttable(const Tensor& x, int dim, int64_t begin, int64_t end) {
  return cuttable(x.layout(), dim, std::gcd(begin, end)) ? x : x.plain();
}
char* bytes(const Tensor& x) { return static_cast<char*>(x.raw()); }

// Rows of a tensor of this shape, where the host can read them; x is the other operand.
void check_index(const char* op, const Tensor& index, const Tensor& x, const Shape& shape) {
  if (!index.defined() || index.dtype() != DType::i64 || index.rank() != 1)
    OpError(op, "input", x, "index", index).dtype("index needs dtype i64, rank 1");
  if (shape.rank() == 0) OpError(op, "input", x).shape("a scalar has no rows");
  check_same_device(op, "input", x, "index", index);
  const int64_t* p = index.data<int64_t>();
  for (int64_t i = 0; i < checkable(index); ++i)
    if (p[i] < 0 || p[i] >= shape[0])
      OpError(op, "input", x, "index", index)
          .argument("index ", p[i], " at position ", i, " is outside 0..", shape[0] - 1);
}

}  // namespace

Tensor cat(const std::vector<Tensor>& parts, int dim) {
  if (parts.empty()) throw ShapeError("cat: needs at least one tensor");
  const Tensor& first = parts[0];
  check_defined("cat", first);
  const int d = check_dim("cat", first, dim);
  const bool keeps = std::ranges::all_of(parts, [&](const Tensor& part) {
    return part.layout() == first.layout() && cuttable(part.layout(), d, part.size(d));
  });
  const Layout layout = d == 0 || keeps ? first.layout() : Layout::plain;
  Shape shape = first.shape();
  int64_t total = 0;
  for (const Tensor& part : parts) {
    check_same_dtype_device("cat", "first", first, "part", part);
    bool fits = part.rank() == first.rank();
    for (int i = 0; fits && i < shape.rank(); ++i) fits = i == d || part.size(i) == first.size(i);
    if (!fits)
      OpError("cat", "first", first, "part", part)
          .shape("parts need equal sizes except in dimension ", d);
    total += part.size(d);
  }
  shape.set(d, total);
  Tensor y = Tensor::empty(shape, first.dtype(), first.device(), layout);
  ProfileScope scope("cat", 0, 2 * bytes_of(y));
  const int64_t pitch = bytes_after(y, d) * total, rows = count_before(y, d);
  int64_t at = 0;
  for (const Tensor& part : parts) {
    const Tensor in = part.to(layout);
    const int64_t row = bytes_after(in, d) * in.size(d);
    MTCKI_ON_DEVICE(y, copy_rows, bytes(in), row, bytes(y) + at, pitch, row, rows);
    at += row;
  }
  return y;
}

Tensor narrow(const Tensor& x, int dim, int64_t begin, int64_t end) {
  check_defined("narrow", x);
  const int d = check_dim("narrow", x, dim);
  if (begin < 0 || begin > end || end > x.size(d))
    OpError("narrow", "input", x).shape("[", begin, ", ", end, ") is outside dimension ", d);
  const Tensor in = cuttable(x, d, begin, end);
  Shape shape = x.shape();
  shape.set(d, end - begin);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device(), in.layout());
  ProfileScope scope("narrow", 0, 2 * bytes_of(y));
  const int64_t step = bytes_after(in, d);
  MTCKI_ON_DEVICE(y, copy_rows, bytes(in) + begin * step, step * x.size(d), bytes(y),
                  step * (end - begin), step * (end - begin), count_before(in, d));
  return y;
}

Tensor narrow_grad(const Tensor& gy, const Shape& x_shape, int dim, int64_t begin, Tensor sum) {
  check_defined("narrow_grad", gy);
  const int d = check_dim("narrow_grad", gy, dim);
  bool fits = gy.rank() == x_shape.rank();
  for (int i = 0; fits && i < gy.rank(); ++i)
    fits = i == d ? begin >= 0 && begin + gy.size(d) <= x_shape[d] : gy.size(i) == x_shape[i];
  if (!fits)
    OpError("narrow_grad", "gy", gy)
        .shape("gy is no part of ", x_shape, " from ", begin, " in dimension ", d);
  if (sum.defined() && sum.shape() != x_shape)
    OpError("narrow_grad", "sum", sum).shape("the sum needs the shape of the input, ", x_shape);
  const int64_t size = gy.size(d);
  const bool cpu = !gy.device().is_cuda();
  if (cpu && gy.dtype() == DType::f32 && sum.unique() && sum.dtype() == DType::f32 &&
      cuttable(sum.layout(), d, std::gcd(begin, size))) {
    const Tensor in = gy.to(sum.layout());
    ProfileScope scope("narrow_grad", static_cast<double>(gy.numel()), 3 * bytes_of(gy));
    const int64_t step = bytes_after(in, d) / 4;
    add_to_rows_cpu(in.data<float>(), step * size, sum.data<float>() + begin * step,
                    step * x_shape[d], count_before(in, d));
    return sum;
  }
  const Tensor in = cuttable(gy, d, begin, x_shape[d]);
  Tensor gx = cpu ? Tensor::empty(x_shape, gy.dtype(), {}, in.layout())
                  : Tensor::zeros(x_shape, gy.dtype(), gy.device(), in.layout());
  {
    ProfileScope scope("narrow_grad", 0, bytes_of(gy, gx));
    const int64_t step = bytes_after(in, d), pitch = step * x_shape[d], at = begin * step;
    if (cpu) {
      pad_rows_cpu(bytes(in), step * size, bytes(gx), pitch, at, count_before(in, d));
    } else {
      copy_rows_cuda(bytes(in), step * size, bytes(gx) + at, pitch, step * size,
                     count_before(in, d));
    }
  }
  GradientSum all(std::move(sum));
  all.add(std::move(gx));
  return all.take();
}

Tensor index_select(const Tensor& x, const Tensor& index) {
  check_defined("index_select", x);
  check_index("index_select", index, x, x.shape());
  Shape shape = x.shape();
  shape.set(0, index.numel());
  Tensor y = Tensor::empty(shape, x.dtype(), x.device(), x.layout());
  ProfileScope scope("index_select", 0, 2 * bytes_of(y));
  MTCKI_ON_DEVICE(y, gather_rows, bytes(x), bytes(y), index.data<int64_t>(), bytes_after(x, 0),
                  index.numel(), x.size(0));
  return y;
}

Tensor index_select_grad(const Tensor& gy, const Tensor& index, const Shape& x_shape) {
  const char* op = "index_select_grad";
  check_floating(op, "gy", gy);
  check_index(op, index, gy, x_shape);
  bool fits = gy.rank() == x_shape.rank() && gy.size(0) == index.numel();
  for (int i = 1; fits && i < gy.rank(); ++i) fits = gy.size(i) == x_shape[i];
  if (!fits) OpError(op, "gy", gy, "index", index).shape("gy is no selection of rows of ", x_shape);
  const bool last = gy.layout() == Layout::channels_last;  // rows are whole in it, too
  const Tensor in = widen(last ? gy : gy.plain());
  const Tensor gx = Tensor::empty(x_shape, in.dtype(), in.device(), in.layout());
  ProfileScope scope(op, static_cast<double>(gy.numel()), bytes_of(in, index, gx));
  MTCKI_ON_DEVICE(in, add_rows, in, index, gx);
  return gx.to(gy.dtype());
}

Tensor transpose(const Tensor& x) {
  check_rank("transpose", "input", x, 2);
  return permute(x, {1, 0});
}

Tensor permute(const Tensor& x, const std::vector<int>& order) {
  check_defined("permute", x);
  const int rank = x.rank();
  bool valid = static_cast<int>(order.size()) == rank;
  unsigned seen = 0;
  Shape shape;
  for (size_t i = 0; valid && i < order.size(); ++i) {
    valid = order[i] >= 0 && order[i] < rank && !(seen >> order[i] & 1u);
    if (!valid) break;
    seen |= 1u << order[i];
    shape.push_back(x.size(order[i]));
  }
  if (!valid)
    OpError("permute", "input", x)
        .argument("order needs every dimension 0..", rank - 1, " exactly once");
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  ProfileScope scope("permute", 0, 2 * bytes_of(y));
  if (y.numel() > 0)
    x.device().is_cuda() ? permute_cuda(x, y, order) : permute_cpu(x.plain(), y, order);
  return y;
}

Tensor channel_shuffle(const Tensor& x, int64_t groups) {
  const char* op = "channel_shuffle";
  check_floating(op, "input", x);
  if (x.rank() != 4 || groups < 1 || x.size(1) % groups != 0)
    OpError(op, "input", x)
        .shape("the input needs rank 4 and a number of channels that ", groups, " groups divide");
  const Shape& s = x.shape();
  if (x.device().is_cuda())
    return permute(x.reshape({s[0], groups, s[1] / groups, s[2], s[3]}), {0, 2, 1, 3, 4})
        .reshape(s);
  Tensor y = Tensor::empty(s, x.dtype(), {}, x.layout());
  ProfileScope scope(op, 0, 2 * bytes_of(y));
  if (y.numel() > 0) channel_shuffle_cpu(x, y, groups);
  return y;
}

Tensor one_hot(const Tensor& labels, int64_t classes, DType dtype) {
  if (!labels.defined() || labels.dtype() != DType::i64 || labels.rank() != 1)
    OpError("one_hot", "labels", labels).dtype("labels need dtype i64, rank 1");
  const int64_t* p = labels.data<int64_t>();
  for (int64_t i = 0; i < checkable(labels); ++i)
    if (p[i] < 0 || p[i] >= classes)
      OpError("one_hot", "labels", labels)
          .argument("label ", p[i], " at position ", i, " is outside 0..", classes - 1);
  Tensor y = Tensor::empty({labels.numel(), classes}, dtype, labels.device());
  ProfileScope scope("one_hot", 0, bytes_of(labels, y));
  MTCKI_ON_DEVICE(y, one_hot, labels, y);
  return y;
}

namespace {

// That of x, or plain where it cannot hold so many channels.
Layout layout_like(const Tensor& x, int64_t channels) {
  return x.layout() == Layout::blocked && channels % kChannelBlock != 0 ? Layout::plain
                                                                        : x.layout();
}

}  // namespace

Tensor subsample_pad_channels(const Tensor& x, int64_t stride, int64_t before, int64_t after) {
  const char* op = "subsample_pad_channels";
  check_floating(op, "input", x);
  check_rank(op, "input", x, 4);
  if (stride < 1 || before < 0 || after < 0)
    OpError(op, "input", x)
        .argument("needs stride >= 1 and paddings >= 0, got ", stride, ", ", before, ", ", after);
  const Shape shape{x.size(0), before + x.size(1) + after, (x.size(2) + stride - 1) / stride,
                    (x.size(3) + stride - 1) / stride};
  Tensor y = Tensor::empty(shape, x.dtype(), x.device(), layout_like(x, shape[1]));
  ProfileScope scope(op, 0, bytes_of(x, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(x, subsample_pad, x, y, stride, before);
  return y;
}

Tensor subsample_pad_channels_grad(const Tensor& gy, const Shape& x_shape, int64_t stride,
                                   int64_t before) {
  const char* op = "subsample_pad_channels_grad";
  check_floating(op, "gy", gy);
  check_rank(op, "gy", gy, 4);
  if (x_shape.rank() != 4 || stride < 1 || before < 0 || gy.size(0) != x_shape[0] ||
      gy.size(1) < before + x_shape[1] || gy.size(2) != (x_shape[2] + stride - 1) / stride ||
      gy.size(3) != (x_shape[3] + stride - 1) / stride)
    OpError(op, "gy", gy)
        .shape("gy does not belong to an input ", x_shape, ", stride ", stride, ", ", before,
               " channels before");
  Tensor gx = Tensor::empty(x_shape, gy.dtype(), gy.device(), layout_like(gy, x_shape[1]));
  ProfileScope scope(op, 0, bytes_of(gy, gx));
  if (gx.numel() > 0) MTCKI_ON_DEVICE(gy, subsample_pad_grad, gy, gx, stride, before);
  return gx;
}

}  // namespace mtcki
