#include "tensor/ops/augment_kernels.h"
#include "tensor/kernels/image_walk.cuh"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class T>
const T* ptr(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// Per-sample parameters; null: the centre, no flip.
struct Crops {
  const int32_t* offset;
  const bool* flip;
  int64_t pad;
  MTCKI_HD int64_t dy(int64_t n) const { return offset ? offset[2 * n] - pad : 0; }
  MTCKI_HD int64_t dx(int64_t n) const { return offset ? offset[2 * n + 1] - pad : 0; }
  MTCKI_HD int64_t mirror(int64_t n, int64_t j, int64_t w) const {
    return flip && flip[n] ? w - 1 - j : j;
  }
};
Crops crops(const Tensor& offset, const Tensor& flip, int64_t pad) {
  return {ptr<int32_t>(offset), ptr<bool>(flip), pad};
}
MTCKI_HD inline bool inside(int64_t i, int64_t size) { return i >= 0 && i < size; }

// Forward: y[i, j] = x[i + dy, mirror(j) + dx]. Adjoint: every source was read at most once, from
// y[i - dy, mirror(j - dx)].
template <class T, bool Adjoint>
__global__ void pad_crop_flip_kernel(const T* __restrict__ x, T* __restrict__ y, ImageView v,
                                     Crops crops) {
  MTCKI_GRID_LOOP(i, v.numel()) {
    const Place p = place_of<1>(v, i);
    const int64_t dy = crops.dy(p.n), dx = crops.dx(p.n);
    const int64_t row = Adjoint ? p.h - dy : p.h + dy;
    const int64_t col = Adjoint ? p.w - dx : crops.mirror(p.n, p.w, v.width) + dx;
    T value = T(0.0f);
    if (inside(row, v.height) && inside(col, v.width)) {
      const int64_t from = Adjoint ? crops.mirror(p.n, col, v.width) : col;
      value = x[v.base(p.n, p.c) + (row * v.width + from) * v.step()];
    }
    y[i] = value;
  }
}

// One axis of a box: output i lies at start + (i + 0.5)*length/out - 0.5, clamped to the image.
struct Tap {
  int64_t low, high;
  double weight;  // of high
};
struct BoxAxis {
  double start, length;
  int64_t size, out;
  MTCKI_HD Tap tap(int64_t i) const {
    const double last = static_cast<double>(size - 1);
    const double s =
        start + (static_cast<double>(i) + 0.5) * length / static_cast<double>(out) - 0.5;
    const double at = s > 0.0 ? (s < last ? s : last) : 0.0;
    const int64_t low = static_cast<int64_t>(at);
    return {low, low + 1 < size ? low + 1 : size - 1, at - static_cast<double>(low)};
  }
  MTCKI_HD double weight_of(int64_t i, int64_t source) const {
    const Tap t = tap(i);
    return (t.low == source ? 1.0 - t.weight : 0.0) + (t.high == source ? t.weight : 0.0);
  }
  // A range that holds every output within a pixel of `source`; with one to spare for rounding.
  MTCKI_HD int64_t first_near(int64_t source) const {
    return source == 0 ? 0 : clamped(position(source - 1) - 1.0);
  }
  MTCKI_HD int64_t end_near(int64_t source) const {
    return source == size - 1 ? out : clamped(position(source + 1) + 3.0);
  }

 private:
  MTCKI_HD double position(int64_t source) const {
    return (static_cast<double>(source) + 0.5 - start) * static_cast<double>(out) / length - 0.5;
  }
  MTCKI_HD int64_t clamped(double i) const {  // NaN: 0
    return i > 0.0 ? (i < static_cast<double>(out) ? static_cast<int64_t>(i) : out) : 0;
  }
};
MTCKI_HD inline BoxAxis rows_of_box(const float* box, int64_t n, int64_t size, int64_t out) {
  return {static_cast<double>(box[4 * n]), static_cast<double>(box[4 * n + 2]), size, out};
}
MTCKI_HD inline BoxAxis cols_of_box(const float* box, int64_t n, int64_t size, int64_t out) {
  return {static_cast<double>(box[4 * n + 1]), static_cast<double>(box[4 * n + 3]), size, out};
}

template <class T>
__global__ void resized_crop_flip_kernel(const T* __restrict__ x, T* __restrict__ y,
                                         const float* __restrict__ box, ImageView in, ImageView out,
                                         Crops crops) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, out.numel()) {
    const Place p = place_of<1>(out, i);
    const Tap r = rows_of_box(box, p.n, in.height, out.height).tap(p.h);
    const Tap c = cols_of_box(box, p.n, in.width, out.width).tap(crops.mirror(p.n, p.w, out.width));
    const int64_t base = in.base(p.n, p.c), step = in.step();
    const auto pixel = [&](int64_t h, int64_t w) { return C(x[base + (h * in.width + w) * step]); };
    const C rw = static_cast<C>(r.weight), cw = static_cast<C>(c.weight);
    const C a = pixel(r.low, c.low), b = pixel(r.high, c.low);
    const C upper = a + cw * (pixel(r.low, c.high) - a);
    const C lower = b + cw * (pixel(r.high, c.high) - b);
    y[i] = T(upper + rw * (lower - upper));
  }
}

