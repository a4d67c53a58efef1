// Internal: how the direct kernels cut a convolution into strips.
//
// A strip is a run of output rows of one image, or several whole small images. Its input, with
// zeros where taps reach outside, is copied to [image][channel block][row][column][channel], so
// that the kernels see no borders, strides or layouts: every output pixel is an offset into that
// copy.
#pragma once

#include <algorithm>
#include <cstring>

#include "tensor/ops/conv/kernels.h"

namespace mtcki::conv_direct {

// An activation in memory. A plain one is one block of all its channels in the copy.
struct Source {
  const float* data;
  int64_t c, h, w;
  bool blocked() const { return is_blocked(c); }
  int64_t lanes() const { return blocked() ? kChannelBlock : c; }
  int64_t blocks() const { return c / lanes(); }
};

// Rows [row, row + rows) and columns [column, column + columns) of `images` images from n on.
struct Window {
  int64_t n, images, row, rows, column, columns;
  int64_t block_size(int64_t lanes) const { return rows * columns * lanes; }
};

inline void pack(const Source& s, const Window& win, float* out) {
  const int64_t lanes = s.lanes();
  const int64_t left = std::clamp<int64_t>(-win.column, 0, win.columns);
  const int64_t right =
      std::clamp<int64_t>(std::min(win.columns, s.w - win.column), left, win.columns);
  for (int64_t image = 0; image < win.images; ++image)
    for (int64_t b = 0; b < s.blocks(); ++b) {
      const float* from = s.data + ((win.n + image) * s.c + b * lanes) * s.h * s.w;
      for (int64_t i = 0; i < win.rows; ++i, out += win.columns * lanes) {
        const int64_t row = win.row + i;
        if (row < 0 || row >= s.h) {
          std::fill(out, out + win.columns * lanes, 0.0f);
          continue;
        }
        std::fill(out, out + left * lanes, 0.0f);
        std::fill(out + right * lanes, out + win.columns * lanes, 0.0f);
        if (s.blocked()) {
          if (right > left)
            std::memcpy(out + left * lanes, from + (row * s.w + win.column + left) * lanes,
                        static_cast<size_t>((right - left) * lanes) * sizeof(float));
        } else {
          for (int64_t c = 0; c < lanes; ++c) {
            const float* line = from + (c * s.h + row) * s.w + win.column;
            for (int64_t j = left; j < right; ++j) out[j * lanes + c] = line[j];
          }
        }
      }
    }
}

// Rows and images of one strip: about `pixels` output pixels.
struct StripSize {
  int64_t rows, images;
  StripSize(int64_t height, int64_t width, int64_t batch, int64_t pixels) {
    rows = std::clamp<int64_t>(pixels / std::max<int64_t>(1, width), 1, height);
    rows = (height + (height + rows - 1) / rows - 1) / ((height + rows - 1) / rows);  // even shares
    images = rows < height ? 1 : std::clamp<int64_t>(pixels / (height * width), 1, batch);
  }
  int64_t row_strips(int64_t height) const { return (height + rows - 1) / rows; }
};

}  // namespace mtcki::conv_direct
