// Most of these move bytes, in the largest words that addresses and lengths allow. Indices outside
// their range touch nothing: gathered rows are zero.

#include "tensor/cuda/launch.cuh"
#include "tensor/kernels/functors.h"
#include "tensor/kernels/walk.h"
#include "tensor/ops/cast_kernels.h"
#include "tensor/ops/index_kernels.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class W>
using Word = std::type_identity<W>;

// f(Word<W>{}) for the largest W that divides everything that was or-ed into `bits`.
template <class F>
void with_word(uint64_t bits, const F& f) {
  if (bits % 16 == 0) return f(Word<uint4>{});
  if (bits % 8 == 0) return f(Word<uint64_t>{});
  if (bits % 4 == 0) return f(Word<uint32_t>{});
  if (bits % 2 == 0) return f(Word<uint16_t>{});
  f(Word<uint8_t>{});
}
uint64_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// Pitches and row in words.
template <class W>
__global__ void copy_rows_kernel(const W* __restrict__ src, int64_t src_pitch, W* __restrict__ dst,
                                 int64_t dst_pitch, int64_t row, int64_t words) {
  MTCKI_GRID_LOOP(i, words) {
    const int64_t r = i / row, c = i % row;
    dst[r * dst_pitch + c] = src[r * src_pitch + c];
  }
}

template <class W>
__global__ void gather_rows_kernel(const W* __restrict__ src, W* __restrict__ dst,
                                   const int64_t* __restrict__ index, int64_t row, int64_t words,
                                   int64_t limit) {
  MTCKI_GRID_LOOP(i, words) {
    const int64_t from = index[i / row];
    dst[i] = from >= 0 && from < limit ? src[from * row + i % row] : W{};
  }
}

// One block per row of gx, which adds up the rows of gy that came from it, in their order.
template <class T>
__global__ void add_rows_kernel(const T* __restrict__ gy, const int64_t* __restrict__ index,
                                T* __restrict__ gx, int64_t row, int64_t rows, int64_t limit) {
  for (int64_t r = blockIdx.x; r < limit; r += gridDim.x)
    for (int64_t c = threadIdx.x; c < row; c += blockDim.x) {
      compute_t<T> total = 0;
      for (int64_t i = 0; i < rows; ++i)
        if (index[i] == r) total += compute_t<T>(gy[i * row + c]);
      gx[r * row + c] = T(total);
    }
}

template <class W>
__global__ void walk_kernel(const W* __restrict__ x, W* __restrict__ y, Walk walk) {
  MTCKI_GRID_LOOP(i, walk.count) y[i] = x[walk.offset(i)];
}

template <class T>
__global__ void one_hot_kernel(const int64_t* __restrict__ label, T* __restrict__ y,
                               int64_t classes, int64_t n) {
  MTCKI_GRID_LOOP(i, n) y[i] = static_cast<T>(i % classes == label[i / classes] ? 1.0f : 0.0f);
}

// Strides of a rank-4 tensor, and the position of its element i in memory order.
struct Image {
  int64_t c, h, w;  // sizes
  bool channels_last;
  int64_t sn, sc, sh, sw;
};
Image image(const Tensor& x) {
  const Strides s(x.shape(), x.layout());
  return {x.size(1), x.size(2), x.size(3), x.layout() == Layout::channels_last,
          s.of[0],   s.of[1],   s.of[2],   s.of[3]};
}
struct Position {
  int64_t n, c, h, w;
  __device__ Position(const Image& x, int64_t i) {
    if (x.channels_last) {
      c = i % x.c;
      i /= x.c;
    }
    w = i % x.w;
    i /= x.w;
    h = i % x.h;
    i /= x.h;
    if (!x.channels_last) {
      c = i % x.c;
      i /= x.c;
    }
    n = i;
  }
};

template <class W>
__global__ void subsample_kernel(const W* __restrict__ x, Image from, W* __restrict__ y, Image to,
                                 int64_t stride, int64_t before, int64_t count) {
  MTCKI_GRID_LOOP(i, count) {
    const Position p(to, i);
    const int64_t c = p.c - before;
    const int64_t at =
        p.n * from.sn + c * from.sc + p.h * stride * from.sh + p.w * stride * from.sw;
    y[i] = c >= 0 && c < from.c ? x[at] : W{};
  }
}

