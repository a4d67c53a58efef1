#include "tensor/cuda/launch.cuh"
#include "tensor/ops/cast_kernels.h"
#include "tensor/kernels/functors.h"

namespace mtcki {

namespace {

using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class T>
__global__ void fill_kernel(T* x, int64_t n, T value) {
  MTCKI_GRID_LOOP(i, n) x[i] = value;
}

template <class From, class To>
__global__ void cast_kernel(const From* __restrict__ x, To* __restrict__ y, int64_t n) {
  MTCKI_GRID_LOOP(i, n) y[i] = Convert<To, From>()(x[i]);
}

constexpr int kTile = 32, kTileRows = 8;

// Per image, y [columns][rows] = x [rows][columns] transposed, through a tile in shared memory so
// that both sides are read and written in runs. Grid: (column tiles, row tiles, images).
template <class T>
__global__ void transpose_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t rows,
                                 int64_t columns, int64_t images) {
  __shared__ T tile[kTile][kTile + 1];
  for (int64_t image = blockIdx.z; image < images; image += gridDim.z) {
    const T* in = x + image * rows * columns;
    T* out = y + image * rows * columns;
    for (int64_t r0 = int64_t{blockIdx.y} * kTile; r0 < rows; r0 += int64_t{gridDim.y} * kTile) {
      const int64_t c0 = int64_t{blockIdx.x} * kTile;
      __syncthreads();
      for (int r = threadIdx.y; r < kTile; r += kTileRows)
        if (r0 + r < rows && c0 + threadIdx.x < columns)
          tile[r][threadIdx.x] = in[(r0 + r) * columns + c0 + threadIdx.x];
      __syncthreads();
      for (int c = threadIdx.y; c < kTile; c += kTileRows)
        if (c0 + c < columns && r0 + threadIdx.x < rows)
          out[(c0 + c) * rows + r0 + threadIdx.x] = tile[threadIdx.x][c];
    }
  }
}

template <class T>
void transpose(const void* x, void* y, int64_t images, int64_t rows, int64_t columns) {
  const auto tiles = [](int64_t n) { return static_cast<unsigned>((n + kTile - 1) / kTile); };
  const auto most = [](int64_t n) { return static_cast<unsigned>(n < 65535 ? n : 65535); };
  launch(transpose_kernel<T>, dim3(tiles(columns), most(tiles(rows)), most(images)),
         dim3(kTile, kTileRows), 0, static_cast<const T*>(x), static_cast<T*>(y), rows, columns,
         images);
}

__global__ void u8_to_unit_kernel(const uint8_t* __restrict__ x, float* __restrict__ y, int64_t n) {
  MTCKI_GRID_LOOP(i, n) y[i] = static_cast<float>(x[i]) / 255.0f;
}

__global__ void unit_to_u8_kernel(const float* __restrict__ x, uint8_t* __restrict__ y, int64_t n,
                                  float half) {
  MTCKI_GRID_LOOP(i, n) {
    const float v = x[i];
    const float unit = v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f;  // NaN becomes 0
    y[i] = static_cast<uint8_t>(static_cast<int32_t>(255.0f * unit + half));
  }
}

}  // namespace

void fill_cuda(const Tensor& x, double value) {
  MTCKI_DISPATCH_ALL(x.dtype(), T, {
    launch(fill_kernel<T>, grid_for(x.numel()), kThreads, 0, x.data<T>(), x.numel(),
           static_cast<T>(value));
  });
}

void cast_cuda(const Tensor& x, const Tensor& y) {
  const int64_t n = x.numel();
  MTCKI_DISPATCH_ALL(x.dtype(), From, {
    MTCKI_DISPATCH_ALL(y.dtype(), To, {
      launch(cast_kernel<From, To>, grid_for(n), kThreads, 0, x.data<From>(), y.data<To>(), n);
    });
  });
}

void transpose_cuda(const void* x, void* y, int64_t images, int64_t rows, int64_t columns,
                    size_t element) {
  switch (element) {
    case 1:
      return transpose<uint8_t>(x, y, images, rows, columns);
    case 2:
      return transpose<uint16_t>(x, y, images, rows, columns);
    case 4:
      return transpose<uint32_t>(x, y, images, rows, columns);
    default:
      return transpose<uint64_t>(x, y, images, rows, columns);
  }
}

void to_layout_cuda(const Tensor& x, const Tensor& y) {
  const int64_t c = x.size(1), hw = x.size(2) * x.size(3);
  const int64_t rows = x.is_plain() ? c : hw, columns = x.is_plain() ? hw : c;
  transpose_cuda(x.raw(), y.raw(), x.size(0), rows, columns, size_of(x.dtype()));
}

void u8_to_unit_cuda(const Tensor& x, const Tensor& y) {
  launch(u8_to_unit_kernel, grid_for(x.numel()), kThreads, 0, x.data<uint8_t>(), y.data<float>(),
         x.numel());
}

void unit_to_u8_cuda(const Tensor& x, const Tensor& y, bool round) {
  launch(unit_to_u8_kernel, grid_for(x.numel()), kThreads, 0, x.data<float>(), y.data<uint8_t>(),
         x.numel(), round ? 0.5f : 0.0f);
}

const void* cuda::any_kernel() { return reinterpret_cast<const void*>(&fill_kernel<float>); }

}  // namespace mtcki
