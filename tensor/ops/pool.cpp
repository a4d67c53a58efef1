#include "tensor/ops/pool.h"

#include <algorithm>

#include "tensor/ops/op_util.h"
#include "tensor/ops/pool_kernels.h"

namespace mtcki {

namespace {

void check_input(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  check_rank(op, name, x, 4);
  cpu_only(op, x);
}

int64_t output_size(const char* op, const Tensor& x, int axis, const Pool2dOptions& o) {
  const size_t a = static_cast<size_t>(axis);
  const int64_t size = x.size(2 + axis), k = o.kernel[a], s = o.stride[a], p = o.padding[a];
  if (k < 1 || s < 1 || p < 0)
    OpError(op)
        .operand("input", x)
        .argument("needs kernel >= 1, stride >= 1, padding >= 0, got ", k, ", ", s, ", ", p);
  if (2 * p > k)
    OpError(op).operand("input", x).argument("padding ", p, " exceeds half of kernel ", k);
  if (size + 2 * p < k)
    OpError(op)
        .operand("input", x)
        .shape("kernel ", k, " is larger than the padded input ", size + 2 * p);
  int64_t out = (size + 2 * p - k + (o.ceil_mode ? s - 1 : 0)) / s + 1;
  if (o.ceil_mode && (out - 1) * s >= size + p) --out;  // no window starts in the padding
  return out;
}

std::vector<PoolWindow> pool_windows(int64_t size, int64_t out, const Pool2dOptions& o, int axis) {
  const size_t a = static_cast<size_t>(axis);
  std::vector<PoolWindow> windows;
  for (int64_t i = 0; i < out; ++i) {
    const int64_t begin = i * o.stride[a] - o.padding[a];
    const int64_t end = std::min(begin + o.kernel[a], size + o.padding[a]);
    windows.push_back({std::max<int64_t>(0, begin), std::min(end, size), end - begin});
  }
  return windows;
}

std::vector<PoolWindow> adaptive_windows(int64_t size, int64_t out) {
  std::vector<PoolWindow> windows;
  for (int64_t i = 0; i < out; ++i) {
    const int64_t begin = i * size / out, end = ((i + 1) * size + out - 1) / out;
    windows.push_back({begin, end, end - begin});
  }
  return windows;
}

// gy belongs to an input of x_shape whose planes become oh x ow.
void check_gradient(const char* op, const Tensor& gy, const Shape& x_shape, int64_t oh,
                    int64_t ow) {
  if (x_shape.rank() != 4 || gy.shape() != Shape{x_shape[0], x_shape[1], oh, ow})
    OpError(op).operand("gy", gy).shape("gy does not belong to an input ", x_shape);
}

double flops(const Tensor& x) { return static_cast<double>(x.numel()); }

Tensor window_mean(const char* op, const Tensor& x, const std::vector<PoolWindow>& rows,
                   const std::vector<PoolWindow>& cols, bool count_padding) {
  const Tensor in = widen(x);
  Tensor y = Tensor::empty(
      {x.size(0), x.size(1), static_cast<int64_t>(rows.size()), static_cast<int64_t>(cols.size())},
      in.dtype(), x.device(), x.layout());
  ProfileScope scope(op, flops(x), bytes_of(in, y));
  if (y.numel() > 0) window_mean_cpu(in, y, rows, cols, count_padding);
  return y.to(x.dtype());
}

Tensor window_mean_grad(const char* op, const Tensor& gy, const Shape& x_shape,
                        const std::vector<PoolWindow>& rows, const std::vector<PoolWindow>& cols,
                        bool count_padding) {
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gx), bytes_of(in, gx));
  if (gx.numel() > 0) window_mean_grad_cpu(in, gx, rows, cols, count_padding);
  return gx.to(gy.dtype());
}

}  // namespace

MaxPool max_pool2d(const Tensor& x, const Pool2dOptions& o) {
  const char* op = "max_pool2d";
  check_input(op, "input", x);
  const Shape shape{x.size(0), x.size(1), output_size(op, x, 0, o), output_size(op, x, 1, o)};
  const Tensor in = widen(x);
  MaxPool out;
  out.y = Tensor::empty(shape, in.dtype(), x.device(), x.layout());
  out.index = Tensor::empty(shape, DType::i32, x.device(), x.layout());
  ProfileScope scope(op, flops(x), bytes_of(in, out.y, out.index));
  if (out.y.numel() > 0) max_pool_cpu(in, out.y, out.index, o);
  out.y = out.y.to(x.dtype());
  return out;
}

