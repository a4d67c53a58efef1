// Walk: the elements of a tensor of any rank and layout in a chosen order of its dimensions. What
// the CUDA kernels of reductions and index ops share, and broadcasting on the CPU.
#pragma once

#include "tensor/host_device.h"
#include "tensor/layout.h"
#include "tensor/shape.h"

namespace mtcki {

struct Walk {
  int dims = 0;
  int64_t count = 1;  // elements of the walk
  int64_t size[Shape::kMaxRank] = {}, stride[Shape::kMaxRank] = {};

  // Adds an inner dimension. One that goes on in memory where the last one ends is merged with it.
  void add(int64_t n, int64_t step) {
    count *= n;
    if (n == 1) return;
    if (dims > 0 && stride[dims - 1] == n * step) {
      size[dims - 1] *= n;
      stride[dims - 1] = step;
      return;
    }
    size[dims] = n;
    stride[dims++] = step;
  }
  // Offset of element i of the walk. Unrolled, so that the arrays stay in the kernel's parameters.
  MTCKI_HD int64_t offset(int64_t i) const {
    int64_t at = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
    for (int d = Shape::kMaxRank - 1; d > 0; --d)
      if (d < dims) {
        at += i % size[d] * stride[d];
        i /= size[d];
      }
    return at + i * stride[0];
  }
};

// Elements between neighbours along each dimension of a plain or channels_last tensor.
struct Strides {
  int64_t of[Shape::kMaxRank] = {};
  Strides(const Shape& shape, Layout layout) {
    int64_t step = 1;
    const auto next = [&](int d) {
      of[d] = step;
      step *= shape[d];
    };
    if (layout == Layout::channels_last) {
      for (const int d : {1, 3, 2, 0}) next(d);
    } else {
      for (int d = shape.rank() - 1; d >= 0; --d) next(d);
    }
  }
};

// Dimension number i, from the outermost, in the order of memory.
inline int memory_dim(Layout layout, int i) {
  constexpr int kChannelsLast[] = {0, 2, 3, 1};
  return layout == Layout::channels_last ? kChannelsLast[i] : i;
}

}  // namespace mtcki
