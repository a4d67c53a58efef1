// CUDA kernels over the pixels of plain and channels_last images: where pack i lies, and back.
#pragma once

#include "tensor/kernels/channel_walk.cuh"

namespace mtcki {

// [N,C,H,W] images in the plain or channels_last layout.
struct ImageView {
  int64_t images, channels, height, width;
  bool last;
  MTCKI_HD int64_t numel() const { return images * channels * height * width; }
  MTCKI_HD int64_t step() const { return last ? channels : 1; }  // between pixels
  MTCKI_HD int64_t base(int64_t n, int64_t c) const {            // of a plane
    return last ? n * height * width * channels + c : (n * channels + c) * height * width;
  }
};
inline ImageView image_view(const Tensor& x) {
  return {x.size(0), x.size(1), x.size(2), x.size(3), x.layout() == Layout::channels_last};
}

// Quotient and remainder; 64-bit divisions are slow and rarely needed.
struct Division {
  int64_t quotient, rest;
};
MTCKI_HD inline Division divide(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) {
    const uint32_t q = static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
    return {q, a - q * b};
  }
  return {a / b, a % b};
}

// Pack i of an image tensor, in memory order: V channels of one pixel.
struct Place {
  int64_t n, c, h, w;
};
template <int V>
MTCKI_HD inline Place place_of(const ImageView& v, int64_t i) {
  if (v.last) {
    const Division c = divide(i, v.channels / V), w = divide(c.quotient, v.width),
                   h = divide(w.quotient, v.height);
    return {h.quotient, c.rest * V, h.rest, w.rest};
  }
  const Division w = divide(i, v.width), h = divide(w.quotient, v.height),
                 c = divide(h.quotient, v.channels);
  return {c.quotient, c.rest, h.rest, w.rest};
}

// Channels that a thread takes. Plain images have none side by side; a plane of one pixel looks as
// if, but its other operand may have more.
template <class T>
inline int image_pack(const Tensor& x, const Tensor& other) {
  return x.layout() == Layout::channels_last ? channel_pack<T>(x, {other}) : 1;
}

// launch of kernel<T, V> over the packs of `like`; all tensors have its layout.
#define MTCKI_FOR_PACKS(kernel_, like_, other_, ...)                                           \
  with_pack<T>(image_pack<T>(like_, other_), [&](auto mtcki_v_) {                              \
    constexpr int V = mtcki_v_();                                                              \
    const int64_t packs = (like_).numel() / V;                                                 \
    cuda::launch(kernel_<T, V>, cuda::grid_for(packs), cuda::kThreads, 0, packs, __VA_ARGS__); \
  })

}  // namespace mtcki
