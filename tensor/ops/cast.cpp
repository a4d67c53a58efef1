#include "tensor/ops/cast.h"

#include <cstring>

#include "tensor/cuda/runtime.h"
#include "tensor/ops/cast_kernels.h"
#include "tensor/ops/op_util.h"
#include "tensor/parallel.h"

namespace mtcki {

Tensor cast(const Tensor& x, DType dtype) {
  if (!x.defined()) OpError("cast", "input", x).argument("the input is undefined");
  if (x.dtype() == dtype) return x;
  Tensor y = Tensor::empty(x.shape(), dtype, x.device(), x.layout());
  ProfileScope scope("cast", 0, bytes_of(x, y));
  MTCKI_ON_DEVICE(x, cast, x, y);
  return y;
}

Tensor to_layout(const Tensor& x, Layout layout) {
  if (!x.defined()) OpError("to_layout", "input", x).argument("the input is undefined");
  if (x.layout() == layout) return x;
  if (x.rank() != 4)
    OpError("to_layout", "input", x).shape("layout ", name_of(layout), " needs rank 4");
  if (layout == Layout::blocked && x.size(1) % kChannelBlock != 0)
    OpError("to_layout", "input", x)
        .shape("layout blocked needs channels divisible by ", kChannelBlock, ", input has ",
               x.size(1));
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device(), layout);
  ProfileScope scope("to_layout", 0, bytes_of(x, y));
  if (x.numel() > 0) MTCKI_ON_DEVICE(x, to_layout, x, y);
  return y;
}

Tensor u8_to_unit(const Tensor& images) {
  if (!images.defined() || images.dtype() != DType::u8)
    OpError("u8_to_unit", "images", images).dtype("images need dtype u8");
  Tensor y = Tensor::empty(images.shape(), DType::f32, images.device(), images.layout());
  ProfileScope scope("u8_to_unit", static_cast<double>(y.numel()), bytes_of(images, y));
  MTCKI_ON_DEVICE(images, u8_to_unit, images, y);
  return y;
}

Tensor unit_to_u8(const Tensor& images, bool round) {
  if (!images.defined() || images.dtype() != DType::f32)
    OpError("unit_to_u8", "images", images).dtype("images need dtype f32");
  Tensor y = Tensor::empty(images.shape(), DType::u8, images.device(), images.layout());
  ProfileScope scope("unit_to_u8", 2.0 * static_cast<double>(y.numel()), bytes_of(images, y));
  MTCKI_ON_DEVICE(images, unit_to_u8, images, y, round);
  return y;
}

// The members of Tensor that need kernels.
Tensor Tensor::to(DType dtype) const { return dtype == dtype_ ? *this : cast(*this, dtype); }

Tensor Tensor::to(Layout layout) const {
  return layout == layout_ ? *this : to_layout(*this, layout);
}

void Tensor::fill_(double value) const {
  if (!defined()) throw ShapeError("fill_: the tensor is undefined");
  bump_version();
  const int64_t n = numel();
  if (device().is_cuda()) {
    if (nbytes()) value == 0.0 ? cuda::set_bytes(raw(), 0, nbytes()) : fill_cuda(*this, value);
    return;
  }
  if (value == 0.0) {
    char* p = static_cast<char*>(raw());
    parallel_for(static_cast<int64_t>(nbytes()), 1 << 20, [&](int64_t begin, int64_t end) {
      std::memset(p + begin, 0, static_cast<size_t>(end - begin));
    });
    return;
  }
  MTCKI_DISPATCH_ALL(dtype_, T, {
    T* p = data<T>();
    const T v = static_cast<T>(value);
    parallel_for(n, 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) p[i] = v;
    });
  });
}

}  // namespace mtcki
