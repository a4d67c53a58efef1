#include "tensor/ops/augment.h"

#include <cmath>

#include "tensor/ops/augment_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

Tensor images(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  check_rank(op, name, x, 4);
  return x.device().is_cuda() ? x : widen(x.plain());
}

void check_device(const char* op, const Tensor& x, const char* name, const Tensor& t) {
  if (t.device() != x.device()) OpError(op, "input", x, name, t).device("operands on two devices");
}

void check_flip(const char* op, const Tensor& x, const Tensor& flip) {
  if (!flip.defined()) return;
  if (flip.dtype() != DType::boolean)
    OpError(op, "input", x, "flip", flip).dtype("flip needs dtype bool");
  if (flip.shape() != Shape{x.size(0)})
    OpError(op, "input", x, "flip", flip).shape("flip needs one entry per image");
  check_device(op, x, "flip", flip);
}

void check_offset(const char* op, const Tensor& x, int64_t pad, const Tensor& offset) {
  if (pad < 0) OpError(op, "input", x).argument("pad needs to be >= 0, got ", pad);
  if (!offset.defined()) return;
  if (offset.dtype() != DType::i32)
    OpError(op, "input", x, "offset", offset).dtype("offset needs dtype i32");
  if (offset.shape() != Shape{x.size(0), 2})
    OpError(op, "input", x, "offset", offset).shape("offset needs shape [", x.size(0), ", 2]");
  check_device(op, x, "offset", offset);
  const int32_t* p = offset.data<int32_t>();
  for (int64_t i = 0; i < checkable(offset); ++i)
    if (p[i] < 0 || p[i] > 2 * pad)
      OpError(op, "input", x, "offset", offset)
          .argument("offset ", p[i], " of image ", i / 2, " is outside 0..", 2 * pad);
}

void check_box(const char* op, const Tensor& x, const Tensor& box) {
  if (!box.defined() || box.dtype() != DType::f32)
    OpError(op, "input", x, "box", box).dtype("box needs dtype f32");
  if (box.shape() != Shape{x.size(0), 4})
    OpError(op, "input", x, "box", box)
        .shape("box needs shape [", x.size(0), ", 4]: y0, x0, height, width");
  check_device(op, x, "box", box);
  const float* p = box.data<float>();
  for (int64_t i = 0; i < checkable(box) / 4; ++i) {
    const float* b = p + 4 * i;
    if (!std::isfinite(b[0]) || !std::isfinite(b[1]) || !(b[2] > 0) || !(b[3] > 0) ||
        !std::isfinite(b[2]) || !std::isfinite(b[3]))
      OpError(op, "input", x, "box", box)
          .argument("box of image ", i, " is (", b[0], ", ", b[1], ", ", b[2], ", ", b[3],
                    "); it needs finite corners and a positive size");
  }
}

double count(const Tensor& x, double each) { return each * static_cast<double>(x.numel()); }

Tensor channel_values(const char* op, const char* name, const Tensor& x, const Tensor& t) {
  if (!t.defined() || t.shape() != Shape{x.size(1)})
    OpError(op, "input", x, name, t)
        .shape(name, " needs shape [", x.size(1), "], one value per channel");
  check_device(op, x, name, t);
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
  MTCKI_ON_DEVICE(in, pad_crop_flip, in, y, pad, offset, flip);
  return y.to(x.dtype());
}

Tensor pad_crop_flip_grad(const Tensor& gy, int64_t pad, const Tensor& offset, const Tensor& flip) {
  const char* op = "pad_crop_flip_grad";
  const Tensor in = images(op, "gy", gy);
  check_offset(op, gy, pad, offset);
  check_flip(op, gy, flip);
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, 0, bytes_of(in, gx));
  MTCKI_ON_DEVICE(in, pad_crop_flip_grad, in, gx, pad, offset, flip);
  return gx.to(gy.dtype());
}

