// Images of any size to N x N.
#pragma once

#include <cstdint>

#include "tensor/tensor.h"

namespace mtcki::data {

// image u8 [C,H,W] -> u8 [C,height,width]. Bilinear with antialiasing, one axis after the other, as
// PIL's BILINEAR: with r = in/out and s = max(r, 1), output o is the mean of the inputs i weighted
// by
//   max(0, 1 - |i + 1/2 - (o + 1/2) r| / s),
// so that every input counts when an image shrinks. Rounded to the nearest after each axis.
Tensor resize(const Tensor& image, int64_t height, int64_t width);

enum class Fit {
  crop,  // the centre square, resized
  pad    // all of it, resized until the longer side is N, centred on black
};
// u8 [C,H,W] -> u8 [C,N,N]; an image of that size stays as it is. Where the rest of a crop or a
// border is odd, the right or lower part is one larger.
Tensor resize_to_square(const Tensor& image, int64_t n, Fit fit);

}  // namespace mtcki::data
