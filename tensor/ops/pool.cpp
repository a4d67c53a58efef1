#include "tensor/ops/pool.h"

#include "tensor/ops/op_util.h"
#include "tensor/ops/pool_kernels.h"

namespace mtcki {

namespace {

void check_input(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  check_rank(op, name, x, 4);
}

int64_t output_size(const char* op, const Tensor& x, int axis, const Pool2dOptions& o) {
  const size_t a = static_cast<size_t>(axis);
  const int64_t size = x.size(2 + axis), k = o.kernel[a], s = o.stride[a], p = o.padding[a];
  if (k < 1 || s < 1 || p < 0)
    OpError(op, "input", x)
        .argument("needs kernel >= 1, stride >= 1, padding >= 0, got ", k, ", ", s, ", ", p);
  if (2 * p > k) OpError(op, "input", x).argument("padding ", p, " exceeds half of kernel ", k);
  if (size < 1) OpError(op, "input", x).shape("the planes are empty");
  const int64_t steps = size + 2 * p - k + (o.ceil_mode ? s - 1 : 0);
  if (steps < 0)
    OpError(op, "input", x).shape("kernel ", k, " is larger than the padded input ", size + 2 * p);
  int64_t out = steps / s + 1;
  if (o.ceil_mode && (out - 1) * s >= size + p) --out;  // no window starts in the padding
  return out;
}

PoolAxis pool_axis(int64_t size, int64_t out, const Pool2dOptions& o, int axis) {
  const size_t a = static_cast<size_t>(axis);
  return {size, out, o.kernel[a], o.stride[a], o.padding[a], false};
}

PoolAxis adaptive_axis(int64_t size, int64_t out) {
  return {.size = size, .out = out, .adaptive = true};
}

// gy belongs to an input of x_shape whose planes become oh x ow.
void check_gradient(const char* op, const Tensor& gy, const Shape& x_shape, int64_t oh,
                    int64_t ow) {
  if (x_shape.rank() != 4 || gy.shape() != Shape{x_shape[0], x_shape[1], oh, ow})
    OpError(op, "gy", gy).shape("gy does not belong to an input ", x_shape);
}

void check_gradient(const char* op, const Tensor& gy, const Shape& x_shape,
                    const Pool2dOptions& o) {
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  const Tensor like = Tensor::empty({0, x_shape[1], x_shape[2], x_shape[3]}, gy.dtype());
  check_gradient(op, gy, x_shape, output_size(op, like, 0, o), output_size(op, like, 1, o));
}

double flops(const Tensor& x) { return static_cast<double>(x.numel()); }

Tensor window_mean(const char* op, const Tensor& x, const PoolAxis& rows, const PoolAxis& cols,
                   bool count_padding) {
  const Tensor in = widen(x);
  Tensor y =
      Tensor::empty({x.size(0), x.size(1), rows.out, cols.out}, in.dtype(), x.device(), x.layout());
  ProfileScope scope(op, flops(x), bytes_of(in, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(in, window_mean, in, y, rows, cols, count_padding);
  return y.to(x.dtype());
}

Tensor window_mean_grad(const char* op, const Tensor& gy, const Shape& x_shape,
                        const PoolAxis& rows, const PoolAxis& cols, bool count_padding) {
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gx), bytes_of(in, gx));
  if (gx.numel() > 0) MTCKI_ON_DEVICE(in, window_mean_grad, in, gx, rows, cols, count_padding);
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
  if (out.y.numel() > 0) {
    MTCKI_ON_DEVICE(x, max_pool, in, out.y, out.index, pool_axis(x.size(2), shape[2], o, 0),
                    pool_axis(x.size(3), shape[3], o, 1));
  }
  out.y = out.y.to(x.dtype());
  return out;
}

Tensor max_pool2d_grad(const Tensor& gy, const Tensor& index, const Shape& x_shape,
                       const Pool2dOptions& o) {
  const char* op = "max_pool2d_grad";
  check_input(op, "gy", gy);
  check_same_shape(op, "gy", gy, "index", index);
  if (index.dtype() != DType::i32)
    OpError(op, "gy", gy, "index", index).dtype("index needs dtype i32");
  if (index.device() != gy.device())
    OpError(op, "gy", gy, "index", index).device("operands on two devices");
  check_gradient(op, gy, x_shape, o);
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gy), bytes_of(in, index, gx));
  if (gx.numel() > 0) {
    MTCKI_ON_DEVICE(gy, max_pool_grad, in, index.to(gy.layout()), gx,
                    pool_axis(x_shape[2], gy.size(2), o, 0),
                    pool_axis(x_shape[3], gy.size(3), o, 1));
  }
  return gx.to(gy.dtype());
}

Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& o) {
  const char* op = "avg_pool2d";
  check_input(op, "input", x);
  const int64_t oh = output_size(op, x, 0, o), ow = output_size(op, x, 1, o);
  return window_mean(op, x, pool_axis(x.size(2), oh, o, 0), pool_axis(x.size(3), ow, o, 1),
                     o.count_include_pad);
}

