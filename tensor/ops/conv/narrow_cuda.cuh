// Internal to the CUDA kernels of convolutions with few channels: the tiles of pixels that they
// bring to shared memory.
#pragma once

#include <algorithm>
#include <cstring>

#include "tensor/cuda/mma.cuh"
#include "tensor/ops/conv/narrow_cuda.h"

namespace mtcki::conv_cuda::narrow {

using cuda::SharedAddress;

constexpr int kStages = 2;  // tiles in shared memory: one at work, one on its way

// A kernel T says: kIn channels of the input, kTaps x kTaps taps, kStep between the input pixels of
// neighbouring output pixels in shared memory, kPixels output pixels of a tile, kWarps, kInPitch
// bytes of an input pixel in shared memory, kOutPitch of an output pixel (0: none there).

// A tile has `pictures` rectangles of 2^log_rows x 2^log_columns output pixels.
struct Geometry {
  int n, h, w, c, k, p, q, stride, pad;
  int log_rows, log_columns, pictures;
  int in_rows, in_columns, in_columns_used;  // input pixels of a picture
  int down, across, tiles;                   // pictures of an image; tiles of the batch
  int in_bytes, stage_bytes;                 // of shared memory
};

struct Picture {
  int image, p, q;  // of its first output pixel
};
__device__ inline Picture picture(const Geometry& g, int index) {
  const int of_image = g.down * g.across;
  if (of_image == 1) return {index, 0, 0};
  const int image = index / of_image, rest = index - image * of_image;
  const int row = rest / g.across;
  return {image, row << g.log_rows, (rest - row * g.across) << g.log_columns};
}

// Warps take rows of pixels, lanes 16 bytes each.
template <class T>
__device__ inline void load_x(const Geometry& g, const bfloat16* x, int tile, int warp, int lane,
                              SharedAddress to, unsigned char* memory) {
  constexpr int kChunks = T::kIn / 8;
  const int scale = T::kTaps == 1 ? g.stride : 1, rows = g.pictures * g.in_rows;
  Picture at = picture(g, tile * g.pictures);
  for (int row = warp; row < rows; row += T::kWarps) {
    int r = row;
    if (g.pictures > 1) {
      const int which = row / g.in_rows;
      at = picture(g, tile * g.pictures + which);
      r -= which * g.in_rows;
    }
    const int h = at.p * g.stride - g.pad + r * scale, first = at.q * g.stride - g.pad;
    const bool inside = at.image < g.n && h >= 0 && h < g.h;
    const bfloat16* from = x + (int64_t{at.image} * g.h + h) * g.w * g.c;
    MTCKI_UNROLL_BY(2)
    for (int i = lane; i < g.in_columns_used * kChunks; i += 32) {
      const int column = i / kChunks, chunk = i % kChunks, w = first + column * scale;
      const bool there = inside && w >= 0 && w < g.w;
      // With two pixels to a step the even ones come first, then the odd ones.
      const int slot = T::kStep == 2 ? (column & 1) * (g.in_columns / 2) + column / 2 : column;
      const int offset = (row * g.in_columns + slot) * T::kInPitch + chunk * 16;
      if (T::kIn == 8 && g.c < 8) {  // an image: pixels of a few bytes
        bfloat16 v[8] = {};
        for (int c = 0; c < 8; ++c)
          if (there && c < g.c) v[c] = from[w * g.c + c];
        uint4 bits;
        memcpy(&bits, v, 16);
        *reinterpret_cast<uint4*>(memory + offset) = bits;
      } else {
        cuda::copy16_async(to + offset, there ? from + w * g.c + chunk * 8 : x, there);
      }
    }
  }
}

// Tiles as wide as the image, up to 32 pixels.
template <class T>
inline Geometry geometry(const ConvProblem& d) {
  const auto i = [](int64_t v) { return static_cast<int>(v); };
  Geometry g{};
  g.n = i(d.n), g.h = i(d.h), g.w = i(d.w), g.c = i(d.c), g.k = i(d.k), g.p = i(d.p), g.q = i(d.q);
  g.stride = i(d.stride_h), g.pad = i(d.pad_h);
  g.log_columns = d.q > 16 ? 5 : d.q > 8 ? 4 : 3;
  const int columns = 1 << g.log_columns;
  g.pictures = columns == 8 ? T::kPixels / 64 : 1;
  const int rows = T::kPixels / columns / g.pictures;
  while (1 << g.log_rows < rows) ++g.log_rows;
  g.in_rows = (rows - 1) * T::kStep + T::kTaps;
  g.in_columns_used = (columns - 1) * T::kStep + T::kTaps;
  g.in_columns = (g.in_columns_used + T::kStep - 1) / T::kStep * T::kStep;
  g.down = (g.p + rows - 1) / rows;
  g.across = (g.q + columns - 1) / columns;
  g.tiles = (g.n * g.down * g.across + g.pictures - 1) / g.pictures;
  g.in_bytes = g.pictures * g.in_rows * g.in_columns * T::kInPitch;
  g.stage_bytes = g.in_bytes + T::kPixels * T::kOutPitch;
  return g;
}

inline const cuda::DeviceInfo& device() {
  static const cuda::DeviceInfo info = cuda::device_info(cuda::current_device());
  return info;
}

// The largest of bytes(geometry) over the widths of tiles, as far as the device has it.
template <class T, class Bytes>
size_t most_shared(const Bytes& bytes) {
  size_t most = 0;
  for (const int64_t q : {8, 16, 32}) {
    ConvProblem any;
    any.q = q;
    most = std::max(most, bytes(geometry<T>(any)));
  }
  return std::min(most, device().shared);
}

}  // namespace mtcki::conv_cuda::narrow
