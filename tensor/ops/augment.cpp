#include "tensor/ops/augment.h"

#include <cmath>

#include "tensor/ops/augment_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

Tensor images(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  check_rank(op, name, x, 4);
  cpu_only(op, x);
  return widen(x.plain());
}

void check_flip(const char* op, const Tensor& x, const Tensor& flip) {
  if (!flip.defined()) return;
  if (flip.dtype() != DType::boolean)
    OpError(op).operand("input", x).operand("flip", flip).dtype("flip needs dtype bool");
  if (flip.shape() != Shape{x.size(0)})
    OpError(op).operand("input", x).operand("flip", flip).shape("flip needs one entry per image");
}

void check_offset(const char* op, const Tensor& x, int64_t pad, const Tensor& offset) {
  if (pad < 0) OpError(op).operand("input", x).argument("pad needs to be >= 0, got ", pad);
  if (!offset.defined()) return;
  if (offset.dtype() != DType::i32)
    OpError(op).operand("input", x).operand("offset", offset).dtype("offset needs dtype i32");
  if (offset.shape() != Shape{x.size(0), 2})
    OpError(op)
        .operand("input", x)
        .operand("offset", offset)
        .shape("offset needs shape [", x.size(0), ", 2]");
  const int32_t* p = offset.data<int32_t>();
  for (int64_t i = 0; i < checkable(offset); ++i)
    if (p[i] < 0 || p[i] > 2 * pad)
      OpError(op)
          .operand("input", x)
          .operand("offset", offset)
          .argument("offset ", p[i], " of image ", i / 2, " is outside 0..", 2 * pad);
}

void check_box(const char* op, const Tensor& x, const Tensor& box) {
  if (!box.defined() || box.dtype() != DType::f32)
    OpError(op).operand("input", x).operand("box", box).dtype("box needs dtype f32");
  if (box.shape() != Shape{x.size(0), 4})
    OpError(op)
        .operand("input", x)
        .operand("box", box)
        .shape("box needs shape [", x.size(0), ", 4]: y0, x0, height, width");
  const float* p = box.data<float>();
  for (int64_t i = 0; i < checkable(box) / 4; ++i) {
    const float* b = p + 4 * i;
    if (!std::isfinite(b[0]) || !std::isfinite(b[1]) || !(b[2] > 0) || !(b[3] > 0) ||
        !std::isfinite(b[2]) || !std::isfinite(b[3]))
      OpError(op)
          .operand("input", x)
          .operand("box", box)
          .argument("box of image ", i, " is (", b[0], ", ", b[1], ", ", b[2], ", ", b[3],
                    "); it needs finite corners and a positive size");
  }
}

double count(const Tensor& x, double each) { return each * static_cast<double>(x.numel()); }

Tensor channel_values(const char* op, const char* name, const Tensor& x, const Tensor& t) {
  if (!t.defined() || t.shape() != Shape{x.size(1)})
    OpError(op)
        .operand("input", x)
        .operand(name, t)
        .shape(name, " needs shape [", x.size(1), "], one value per channel");
  return t;
}

}  // namespace

Tensor pad_crop_flip(const Tensor& x, int64_t pad, const Tensor& offset, const Tensor& flip) {
  const char* op = "pad_crop_flip";
  const Tensor in = images(op, "input", x);
  check_offset(op, x, pad, offset);
  check_flip(op, x, flip);
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(op, 0, bytes_of(in, y));
  pad_crop_flip_cpu(in, y, pad, offset, flip);
  return y.to(x.dtype());
}

Tensor pad_crop_flip_grad(const Tensor& gy, int64_t pad, const Tensor& offset, const Tensor& flip) {
  const char* op = "pad_crop_flip_grad";
  const Tensor in = images(op, "gy", gy);
  check_offset(op, gy, pad, offset);
  check_flip(op, gy, flip);
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, 0, bytes_of(in, gx));
  pad_crop_flip_grad_cpu(in, gx, pad, offset, flip);
  return gx.to(gy.dtype());
}

Tensor resized_crop_flip(const Tensor& x, const Tensor& box, const Tensor& flip, int64_t oh,
                         int64_t ow) {
  const char* op = "resized_crop_flip";
  const Tensor in = images(op, "input", x);
  check_box(op, x, box);
  check_flip(op, x, flip);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op).operand("input", x).shape("needs non-empty images, asked for ", oh, " x ", ow);
  Tensor y = Tensor::empty({x.size(0), x.size(1), oh, ow}, in.dtype(), x.device());
  ProfileScope scope(op, count(y, 8), bytes_of(in, y));
  resized_crop_flip_cpu(in, y, box, flip);
  return y.to(x.dtype());
}

Tensor resized_crop_flip_grad(const Tensor& gy, const Tensor& box, const Tensor& flip,
                              const Shape& x_shape) {
  const char* op = "resized_crop_flip_grad";
  const Tensor in = images(op, "gy", gy);
  check_box(op, gy, box);
  check_flip(op, gy, flip);
  if (x_shape.rank() != 4 || x_shape[0] != gy.size(0) || x_shape[1] != gy.size(1) ||
      x_shape[2] < 1 || x_shape[3] < 1)
    OpError(op).operand("gy", gy).shape("gy does not belong to an input ", x_shape);
  Tensor gx = Tensor::zeros(x_shape, in.dtype(), gy.device());
  ProfileScope scope(op, count(gy, 8), bytes_of(in, gx));
  resized_crop_flip_grad_cpu(in, gx, box, flip);
  return gx.to(gy.dtype());
}

Tensor normalize_channels(const Tensor& x, const Tensor& mean, const Tensor& std) {
  const char* op = "normalize_channels";
  check_floating(op, "input", x);
  check_rank(op, "input", x, 4);
  cpu_only(op, x);
  const Tensor in = widen(x);
  const Tensor m = channel_values(op, "mean", x, mean).to(in.dtype());
  const Tensor s = channel_values(op, "std", x, std).to(in.dtype());
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(op, count(x, 2), bytes_of(in, y));
  normalize_channels_cpu(in, m, s, y);
  return y.to(x.dtype());
}

Tensor normalize_channels_grad(const Tensor& gy, const Tensor& std) {
  const char* op = "normalize_channels_grad";
  check_floating(op, "gy", gy);
  check_rank(op, "gy", gy, 4);
  cpu_only(op, gy);
  const Tensor in = widen(gy);
  const Tensor s = channel_values(op, "std", gy, std).to(in.dtype());
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, count(gy, 1), bytes_of(in, gx));
  normalize_channels_cpu(in, Tensor(), s, gx);
  return gx.to(gy.dtype());
}

}  // namespace mtcki
