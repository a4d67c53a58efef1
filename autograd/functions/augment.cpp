#include "tensor/ops/augment.h"

#include "autograd/functions.h"
#include "autograd/recorder.h"

namespace mtcki {

Variable pad_crop_flip(const Variable& x, int64_t pad, const Tensor& offset, const Tensor& flip) {
  Recorder r("pad_crop_flip", {x});
  const Tensor y = pad_crop_flip(x.data(), pad, offset, flip);
  if (r.needs(0))
    r.grad(0, [pad, offset = r.save(offset), flip = r.save(flip)](const Tensor& gy) {
      return pad_crop_flip_grad(gy, pad, offset.get(), flip.get());
    });
  return r.finish(y);
}

Variable resized_crop_flip(const Variable& x, const Tensor& box, const Tensor& flip, int64_t oh,
                           int64_t ow) {
  Recorder r("resized_crop_flip", {x});
  const Tensor y = resized_crop_flip(x.data(), box, flip, oh, ow);
  if (r.needs(0))
    r.grad(0, [box = r.save(box), flip = r.save(flip), s = x.shape()](const Tensor& gy) {
      return resized_crop_flip_grad(gy, box.get(), flip.get(), s);
    });
  return r.finish(y);
}

Variable normalize_channels(const Variable& x, const Tensor& mean, const Tensor& std) {
  Recorder r("normalize_channels", {x});
  const Tensor y = normalize_channels(x.data(), mean, std);
  if (r.needs(0))
    r.grad(0, [std = r.save(std)](const Tensor& gy) {
      return normalize_channels_grad(gy, std.get());
    });
  return r.finish(y);
}

}  // namespace mtcki
