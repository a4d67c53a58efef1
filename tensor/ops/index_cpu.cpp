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
  const int64_t inner = rank ? shape[-1] : 1, inner_stride = rank ? stride[rank - 1] : 1;
  const T* src = static_cast<const T*>(x.raw());
  T* dst = static_cast<T*>(y.raw());
  parallel_for(y.numel() / inner, row_grain(inner * static_cast<int64_t>(sizeof(T))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   int64_t rest = row, at = 0;
                   for (int d = rank - 2; d >= 0; --d) {
                     at += (rest % shape[d]) * stride[d];
                     rest /= shape[d];
                   }
                   T* out = dst + row * inner;
                   for (int64_t i = 0; i < inner; ++i) out[i] = src[at + i * inner_stride];
                 }
               });
}

template <class T>
void subsample(const T* x, T* y, const Shape& xs, const Shape& ys, int64_t stride, int64_t before) {
  const int64_t in_plane = xs[2] * xs[3], out_plane = ys[2] * ys[3];
  parallel_for(ys[0] * ys[1], row_grain(out_plane * static_cast<int64_t>(sizeof(T))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t n = t / ys[1], c = t % ys[1] - before;
                   T* out = y + t * out_plane;
                   if (c < 0 || c >= xs[1]) {
                     std::fill(out, out + out_plane, T(0));
                     continue;
                   }
                   const T* in = x + (n * xs[1] + c) * in_plane;
                   for (int64_t i = 0; i < ys[2]; ++i)
                     for (int64_t j = 0; j < ys[3]; ++j)
                       out[i * ys[3] + j] = in[i * stride * xs[3] + j * stride];
                 }
               });
}

template <class T>
void subsample_grad(const T* gy, T* gx, const Shape& ys, const Shape& xs, int64_t stride,
                    int64_t before) {
  const int64_t in_plane = xs[2] * xs[3], out_plane = ys[2] * ys[3];
  parallel_for(xs[0] * xs[1], row_grain(in_plane * static_cast<int64_t>(sizeof(T))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t t = begin; t < end; ++t) {
                   const int64_t n = t / xs[1], c = t % xs[1] + before;
                   const T* in = gy + (n * ys[1] + c) * out_plane;
                   T* out = gx + t * in_plane;
                   std::fill(out, out + in_plane, T(0));
                   for (int64_t i = 0; i < ys[2]; ++i)
                     for (int64_t j = 0; j < ys[3]; ++j)
                       out[i * stride * xs[3] + j * stride] = in[i * ys[3] + j];
                 }
               });
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

void gather_rows_cpu(const char* src, char* dst, const int64_t* index, int64_t row, int64_t rows,
                     int64_t /*limit*/, bool scatter) {
  if (row == 0) return;
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t from = scatter ? i : index[i], to = scatter ? index[i] : i;
      std::memcpy(dst + to * row, src + from * row, static_cast<size_t>(row));
    }
  };
  // Two equal targets of a scatter would race: the last row wins only in a serial loop.
  scatter ? copy(0, rows) : parallel_for(rows, row_grain(row), copy);
}

void add_rows_cpu(const Tensor& gy, const Tensor& index, const Tensor& gx) {
  Tensor(gx).zero_();
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
  MTCKI_DISPATCH_FLOAT(x.dtype(), "subsample_pad_channels", T, {
    subsample(x.data<T>(), y.data<T>(), x.shape(), y.shape(), stride, before);
  });
}

void subsample_pad_grad_cpu(const Tensor& gy, const Tensor& gx, int64_t stride, int64_t before) {
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "subsample_pad_channels_grad", T, {
    subsample_grad(gy.data<T>(), gx.data<T>(), gy.shape(), gx.shape(), stride, before);
  });
}

}  // namespace mtcki
