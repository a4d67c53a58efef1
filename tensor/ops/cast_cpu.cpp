#include <cstring>

#include "tensor/kernels/functors.h"
#include "tensor/kernels/transpose.h"
#include "tensor/ops/cast_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// dst[c*dst_ld + r] = src[r*src_ld + c], in tiles that stay in the first-level cache.
template <class T>
void transpose_tile(const T* src, int64_t rows, int64_t cols, int64_t src_ld, T* dst,
                    int64_t dst_ld) {
  constexpr int64_t kTile = 16;
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    const int64_t r1 = std::min(rows, r0 + kTile);
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      const int64_t c1 = std::min(cols, c0 + kTile);
      for (int64_t c = c0; c < c1; ++c)
        for (int64_t r = r0; r < r1; ++r) dst[c * dst_ld + r] = src[r * src_ld + c];
    }
  }
}

// [block][hw] -> [hw][block] and back.
template <class T>
void to_lanes(const T* in, int64_t block, int64_t hw, T* out) {
  if constexpr (sizeof(T) == 4) {
    if (block == kChannelBlock) return planes_to_lanes<kChannelBlock>(in, hw, block, hw, out);
  }
  transpose_tile(in, block, hw, hw, out, block);
}
template <class T>
void to_planes(const T* in, int64_t block, int64_t hw, T* out) {
  if constexpr (sizeof(T) == 4) {
    if (block == kChannelBlock) return lanes_to_planes<kChannelBlock>(in, hw, block, hw, out);
  }
  transpose_tile(in, hw, block, block, out, hw);
}

// Groups of `block` channels: plain is (n, groups, block, hw), the other two are
// (n, hw, channels) with the groups of a pixel `stride` apart.
template <class T>
void reorder(const Tensor& x, const Tensor& y) {
  const int64_t n = x.size(0), c = x.size(1), hw = x.size(2) * x.size(3);
  const T* src = static_cast<const T*>(x.raw());
  T* dst = static_cast<T*>(y.raw());
  const Layout from = x.layout(), to = y.layout();
  const bool blocked = from == Layout::blocked || to == Layout::blocked;
  const int64_t block = blocked ? kChannelBlock : c, groups = blocked ? c / kChannelBlock : 1;
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, block * hw));
  parallel_for(n * groups, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t image = t / groups, k = t % groups;
      const int64_t packed = t * block * hw;             // the group where groups are apart
      const int64_t pixel = image * c * hw + k * block;  // the group inside channels_last
      if (from == Layout::plain) {
        to_lanes(src + packed, block, hw, dst + packed);
      } else if (to == Layout::plain) {
        to_planes(src + packed, block, hw, dst + packed);
      } else if (to == Layout::channels_last) {
        for (int64_t i = 0; i < hw; ++i)
          std::memcpy(dst + pixel + i * c, src + packed + i * block, sizeof(T) * block);
      } else {
        for (int64_t i = 0; i < hw; ++i)
          std::memcpy(dst + packed + i * block, src + pixel + i * c, sizeof(T) * block);
      }
    }
  });
}

}  // namespace

void cast_cpu(const Tensor& x, const Tensor& y) {
  const int64_t n = x.numel();
  MTCKI_DISPATCH_ALL(x.dtype(), From, {
    const From* src = x.data<From>();
    MTCKI_DISPATCH_ALL(y.dtype(), To, {
      To* dst = y.data<To>();
      parallel_for(n, 1 << 15, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) dst[i] = Convert<To, From>()(src[i]);
      });
    });
  });
}

void to_layout_cpu(const Tensor& x, const Tensor& y) {
  switch (size_of(x.dtype())) {
    case 1:
      return reorder<uint8_t>(x, y);
    case 2:
      return reorder<uint16_t>(x, y);
    case 4:
      return reorder<uint32_t>(x, y);
    default:
      return reorder<uint64_t>(x, y);
  }
}

void u8_to_unit_cpu(const Tensor& x, const Tensor& y) {
  const uint8_t* src = x.data<uint8_t>();
  float* dst = y.data<float>();
  parallel_for(x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dst[i] = static_cast<float>(src[i]) / 255.0f;
  });
}

void unit_to_u8_cpu(const Tensor& x, const Tensor& y, bool round) {
  const float* src = x.data<float>();
  uint8_t* dst = y.data<uint8_t>();
  const float half = round ? 0.5f : 0.0f;
  parallel_for(x.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float v = src[i];
      const float unit = v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;  // NaN becomes 0
      dst[i] = static_cast<uint8_t>(static_cast<int32_t>(255.0f * unit + half));
    }
  });
}

}  // namespace mtcki