template <class T>
__global__ void resized_crop_flip_grad_kernel(const T* __restrict__ gy, T* __restrict__ gx,
                                              const float* __restrict__ box, ImageView in,
                                              ImageView out, Crops crops) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, in.numel()) {
    const Place p = place_of<1>(in, i);
    const BoxAxis rows = rows_of_box(box, p.n, in.height, out.height);
    const BoxAxis cols = cols_of_box(box, p.n, in.width, out.width);
    const int64_t base = out.base(p.n, p.c), step = out.step();
    const int64_t r1 = rows.end_near(p.h), c0 = cols.first_near(p.w), c1 = cols.end_near(p.w);
    C sum = C(0);
    for (int64_t r = rows.first_near(p.h); r < r1; ++r) {
      const C rw = static_cast<C>(rows.weight_of(r, p.h));
      if (rw == C(0)) continue;
      for (int64_t c = c0; c < c1; ++c) {
        const C cw = static_cast<C>(cols.weight_of(c, p.w));
        if (cw == C(0)) continue;
        const int64_t col = crops.mirror(p.n, c, out.width);
        sum += C(gy[base + (r * out.width + col) * step]) * rw * cw;
      }
    }
    gx[i] = T(sum);
  }
}

template <class T, int V>
__global__ void normalize_kernel(const T* __restrict__ x, const compute_t<T>* __restrict__ mean,
                                 const compute_t<T>* __restrict__ std, T* __restrict__ y,
                                 ChannelGrid g) {
  using C = compute_t<T>;
  const RowRange rows = rows_of_thread(g);
  for (int64_t tile = blockIdx.y; tile < g.tiles; tile += gridDim.y) {
    const int64_t c = first_channel(tile, V);
    if (c >= g.channels) continue;
    C m[V], s[V];
    for (int v = 0; v < V; ++v) {
      m[v] = mean ? mean[c + v] : C(0);
      s[v] = std[c + v];
    }
    for (int64_t row = rows.first; row < rows.end; row += rows.step) {
      const int64_t at = g.offset<V>(row, c);
      const auto in = load_values<V>(x, at);
      Values<T, V> out;
      for (int v = 0; v < V; ++v) out.v[v] = T((C(in.v[v]) - m[v]) / s[v]);
      store_values(y, at, out);
    }
  }
}

// An index outside the images gives byte 0 everywhere.
template <class T>
__global__ void gather_augment_kernel(const uint8_t* __restrict__ images, int64_t count,
                                      const int64_t* __restrict__ index,
                                      const float* __restrict__ mean, const float* __restrict__ std,
                                      T* __restrict__ y, ImageView v, Crops crops) {
  MTCKI_GRID_LOOP(i, v.numel()) {
    const Place p = place_of<1>(v, i);
    const int64_t image = index[p.n], row = p.h + crops.dy(p.n);
    const int64_t col = crops.mirror(p.n, p.w, v.width) + crops.dx(p.n);
    uint8_t byte = 0;
    if (inside(image, count) && inside(row, v.height) && inside(col, v.width))
      byte = images[((image * v.channels + p.c) * v.height + row) * v.width + col];
    float value = static_cast<float>(byte) / 255.0f;
    if (mean) value = (value - mean[p.c]) / std[p.c];
    y[i] = T(value);
  }
}

}  // namespace

void pad_crop_flip_cuda(const Tensor& x, const Tensor& y, int64_t pad, const Tensor& offset,
                        const Tensor& flip) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "pad_crop_flip", T, {
    launch(pad_crop_flip_kernel<T, false>, grid_for(x.numel()), kThreads, 0, x.data<T>(),
           y.data<T>(), image_view(x), crops(offset, flip, pad));
  });
}

void pad_crop_flip_grad_cuda(const Tensor& gy, const Tensor& gx, int64_t pad, const Tensor& offset,
                             const Tensor& flip) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "pad_crop_flip_grad", T, {
    launch(pad_crop_flip_kernel<T, true>, grid_for(gx.numel()), kThreads, 0, gy.data<T>(),
           gx.data<T>(), image_view(gx), crops(offset, flip, pad));
  });
}

void resized_crop_flip_cuda(const Tensor& x, const Tensor& y, const Tensor& box,
                            const Tensor& flip) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "resized_crop_flip", T, {
    launch(resized_crop_flip_kernel<T>, grid_for(y.numel()), kThreads, 0, x.data<T>(), y.data<T>(),
           box.data<float>(), image_view(x), image_view(y), crops(Tensor(), flip, 0));
  });
}

void resized_crop_flip_grad_cuda(const Tensor& gy, const Tensor& gx, const Tensor& box,
                                 const Tensor& flip) {
  MTCKI_DISPATCH_CUDA(gy.dtype(), "resized_crop_flip_grad", T, {
    launch(resized_crop_flip_grad_kernel<T>, grid_for(gx.numel()), kThreads, 0, gy.data<T>(),
           gx.data<T>(), box.data<float>(), image_view(gx), image_view(gy),
           crops(Tensor(), flip, 0));
  });
}

void normalize_channels_cuda(const Tensor& x, const Tensor& mean, const Tensor& std,
                             const Tensor& y) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "normalize_channels", T, {
    using C = compute_t<T>;
    const int pack = channel_pack<T>(x, {y});
    const ChannelGrid g = map_grid(x, pack);
    with_pack<T>(pack, [&](auto v) {
      launch(normalize_kernel<T, v()>, g.grid(), g.block(), 0, x.data<T>(), ptr<C>(mean),
             std.data<C>(), y.data<T>(), g);
    });
  });
}

void gather_augment_cuda(const Tensor& images, const Tensor& index, int64_t pad,
                         const Tensor& offset, const Tensor& flip, const Tensor& mean,
                         const Tensor& std, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(y.dtype(), "gather_augment", T, {
    launch(gather_augment_kernel<T>, grid_for(y.numel()), kThreads, 0, images.data<uint8_t>(),
           images.size(0), index.data<int64_t>(), ptr<float>(mean), ptr<float>(std), y.data<T>(),
           image_view(y), crops(offset, flip, pad));
  });
}

}  // namespace mtcki