Tensor max_pool2d_grad(const Tensor& gy, const Tensor& index, const Shape& x_shape) {
  const char* op = "max_pool2d_grad";
  check_input(op, "gy", gy);
  check_same_shape(op, "gy", gy, "index", index);
  if (index.dtype() != DType::i32)
    OpError(op).operand("gy", gy).operand("index", index).dtype("index needs dtype i32");
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gy), bytes_of(in, index, gx));
  if (gx.numel() > 0) max_pool_grad_cpu(in, index.to(gy.layout()), gx);
  return gx.to(gy.dtype());
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& o) {
  const char* op = "avg_pool2d";
  check_input(op, "input", x);
  const int64_t oh = output_size(op, x, 0, o), ow = output_size(op, x, 1, o);
  return window_mean(op, x, pool_windows(x.size(2), oh, o, 0), pool_windows(x.size(3), ow, o, 1),
                     o.count_include_pad);
}

Tensor avg_pool2d_grad(const Tensor& gy, const Shape& x_shape, const Pool2dOptions& o) {
  const char* op = "avg_pool2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  const Tensor like = Tensor::empty({0, x_shape[1], x_shape[2], x_shape[3]}, gy.dtype());
  check_gradient(op, gy, x_shape, output_size(op, like, 0, o), output_size(op, like, 1, o));
  return window_mean_grad(op, gy, x_shape, pool_windows(x_shape[2], gy.size(2), o, 0),
                          pool_windows(x_shape[3], gy.size(3), o, 1), o.count_include_pad);
}

Tensor adaptive_avg_pool2d(const Tensor& x, int64_t oh, int64_t ow) {
  const char* op = "adaptive_avg_pool2d";
  check_input(op, "input", x);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op).operand("input", x).shape("needs non-empty planes, asked for ", oh, " x ", ow);
  return window_mean(op, x, adaptive_windows(x.size(2), oh), adaptive_windows(x.size(3), ow),
                     false);
}

Tensor adaptive_avg_pool2d_grad(const Tensor& gy, const Shape& x_shape) {
  const char* op = "adaptive_avg_pool2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  return window_mean_grad(op, gy, x_shape, adaptive_windows(x_shape[2], gy.size(2)),
                          adaptive_windows(x_shape[3], gy.size(3)), false);
}

Tensor global_avg_pool(const Tensor& x) {
  const char* op = "global_avg_pool";
  check_input(op, "input", x);
  if (x.size(2) * x.size(3) == 0) OpError(op).operand("input", x).shape("the planes are empty");
  const Tensor in = widen(x);
  Tensor y = Tensor::empty({x.size(0), x.size(1)}, in.dtype(), x.device());
  ProfileScope scope(op, flops(x), bytes_of(in, y));
  global_avg_pool_cpu(in, y);
  return y.to(x.dtype());
}

Tensor global_avg_pool_grad(const Tensor& gy, const Shape& x_shape, Layout x_layout) {
  const char* op = "global_avg_pool_grad";
  check_floating(op, "gy", gy);
  check_rank(op, "gy", gy, 2);
  cpu_only(op, gy);
  if (x_shape.rank() != 4 || gy.size(0) != x_shape[0] || gy.size(1) != x_shape[1])
    OpError(op).operand("gy", gy).shape("gy does not belong to an input ", x_shape);
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), x_layout);
  ProfileScope scope(op, flops(gx), bytes_of(in, gx));
  global_avg_pool_grad_cpu(in, gx);
  return gx.to(gy.dtype());
}

Tensor upsample_nearest2d(const Tensor& x, int64_t oh, int64_t ow) {
  const char* op = "upsample_nearest2d";
  check_input(op, "input", x);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op).operand("input", x).shape("needs non-empty planes, asked for ", oh, " x ", ow);
  const Tensor in = widen(x);
  Tensor y = Tensor::empty({x.size(0), x.size(1), oh, ow}, in.dtype(), x.device(), x.layout());
  ProfileScope scope(op, 0, bytes_of(in, y));
  if (y.numel() > 0) upsample_nearest_cpu(in, y);
  return y.to(x.dtype());
}

Tensor upsample_nearest2d_grad(const Tensor& gy, const Shape& x_shape) {
  const char* op = "upsample_nearest2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gy), bytes_of(in, gx));
  if (gx.numel() > 0) upsample_nearest_grad_cpu(in, gx);
  return gx.to(gy.dtype());
}

}  // namespace mtcki
