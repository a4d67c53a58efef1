#include <algorithm>
#include <vector>

#include "tensor/kernels/channel_walk.h"
#include "tensor/ops/augment_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

bool flipped(const Tensor& flip, int64_t n) { return flip.defined() && flip.data<bool>()[n]; }

struct Crop {
  int64_t dy, dx;  // how far the crop is moved from the centre
  bool flip;
};
Crop crop_of(const Tensor& offset, const Tensor& flip, int64_t pad, int64_t n) {
  if (!offset.defined()) return {0, 0, flipped(flip, n)};
  const int32_t* p = offset.data<int32_t>() + 2 * n;
  return {p[0] - pad, p[1] - pad, flipped(flip, n)};
}

// f(plane, image) for every (image, channel).
template <class F>
void for_planes(const Tensor& x, const F& f) {
  const int64_t channels = x.size(1), size = x.size(2) * x.size(3);
  const int64_t grain = std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(1, size));
  parallel_for(x.size(0) * channels, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) f(t, t / channels);
  });
}

// y[i, j] = x[i + dy, mirror(j) + dx], zero outside.
template <class T>
void pad_crop_flip(const Tensor& tx, const Tensor& ty, int64_t pad, const Tensor& offset,
                   const Tensor& flip) {
  const int64_t h = tx.size(2), w = tx.size(3);
  const T* x = tx.data<T>();
  T* y = ty.data<T>();
  for_planes(tx, [&](int64_t plane, int64_t n) {
    const Crop c = crop_of(offset, flip, pad, n);
    const int64_t j0 = std::clamp<int64_t>(-c.dx, 0, w), j1 = std::clamp<int64_t>(w - c.dx, j0, w);
    for (int64_t i = 0; i < h; ++i) {
      T* out = y + (plane * h + i) * w;
      const int64_t row = i + c.dy;
      if (row < 0 || row >= h) {
        std::fill(out, out + w, T(0));
        continue;
      }
      const T* in = x + (plane * h + row) * w + c.dx;
      std::fill(out, out + j0, T(0));
      std::copy(in + j0, in + j1, out + j0);
      std::fill(out + j1, out + w, T(0));
      if (c.flip) std::reverse(out, out + w);
    }
  });
}

// The adjoint gathers as well: every source pixel was read at most once.
template <class T>
void pad_crop_flip_grad(const Tensor& tgy, const Tensor& tgx, int64_t pad, const Tensor& offset,
                        const Tensor& flip) {
  const int64_t h = tgy.size(2), w = tgy.size(3);
  const T* gy = tgy.data<T>();
  T* gx = tgx.data<T>();
  for_planes(tgy, [&](int64_t plane, int64_t n) {
    const Crop c = crop_of(offset, flip, pad, n);
    for (int64_t i = 0; i < h; ++i) {
      T* out = gx + (plane * h + i) * w;
      const int64_t row = i - c.dy;
      for (int64_t j = 0; j < w; ++j) {
        const int64_t col = j - c.dx;
        const bool inside = row >= 0 && row < h && col >= 0 && col < w;
        out[j] = inside ? gy[(plane * h + row) * w + (c.flip ? w - 1 - col : col)] : T(0);
      }
    }
  });
}

// Output position -> two neighbours and the weight of the second.
struct Tap {
  int64_t low, high;
  double weight;
};
std::vector<Tap> taps(double start, double length, int64_t size, int64_t out, bool flip) {
  std::vector<Tap> result(static_cast<size_t>(out));
  for (int64_t i = 0; i < out; ++i) {
    const double centre = static_cast<double>(flip ? out - 1 - i : i) + 0.5;
    const double last = static_cast<double>(size - 1);
    const double s =
        std::clamp(start + centre * length / static_cast<double>(out) - 0.5, 0.0, last);
    const int64_t low = static_cast<int64_t>(s);
    result[static_cast<size_t>(i)] = {low, std::min(low + 1, size - 1),
                                      s - static_cast<double>(low)};
  }
  return result;
}

struct BoxTaps {
  std::vector<Tap> rows, cols;
};
std::vector<BoxTaps> box_taps(const Tensor& box, const Tensor& flip, int64_t h, int64_t w,
                              int64_t oh, int64_t ow) {
  std::vector<BoxTaps> result;
  const float* b = box.data<float>();
  for (int64_t n = 0; n < box.size(0); ++n, b += 4)
    result.push_back({taps(b[0], b[2], h, oh, false), taps(b[1], b[3], w, ow, flipped(flip, n))});
  return result;
}

template <class T>
void resized_crop_flip(const Tensor& tx, const Tensor& ty, const Tensor& box, const Tensor& flip) {
  const int64_t h = tx.size(2), w = tx.size(3), oh = ty.size(2), ow = ty.size(3);
  const auto boxes = box_taps(box, flip, h, w, oh, ow);
  const T* x = tx.data<T>();
  T* y = ty.data<T>();
  for_planes(ty, [&](int64_t plane, int64_t n) {
    const BoxTaps& b = boxes[static_cast<size_t>(n)];
    const T* in = x + plane * h * w;
    T* out = y + plane * oh * ow;
    for (const Tap& r : b.rows) {
      const T *low = in + r.low * w, *high = in + r.high * w;
      const T rw = static_cast<T>(r.weight);
      for (const Tap& c : b.cols) {
        const T cw = static_cast<T>(c.weight);
        const T upper = low[c.low] + cw * (low[c.high] - low[c.low]);
        const T lower = high[c.low] + cw * (high[c.high] - high[c.low]);
        *out++ = upper + rw * (lower - upper);
      }
    }
  });
}

