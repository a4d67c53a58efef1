// Exercise 6: a convolution is a matrix product (docs/course/06_convolution.md).
#include "course/course.h"

namespace mtcki::course {

namespace {

// Calls f(pixel, place) for every element of the columns whose patch lies on the image: `pixel`
// counts elements of the image [C,H,W], `place` those of the columns [C·k·k, P·Q].
template <class F>
void for_each_patch_element(const Shape& image, int64_t kernel, int64_t stride, int64_t padding,
                            const F& f) {
  const int64_t C = image[0], H = image[1], W = image[2];
  const int64_t P = (H + 2 * padding - kernel) / stride + 1;
  const int64_t Q = (W + 2 * padding - kernel) / stride + 1;
  for (int64_t c = 0; c < C; ++c)
    for (int64_t i = 0; i < kernel; ++i)
      for (int64_t j = 0; j < kernel; ++j)
        for (int64_t p = 0; p < P; ++p)
          for (int64_t q = 0; q < Q; ++q) {
            hole(
                "unfold: the pixel (y, x) under output (p, q) at (i, j) of the kernel, and its "
                "place");
          }
}

}  // namespace

Tensor unfold(const Tensor& image, int64_t kernel, int64_t stride, int64_t padding) {
  const int64_t P = (image.size(1) + 2 * padding - kernel) / stride + 1;
  const int64_t Q = (image.size(2) + 2 * padding - kernel) / stride + 1;
  const Tensor columns = Tensor::zeros({image.size(0) * kernel * kernel, P * Q});
  const float* from = image.data<float>();
  float* to = columns.data<float>();
  for_each_patch_element(image.shape(), kernel, stride, padding,
                         [&](int64_t pixel, int64_t place) { to[place] = from[pixel]; });
  return columns;
}

// Where unfold copies a pixel to a place, its adjoint adds what is at the place to the pixel.
Tensor fold(const Tensor& columns, const Shape& image, int64_t kernel, int64_t stride,
            int64_t padding) {
  const Tensor out = Tensor::zeros(image);
  const float* from = columns.data<float>();
  float* to = out.data<float>();
  hole("fold: the same walk in the other direction");
  return out;
}

}  // namespace mtcki::course
