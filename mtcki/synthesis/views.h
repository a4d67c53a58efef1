// Random views of a batch of images (docs/method.md), one set of parameters per sample.
//   global  zero-pad, crop, mirror             local  resized crop of area [min_crop, 1], mirror
// or of the whole batch alike (DeepInversion):
//   global  cyclic shift, mirror
#pragma once

#include "autograd/variable.h"
#include "tensor/rng.h"

namespace mtcki {

struct ViewParameters {
  Tensor offset;      // i32 [B,2] in [0, 2 pad]
  Tensor flip;        // bool [B], undefined: no mirror
  Tensor box;         // f32 [B,4] (y0, x0, height, width) in pixels
  Tensor local_flip;  // bool [B]
  // Of a cyclic shift of the whole batch, instead of offset and flip: where each row of pixels comes
  // from, i64 [B·C·H], and the permutation of the columns, f32 [W,W].
  Tensor roll_rows = {}, roll_columns = {};

  ViewParameters to(Device device) const {
    const auto there = [&](const Tensor& t) { return t.defined() ? t.to(device) : Tensor(); };
    return {there(offset),     there(flip),      there(box),
            there(local_flip), there(roll_rows), there(roll_columns)};
  }
};

// The box has an area uniform in [min_crop, 1] of the image, a ratio log-uniform in [3/4, 4/3],
// sides cut to the image, and a uniform position. rng.step numbers the draw.
ViewParameters draw_views(int64_t batch, int64_t height, int64_t width, int64_t pad, bool flip,
                          double min_crop, const Rng& rng);

// The shift is uniform in [-reach, reach] along both sides, the mirror a fair coin; one of each for
// all images.
void draw_roll(const Shape& images, int64_t reach, bool flip, const Rng& rng, ViewParameters* p);

Variable global_view(const Variable& images, const ViewParameters& p, int64_t pad);
Variable local_view(const Variable& images, const ViewParameters& p);

}  // namespace mtcki
