#include "data/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "tensor/error.h"

namespace mtcki::data {

namespace {

struct Weights {
  int64_t first = 0;
  std::vector<double> weights;  // sum 1
};

std::vector<Weights> weights_of(int64_t in, int64_t out) {
  const double r = static_cast<double>(in) / static_cast<double>(out), s = std::max(r, 1.0);
  std::vector<Weights> all(static_cast<size_t>(out));
  for (int64_t o = 0; o < out; ++o) {
    const double centre = (static_cast<double>(o) + 0.5) * r;
    Weights& w = all[static_cast<size_t>(o)];
    w.first = std::max<int64_t>(0, static_cast<int64_t>(std::floor(centre - s)));
    const int64_t end = std::min(in, static_cast<int64_t>(std::ceil(centre + s)) + 1);
    double sum = 0;
    for (int64_t i = w.first; i < end; ++i) {
      const double distance = std::abs(static_cast<double>(i) + 0.5 - centre) / s;
      w.weights.push_back(std::max(0.0, 1.0 - distance));
      sum += w.weights.back();
    }
    for (double& v : w.weights) v /= sum;
  }
  return all;
}

// Along the middle axis of [outer, in, inner].
Tensor along_axis(const Tensor& x, int64_t outer, int64_t in, int64_t inner, int64_t out) {
  Tensor y = Tensor::empty({outer, out, inner}, DType::u8);
  const std::vector<Weights> all = weights_of(in, out);
  const uint8_t* px = x.data<uint8_t>();
  uint8_t* py = y.data<uint8_t>();
  for (int64_t a = 0; a < outer; ++a)
    for (int64_t o = 0; o < out; ++o) {
      const Weights& w = all[static_cast<size_t>(o)];
      for (int64_t b = 0; b < inner; ++b) {
        double sum = 0;
        const uint8_t* p = px + (a * in + w.first) * inner + b;
        for (size_t i = 0; i < w.weights.size(); ++i, p += inner) sum += w.weights[i] * *p;
        py[(a * out + o) * inner + b] =
            static_cast<uint8_t>(std::clamp(std::floor(sum + 0.5), 0.0, 255.0));
      }
    }
  return y;
}

// Rows [top, top+height), columns [left, left+width) of u8 [C,H,W].
Tensor window(const Tensor& x, int64_t top, int64_t left, int64_t height, int64_t width) {
  const int64_t c = x.size(0), h = x.size(1), w = x.size(2);
  Tensor y = Tensor::empty({c, height, width}, DType::u8);
  for (int64_t k = 0; k < c; ++k)
    for (int64_t i = 0; i < height; ++i)
      std::memcpy(y.data<uint8_t>() + (k * height + i) * width,
                  x.data<uint8_t>() + (k * h + top + i) * w + left, static_cast<size_t>(width));
  return y;
}

}  // namespace

Tensor resize(const Tensor& image, int64_t height, int64_t width) {
  if (image.rank() != 3 || image.dtype() != DType::u8 || image.numel() == 0 || height < 1 ||
      width < 1)
    throw ShapeError(str("resize: needs u8 [C,H,W] and a size, got ", image.describe(), " to ",
                         height, " x ", width));
  const int64_t c = image.size(0), h = image.size(1), w = image.size(2);
  Tensor x = image;
  if (width != w) x = along_axis(x, c * h, w, 1, width);
  if (height != h) x = along_axis(x, c, h, width, height);
  return x.reshape({c, height, width});
}

Tensor resize_to_square(const Tensor& image, int64_t n, Fit fit) {
  const int64_t h = image.size(1), w = image.size(2);
  if (h == n && w == n) return image;
  if (fit == Fit::crop) {
    // Cropped first: a long thin image would become a huge one.
    const int64_t side = std::min(h, w);
    return resize(window(image, (h - side) / 2, (w - side) / 2, side, side), n, n);
  }
  const double scale = static_cast<double>(n) / static_cast<double>(std::max(h, w));
  const auto scaled = [&](int64_t side) {
    return std::clamp<int64_t>(std::llround(static_cast<double>(side) * scale), 1, n);
  };
  const Tensor small = resize(image, scaled(h), scaled(w));
  const int64_t c = image.size(0), top = (n - small.size(1)) / 2, left = (n - small.size(2)) / 2;
  Tensor out = Tensor::zeros({c, n, n}, DType::u8);
  for (int64_t k = 0; k < c; ++k)
    for (int64_t i = 0; i < small.size(1); ++i)
      std::memcpy(out.data<uint8_t>() + (k * n + top + i) * n + left,
                  small.data<uint8_t>() + (k * small.size(1) + i) * small.size(2),
                  static_cast<size_t>(small.size(2)));
  return out;
}

}  // namespace mtcki::data