Tensor avg_pool2d_grad(const Tensor& gy, const Shape& x_shape, const Pool2dOptions& o) {
  const char* op = "avg_pool2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, o);
  return window_mean_grad(op, gy, x_shape, pool_axis(x_shape[2], gy.size(2), o, 0),
                          pool_axis(x_shape[3], gy.size(3), o, 1), o.count_include_pad);
}

Tensor adaptive_avg_pool2d(const Tensor& x, int64_t oh, int64_t ow) {
  const char* op = "adaptive_avg_pool2d";
  check_input(op, "input", x);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op, "input", x).shape("needs non-empty planes, asked for ", oh, " x ", ow);
  return window_mean(op, x, adaptive_axis(x.size(2), oh), adaptive_axis(x.size(3), ow), false);
}

Tensor adaptive_avg_pool2d_grad(const Tensor& gy, const Shape& x_shape) {
  const char* op = "adaptive_avg_pool2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  return window_mean_grad(op, gy, x_shape, adaptive_axis(x_shape[2], gy.size(2)),
                          adaptive_axis(x_shape[3], gy.size(3)), false);
}

Tensor global_avg_pool(const Tensor& x) {
  const char* op = "global_avg_pool";
  check_input(op, "input", x);
  if (x.size(2) * x.size(3) == 0) OpError(op, "input", x).shape("the planes are empty");
  const Tensor in = widen(x);
  Tensor y = Tensor::empty({x.size(0), x.size(1)}, in.dtype(), x.device());
  ProfileScope scope(op, flops(x), bytes_of(in, y));
  MTCKI_ON_DEVICE(in, global_avg_pool, in, y);
  return y.to(x.dtype());
}

Tensor global_avg_pool_grad(const Tensor& gy, const Shape& x_shape, Layout x_layout) {
  const char* op = "global_avg_pool_grad";
  check_floating(op, "gy", gy);
  check_rank(op, "gy", gy, 2);
  if (x_shape.rank() != 4 || gy.size(0) != x_shape[0] || gy.size(1) != x_shape[1])
    OpError(op, "gy", gy).shape("gy does not belong to an input ", x_shape);
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), x_layout);
  ProfileScope scope(op, flops(gx), bytes_of(in, gx));
  MTCKI_ON_DEVICE(in, global_avg_pool_grad, in, gx);
  return gx.to(gy.dtype());
}

Tensor upsample_nearest2d(const Tensor& x, int64_t oh, int64_t ow) {
  const char* op = "upsample_nearest2d";
  check_input(op, "input", x);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op, "input", x).shape("needs non-empty planes, asked for ", oh, " x ", ow);
  const Tensor in = widen(x);
  Tensor y = Tensor::empty({x.size(0), x.size(1), oh, ow}, in.dtype(), x.device(), x.layout());
  ProfileScope scope(op, 0, bytes_of(in, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(in, upsample_nearest, in, y);
  return y.to(x.dtype());
}

Tensor upsample_nearest2d_grad(const Tensor& gy, const Shape& x_shape) {
  const char* op = "upsample_nearest2d_grad";
  check_input(op, "gy", gy);
  check_gradient(op, gy, x_shape, gy.size(2), gy.size(3));
  const Tensor in = widen(gy);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), gy.layout());
  ProfileScope scope(op, flops(gy), bytes_of(in, gx));
  if (gx.numel() > 0) MTCKI_ON_DEVICE(in, upsample_nearest_grad, in, gx);
  return gx.to(gy.dtype());
}

}  // namespace mtcki
