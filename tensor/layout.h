// Memory layouts of rank-4 activations, and the one loop shape that all of them share.
//
//   plain          N, C, H, W
//   channels_last  N, H, W, C
//   blocked        N, C/B, H, W, B    with B = kChannelBlock; needs C % B == 0
//
// Shapes are always logical NCHW; only the order in memory differs. Every other rank is plain.
#pragma once

#include <cstdint>

#include "tensor/shape.h"

namespace mtcki {

enum class Layout : uint8_t { plain, channels_last, blocked };
const char* name_of(Layout layout);

// One SIMD register of floats: 16 with AVX-512, else 8. It is what oneDNN's direct kernels use on
// the same machine, so activations pass to them without a reorder.
#if defined(__AVX512F__)
inline constexpr int64_t kChannelBlock = 16;
#else
inline constexpr int64_t kChannelBlock = 8;
#endif

// A per-channel kernel walks: for o < outer, for k < blocks, for i < inner, for b < block:
// element ((o*blocks + k)*inner + i)*block + b belongs to channel k*block + b.
//   plain  (N, C, HW, 1)   channels_last (N*HW, 1, 1, C)   blocked (N, C/B, HW, B)
// Rank 2 [N, C] is (N, 1, 1, C).
struct ChannelView {
  int64_t outer = 0, blocks = 0, inner = 0, block = 0;
  int64_t channels() const { return blocks * block; }
  int64_t per_channel() const { return outer * inner; }  // elements that one channel has
};
ChannelView channel_view(const Shape& shape, Layout layout);

}  // namespace mtcki