Tensor resized_crop_flip(const Tensor& x, const Tensor& box, const Tensor& flip, int64_t oh,
                         int64_t ow) {
  const char* op = "resized_crop_flip";
  const Tensor in = images(op, "input", x);
  check_box(op, x, box);
  check_flip(op, x, flip);
  if (oh < 1 || ow < 1 || x.size(2) < 1 || x.size(3) < 1)
    OpError(op, "input", x).shape("needs non-empty images, asked for ", oh, " x ", ow);
  Tensor y = Tensor::empty({x.size(0), x.size(1), oh, ow}, in.dtype(), x.device(), in.layout());
  ProfileScope scope(op, count(y, 8), bytes_of(in, y));
  MTCKI_ON_DEVICE(in, resized_crop_flip, in, y, box, flip);
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
    OpError(op, "gy", gy).shape("gy does not belong to an input ", x_shape);
  Tensor gx = Tensor::empty(x_shape, in.dtype(), gy.device(), in.layout());
  ProfileScope scope(op, count(gy, 8), bytes_of(in, gx));
  MTCKI_ON_DEVICE(in, resized_crop_flip_grad, in, gx, box, flip);
  return gx.to(gy.dtype());
}

Tensor normalize_channels(const Tensor& x, const Tensor& mean, const Tensor& std) {
  const char* op = "normalize_channels";
  check_floating(op, "input", x);
  check_rank(op, "input", x, 4);
  const Tensor in = widen(x);
  const DType dtype = is_bf16(in) ? DType::f32 : in.dtype();
  const Tensor m = channel_values(op, "mean", x, mean).to(dtype);
  const Tensor s = channel_values(op, "std", x, std).to(dtype);
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(op, count(x, 2), bytes_of(in, y));
  MTCKI_ON_DEVICE(in, normalize_channels, in, m, s, y);
  return y.to(x.dtype());
}

Tensor normalize_channels_grad(const Tensor& gy, const Tensor& std) {
  const char* op = "normalize_channels_grad";
  check_floating(op, "gy", gy);
  check_rank(op, "gy", gy, 4);
  const Tensor in = widen(gy);
  const Tensor s = channel_values(op, "std", gy, std).to(is_bf16(in) ? DType::f32 : in.dtype());
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, count(gy, 1), bytes_of(in, gx));
  MTCKI_ON_DEVICE(in, normalize_channels, in, Tensor(), s, gx);
  return gx.to(gy.dtype());
}

Tensor gather_augment(const Tensor& images, const Tensor& index, int64_t pad, const Tensor& offset,
                      const Tensor& flip, const Tensor& mean, const Tensor& std, DType dtype,
                      Layout layout) {
  const char* op = "gather_augment";
  check_rank(op, "images", images, 4);
  if (images.dtype() != DType::u8 || !images.is_plain())
    OpError(op, "images", images).dtype("images need dtype u8 and the plain layout");
  check_rank(op, "index", index, 1);
  if (index.dtype() != DType::i64)
    OpError(op, "images", images, "index", index).dtype("index needs dtype i64");
  check_device(op, images, "index", index);
  if (!is_floating(dtype)) OpError(op, "images", images).dtype("the result needs a floating dtype");
  for (int64_t i = 0; i < checkable(index); ++i)
    if (index.data<int64_t>()[i] < 0 || index.data<int64_t>()[i] >= images.size(0))
      OpError(op, "images", images, "index", index)
          .argument("index ", index.data<int64_t>()[i], " is outside 0..", images.size(0) - 1);
  const Shape shape{index.size(0), images.size(1), images.size(2), images.size(3)};
  const bool on_gpu = images.device().is_cuda();
  Tensor y = Tensor::empty(shape, on_gpu ? dtype : DType::f32, images.device(),
                           on_gpu ? layout : Layout::plain);
  check_offset(op, y, pad, offset);
  check_flip(op, y, flip);
  if (mean.defined() != std.defined())
    OpError(op, "mean", mean, "std", std).argument("needs mean and std, or neither");
  const auto values = [&](const char* name, const Tensor& t) {
    return t.defined() ? channel_values(op, name, y, t).to(DType::f32) : t;
  };
  ProfileScope scope(op, count(y, 3), static_cast<double>(y.numel()) + bytes_of(y));
  MTCKI_ON_DEVICE(images, gather_augment, images, index, pad, offset, flip, values("mean", mean),
                  values("std", std), y);
  return y.to(layout).to(dtype);
}

}  // namespace mtcki
