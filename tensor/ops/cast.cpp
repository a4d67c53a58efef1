#include "tensor/ops/cast.h"

#include "tensor/ops/cast_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

Tensor cast(const Tensor& x, DType dtype) {
  if (!x.defined()) OpError("cast").operand("input", x).argument("the input is undefined");
  if (x.dtype() == dtype) return x;
  Tensor y = Tensor::empty(x.shape(), dtype, x.device(), x.layout());
  ProfileScope scope("cast", 0, bytes_of(x, y));
  MTCKI_ON_DEVICE(x, cast, x, y);
  return y;
}

Tensor to_layout(const Tensor& x, Layout layout) {
  if (!x.defined()) OpError("to_layout").operand("input", x).argument("the input is undefined");
  if (x.layout() == layout) return x;
  if (x.rank() != 4)
    OpError("to_layout").operand("input", x).shape("layout ", name_of(layout), " needs rank 4");
  if (layout == Layout::blocked && x.size(1) % kChannelBlock != 0)
    OpError("to_layout")
        .operand("input", x)
        .shape("layout blocked needs channels divisible by ", kChannelBlock, ", input has ",
               x.size(1));
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device(), layout);
  ProfileScope scope("to_layout", 0, bytes_of(x, y));
  if (x.numel() > 0) MTCKI_ON_DEVICE(x, to_layout, x, y);
  return y;
}

Tensor u8_to_unit(const Tensor& images) {
  if (!images.defined() || images.dtype() != DType::u8)
    OpError("u8_to_unit").operand("images", images).dtype("images need dtype u8");
  Tensor y = Tensor::empty(images.shape(), DType::f32, images.device(), images.layout());
  ProfileScope scope("u8_to_unit", static_cast<double>(y.numel()), bytes_of(images, y));
  MTCKI_ON_DEVICE(images, u8_to_unit, images, y);
  return y;
}

Tensor unit_to_u8(const Tensor& images, bool round) {
  if (!images.defined() || images.dtype() != DType::f32)
    OpError("unit_to_u8").operand("images", images).dtype("images need dtype f32");
  Tensor y = Tensor::empty(images.shape(), DType::u8, images.device(), images.layout());
  ProfileScope scope("unit_to_u8", 2.0 * static_cast<double>(y.numel()), bytes_of(images, y));
  MTCKI_ON_DEVICE(images, unit_to_u8, images, y, round);
  return y;
}

}  // namespace mtcki
