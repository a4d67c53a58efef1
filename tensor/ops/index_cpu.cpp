#include <algorithm>
#include <cstring>
#include <vector>

#include "tensor/ops/index_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {
constexpr int64_t kGrainBytes = 1 << 16;
int64_t row_grain(int64_t row) {
  return std::max<int64_t>(1, kGrainBytes / std::max<int64_t>(1, row));
}

template <class T>
void permute_as(const Tensor& x, const Tensor& y, const std::vector<int>& order) {
  const int rank = x.rank();
  int64_t step[Shape::kMaxRank] = {}, stride[Shape::kMaxRank] = {};
  int64_t n = 1;
  for (int i = rank - 1; i >= 0; --i) {
    step[i] = n;
    n *= x.size(i);
  }
  for (int i = 0; i < rank; ++i) stride[i] = step[order[static_cast<size_t>(i)]];
  const Shape& shape = y.shape();
  // Last dimensions that stay where they are move in one piece; else the last one, by its stride.
  int outer = rank;
  while (outer > 0 && order[static_cast<size_t>(outer - 1)] == outer - 1) --outer;
  const bool whole = outer < rank;
  outer = std::max(0, whole ? outer : rank - 1);
  int64_t inner = 1;
  for (int i = outer; i < rank; ++i) inner *= shape[i];
  const int64_t inner_stride = whole || rank == 0 ? 1 : stride[rank - 1];
  const T* src = static_cast<const T*>(x.raw());
  T* dst = static_cast<T*>(y.raw());
  parallel_for(y.numel() / inner, row_grain(inner * static_cast<int64_t>(sizeof(T))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   int64_t rest = row, at = 0;
                   for (int d = outer - 1; d >= 0; --d) {
                     at += (rest % shape[d]) * stride[d];
                     rest /= shape[d];
                   }
                   T* out = dst + row * inner;
                   if (whole) std::memcpy(out, src + at, static_cast<size_t>(inner) * sizeof(T));
                   for (int64_t i = 0; !whole && i < inner; ++i)
                     out[i] = src[at + i * inner_stride];
                 }
               });
}

// Where the element of image n, channel c and pixel p lies: n*image + c/block*plane + p*block +
// c%block, `block` channels side by side.
struct Places {
  int64_t image, plane, block, channels, height, width;
};
Places places(const Tensor& t) {
  const int64_t pixels = t.size(2) * t.size(3), channels = t.size(1);
  const int64_t block = t.layout() == Layout::plain     ? 1
                        : t.layout() == Layout::blocked ? kChannelBlock
                                                        : std::max<int64_t>(1, channels);
  return {channels * pixels, block * pixels, block, channels, t.size(2), t.size(3)};
}

// Images of `small` with their pixels every `stride` of `large`; the channels of `small` are those
// of `large` from `first` on (which may be negative, and end behind the last: zeros then).
// move(small, large, n): n elements side by side; large is null where there is no such channel.
template <class Small, class Large, class Move>
void walk_subsample(Small* small, const Places& s, Large* large, const Places& l, int64_t images,
                    int64_t stride, int64_t first, const Move& move) {
  const int64_t blocks = s.channels / s.block;
  parallel_for(images * blocks, row_grain(s.plane * static_cast<int64_t>(sizeof(*small))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t n = t / blocks, b = t % blocks;
                   for (int64_t lane = 0, run = 0; lane < s.block; lane += run) {
                     const int64_t c = b * s.block + lane + first;
                     const bool there = c >= 0 && c < l.channels;
                     run = s.block - lane;
                     if (c < 0) run = std::min(run, -c);
                     if (there) run = std::min({run, l.channels - c, l.block - c % l.block});
                     Small* to = small + n * s.image + b * s.plane + lane;
                     Large* from = there ? large + n * l.image + c / l.block * l.plane + c % l.block
                                         : nullptr;
                     for (int64_t i = 0; i < s.height; ++i)
                       for (int64_t k = 0; k < s.width; ++k)
                         move(to + (i * s.width + k) * s.block,
                              there ? from + (i * l.width + k) * stride * l.block : nullptr, run);
                   }
                 }
               });
}

template <class T>
void subsample(const Tensor& x, const Tensor& y, int64_t stride, int64_t before) {
  walk_subsample(static_cast<T*>(y.raw()), places(y), static_cast<const T*>(x.raw()), places(x),
                 x.size(0), stride, -before, [](T* to, const T* from, int64_t n) {
                   if (from) {
                     for (int64_t i = 0; i < n; ++i) to[i] = from[i];
                   } else {
                     for (int64_t i = 0; i < n; ++i) to[i] = T(0);
                   }
                 });
}

// gx is zero.
template <class T>
void subsample_grad(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before) {
  walk_subsample(static_cast<const T*>(gy.raw()), places(gy), static_cast<T*>(gx.raw()), places(gx),
                 gx.size(0), stride, -before, [](const T* from, T* to, int64_t n) {
                   if (to)
                     for (int64_t i = 0; i < n; ++i) to[i] = from[i];
                 });
}