template <class T>
void resized_crop_flip_grad(const Tensor& tgy, const Tensor& tgx, const Tensor& box,
                            const Tensor& flip) {
  const int64_t h = tgx.size(2), w = tgx.size(3), oh = tgy.size(2), ow = tgy.size(3);
  const auto boxes = box_taps(box, flip, h, w, oh, ow);
  const T* gy = tgy.data<T>();
  T* gx = tgx.data<T>();
  for_planes(tgy, [&](int64_t plane, int64_t n) {
    const BoxTaps& b = boxes[static_cast<size_t>(n)];
    const T* in = gy + plane * oh * ow;
    T* out = gx + plane * h * w;
    std::fill(out, out + h * w, T(0));
    for (const Tap& r : b.rows) {
      T *low = out + r.low * w, *high = out + r.high * w;
      const T rw = static_cast<T>(r.weight);
      for (const Tap& c : b.cols) {
        const T g = *in++, cw = static_cast<T>(c.weight);
        const T upper = g * (1 - rw), lower = g * rw;
        low[c.low] += upper * (1 - cw);
        low[c.high] += upper * cw;
        high[c.low] += lower * (1 - cw);
        high[c.high] += lower * cw;
      }
    }
  });
}

template <class T>
void normalize_channels(const Tensor& tx, const Tensor& mean, const Tensor& std, const Tensor& ty) {
  const std::vector<T> zero(static_cast<size_t>(tx.size(1)), T(0));
  const T* x = tx.data<T>();
  T* y = ty.data<T>();
  const ChannelParams<T, 2> p{{mean.defined() ? mean.data<T>() : zero.data(), std.data<T>()}};
  for_channels(channel_view(tx.shape(), tx.layout()), p, [=](auto z, int64_t at, const auto& q) {
    store(y + at, (load_as<decltype(z)>(x + at) - q[0]) / q[1]);
  });
}

}  // namespace

void pad_crop_flip_cpu(const Tensor& x, const Tensor& y, int64_t pad, const Tensor& offset,
                       const Tensor& flip) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "pad_crop_flip", T,
                       { pad_crop_flip<T>(x, y, pad, offset, flip); });
}

void pad_crop_flip_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t pad, const Tensor& offset,
                            const Tensor& flip) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "pad_crop_flip_grad", T,
                       { pad_crop_flip_grad<T>(gy, gx, pad, offset, flip); });
}

void resized_crop_flip_cpu(const Tensor& x, const Tensor& y, const Tensor& box,
                           const Tensor& flip) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "resized_crop_flip", T,
                       { resized_crop_flip<T>(x, y, box, flip); });
}

void resized_crop_flip_grad_cpu(const Tensor& gy, const Tensor& gx, const Tensor& box,
                                const Tensor& flip) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "resized_crop_flip_grad", T,
                       { resized_crop_flip_grad<T>(gy, gx, box, flip); });
}

void normalize_channels_cpu(const Tensor& x, const Tensor& mean, const Tensor& std,
                            const Tensor& y) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "normalize_channels", T,
                       { normalize_channels<T>(x, mean, std, y); });
}

void gather_augment_cpu(const Tensor& images, const Tensor& index, int64_t pad,
                        const Tensor& offset, const Tensor& flip, const Tensor& mean,
                        const Tensor& std, const Tensor& y) {
  const int64_t channels = y.size(1), h = y.size(2), w = y.size(3);
  std::vector<float> table(static_cast<size_t>(channels) * 256);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t v = 0; v < 256; ++v) {
      const float unit = static_cast<float>(v) / 255.0f;
      table[static_cast<size_t>(c * 256 + v)] =
          mean.defined() ? (unit - mean.data<float>()[c]) / std.data<float>()[c] : unit;
    }
  const uint8_t* pixels = images.data<uint8_t>();
  float* out = y.data<float>();
  for_planes(y, [&](int64_t plane, int64_t n) {
    const Crop crop = crop_of(offset, flip, pad, n);
    const int64_t c = plane % channels;
    const float* value = table.data() + c * 256;
    const uint8_t* in = pixels + (index.data<int64_t>()[n] * channels + c) * h * w;
    for (int64_t i = 0; i < h; ++i)
      for (int64_t j = 0; j < w; ++j) {
        const int64_t row = i + crop.dy, col = (crop.flip ? w - 1 - j : j) + crop.dx;
        const bool inside = row >= 0 && row < h && col >= 0 && col < w;
        out[(plane * h + i) * w + j] = value[inside ? in[row * w + col] : 0];
      }
  });
}

}  // namespace mtcki