template <class W>
__global__ void subsample_grad_kernel(const W* __restrict__ gy, Image from, W* __restrict__ gx,
                                      Image to, int64_t stride, int64_t before, int64_t count) {
  MTCKI_GRID_LOOP(i, count) {
    const Position p(to, i);
    const bool taken = p.h % stride == 0 && p.w % stride == 0;
    const int64_t at =
        p.n * from.sn + (p.c + before) * from.sc + p.h / stride * from.sh + p.w / stride * from.sw;
    gx[i] = taken ? gy[at] : W{};
  }
}

// f(Word<W>{}) for the unsigned type as wide as an element; zero bits are zero in every dtype.
template <class F>
void with_element(DType dtype, const F& f) {
  with_word(size_of(dtype), f);
}
template <class W>
const W* words(const Tensor& x, Word<W>) {
  return static_cast<const W*>(x.raw());
}
template <class W>
W* words_out(const Tensor& x, Word<W>) {
  return static_cast<W*>(x.raw());
}

}  // namespace

void copy_rows_cuda(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch, int64_t row,
                    int64_t rows) {
  if (row == 0 || rows == 0) return;
  if (rows == 1 || (src_pitch == row && dst_pitch == row))
    return cuda::copy_on_device(dst, src, static_cast<size_t>(row * rows));
  const uint64_t bits = address(src) | address(dst) | static_cast<uint64_t>(src_pitch) |
                        static_cast<uint64_t>(dst_pitch) | static_cast<uint64_t>(row);
  with_word(bits, [&]<class W>(Word<W>) {
    constexpr int64_t kSize = sizeof(W);
    const int64_t count = row / kSize * rows;
    launch(copy_rows_kernel<W>, grid_for(count), kThreads, 0, reinterpret_cast<const W*>(src),
           src_pitch / kSize, reinterpret_cast<W*>(dst), dst_pitch / kSize, row / kSize, count);
  });
}

void gather_rows_cuda(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                      int64_t limit) {
  if (row == 0 || rows == 0) return;
  with_word(address(src) | address(dst) | static_cast<uint64_t>(row), [&]<class W>(Word<W>) {
    const int64_t length = row / static_cast<int64_t>(sizeof(W)), count = length * rows;
    launch(gather_rows_kernel<W>, grid_for(count), kThreads, 0, reinterpret_cast<const W*>(src),
           reinterpret_cast<W*>(dst), index, length, count, limit);
  });
}

void add_rows_cuda(const Tensor& gy, const Tensor& index, const Tensor& gx) {
  const int64_t limit = gx.size(0), row = limit ? gx.numel() / limit : 0;
  MTCKI_DISPATCH_CUDA(gx.dtype(), "index_select_grad", T, {
    launch(add_rows_kernel<T>, grid_for(limit, 1), 128, 0, gy.data<T>(), index.data<int64_t>(),
           gx.data<T>(), row, index.numel(), limit);
  });
}

void permute_cuda(const Tensor& x, const Tensor& y, const std::vector<int>& order) {
  if (x.rank() == 2 && order[0] == 1)
    return transpose_cuda(x.raw(), y.raw(), 1, x.size(0), x.size(1), size_of(x.dtype()));
  const Strides from(x.shape(), x.layout());
  Walk walk;
  for (int i = 0; i < y.rank(); ++i) walk.add(y.size(i), from.of[order[static_cast<size_t>(i)]]);
  with_element(x.dtype(), [&]<class W>(Word<W> w) {
    launch(walk_kernel<W>, grid_for(walk.count), kThreads, 0, words(x, w), words_out(y, w), walk);
  });
}

void one_hot_cuda(const Tensor& labels, const Tensor& y) {
  MTCKI_DISPATCH_ALL(y.dtype(), T, {
    launch(one_hot_kernel<T>, grid_for(y.numel()), kThreads, 0, labels.data<int64_t>(), y.data<T>(),
           y.size(1), y.numel());
  });
}

void subsample_pad_cuda(const Tensor& x, const Tensor& y, int64_t stride, int64_t before) {
  with_element(x.dtype(), [&]<class W>(Word<W> w) {
    launch(subsample_kernel<W>, grid_for(y.numel()), kThreads, 0, words(x, w), image(x),
           words_out(y, w), image(y), stride, before, y.numel());
  });
}

void subsample_pad_grad_cuda(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before) {
  with_element(gy.dtype(), [&]<class W>(Word<W> w) {
    launch(subsample_grad_kernel<W>, grid_for(gx.numel()), kThreads, 0, words(gy, w), image(gy),
           words_out(gx, w), image(gx), stride, before, gx.numel());
  });
}

}  // namespace mtcki