template <class T>
void shuffle(const Tensor& x, const Tensor& y, int64_t groups) {
  const Places p = places(x);
  const int64_t blocks = p.channels / p.block, each = p.channels / groups;
  const T* in = static_cast<const T*>(x.raw());
  T* out = static_cast<T*>(y.raw());
  parallel_for(x.size(0) * blocks, row_grain(p.plane * static_cast<int64_t>(sizeof(T))),
               [&](int64_t begin, int64_t end) {
                 std::vector<const T*> from(static_cast<size_t>(p.block));
                 for (int64_t t = begin; t < end; ++t) {
                   for (int64_t lane = 0; lane < p.block; ++lane) {
                     const int64_t to = t % blocks * p.block + lane;
                     const int64_t c = to % groups * each + to / groups;
                     from[static_cast<size_t>(lane)] =
                         in + t / blocks * p.image + c / p.block * p.plane + c % p.block;
                   }
                   T* to = out + t * p.plane;
                   if (p.block == 1) {
                     std::copy_n(from[0], p.plane, to);
                     continue;
                   }
                   for (int64_t i = 0; i < p.plane; i += p.block)
                     for (int64_t lane = 0; lane < p.block; ++lane)
                       to[i + lane] = from[static_cast<size_t>(lane)][i];
                 }
               });
}

// f(T()) with an unsigned integer as wide as an element.
template <class F>
void as_bits(DType dtype, const F& f) {
  switch (size_of(dtype)) {
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    default:
      return f(uint64_t{});
  }
}

}  // namespace

void copy_rows_cpu(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t row,
                   int64_t rows) {
  if (row == 0) return;
  if (rows == 1) {  // one long run: split it instead
    parallel_for(row, kGrainBytes * 8, [&](int64_t begin, int64_t end) {
      std::memcpy(dst + begin, src + begin, static_cast<size_t>(end - begin));
    });
    return;
  }
  parallel_for(rows, row_grain(row), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(dst + i * dst_pitch, src + i * src_pitch, static_cast<size_t>(row));
  });
}

void pad_rows_cpu(const char* src, int64_t row, char* dst, int64_t pitch, int64_t at,
                  int64_t rows) {
  parallel_for(rows, row_grain(pitch), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      char* to = dst + i * pitch;
      std::fill_n(to, at, char{});
      std::copy_n(src + i * row, row, to + at);
      std::fill_n(to + at + row, pitch - at - row, char{});
    }
  });
}

void add_to_rows_cpu(const float* src, int64_t row, float* dst, int64_t pitch, int64_t rows) {
  parallel_for(rows, row_grain(row * 4), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t k = 0; k < row; ++k) dst[i * pitch + k] += src[i * row + k];
  });
}

void gather_rows_cpu(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                     int64_t /*limit*/) {
  if (row == 0) return;
  parallel_for(rows, row_grain(row), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(dst + i * row, src + index[i] * row, static_cast<size_t>(row));
  });
}

void add_rows_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx) {
  gx.zero_();
  const int64_t* at = index.data<int64_t>();
  const int64_t row = gx.size(0) ? gx.numel() / gx.size(0) : 0;
  MTCKI_DISPATCH_FLOAT(gx.dtype(), "index_select_grad", T, {
    const T* in = gy.data<T>();
    T* out = gx.data<T>();
    parallel_for(row, kGrainBytes, [&](int64_t begin, int64_t end) {  // threads own columns
      for (int64_t i = 0; i < index.numel(); ++i)
        for (int64_t c = begin; c < end; ++c) out[at[i] * row + c] += in[i * row + c];
    });
  });
}

void permute_cpu(const Tensor& x, const Tensor& y, const std::vector<int>& order) {
  switch (size_of(x.dtype())) {
    case 1:
      return permute_as<uint8_t>(x, y, order);
    case 2:
      return permute_as<uint16_t>(x, y, order);
    case 4:
      return permute_as<uint32_t>(x, y, order);
    default:
      return permute_as<uint64_t>(x, y, order);
  }
}

void channel_shuffle_cpu(const Tensor& x, const Tensor& y, int64_t groups) {
  as_bits(x.dtype(), [&](auto t) { shuffle<decltype(t)>(x, y, groups); });
}

void one_hot_cpu(const Tensor& labels, const Tensor& y) {
  const int64_t* label = labels.data<int64_t>();
  const int64_t classes = y.size(1);
  MTCKI_DISPATCH_ALL(y.dtype(), T, {
    T* out = y.data<T>();
    std::fill(out, out + y.numel(), static_cast<T>(0));
    for (int64_t i = 0; i < labels.numel(); ++i) out[i * classes + label[i]] = static_cast<T>(1);
  });
}

void subsample_pad_cpu(const Tensor& x, const Tensor& y, int64_t stride, int64_t before) {
  as_bits(x.dtype(), [&](auto t) { subsample<decltype(t)>(x, y, stride, before); });
}

void subsample_pad_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before) {
  gx.zero_();
  as_bits(gy.dtype(), [&](auto t) { subsample_grad<decltype(t)>(gy, gx, stride, before); });
}

}  // namespace mtcki
