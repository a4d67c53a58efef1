#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "tensor/ops/channel_walk.h"
#include "tensor/ops/reduce_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

template <class T>
using Sum =
    std::conditional_t<std::is_floating_point_v<T> || std::is_same_v<T, bfloat16>, double, int64_t>;

template <class T>
Sum<T> sum_run(const T* x, int64_t n) {
  Sum<T> total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += static_cast<Sum<T>>(x[i]);
  return total;
}

template <class T>
double squares_run(const T* x, int64_t n) {
  double total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return total;
}

// run(begin, end) over fixed pieces of a long range, summed in their order whatever the threads.
template <class R, class F>
R sum_pieces(int64_t n, const F& run) {
  constexpr int64_t kPiece = 1 << 15;
  const int64_t pieces = (n + kPiece - 1) / kPiece;
  std::vector<R> partial(static_cast<size_t>(pieces), R(0));
  parallel_for(pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      partial[static_cast<size_t>(p)] = run(p * kPiece, std::min(n, (p + 1) * kPiece));
  });
  R total = 0;
  for (R value : partial) total += value;
  return total;
}

template <class T>
void sum_axis(const T* x, Sum<T>* y, int64_t outer, int64_t count, int64_t inner) {
  if (inner == 1 && outer == 1) {
    *y = sum_pieces<Sum<T>>(
        count, [&](int64_t begin, int64_t end) { return sum_run(x + begin, end - begin); });
    return;
  }
  const int64_t grain = std::max<int64_t>(1, (1 << 14) / std::max<int64_t>(1, count * inner));
  if (inner == 1) {
    parallel_for(outer, grain, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) y[o] = sum_run(x + o * count, count);
    });
    return;
  }
  // Columns: threads own bands of columns, rows are added in order.
  constexpr int64_t kBand = 256;
  const int64_t bands = (inner + kBand - 1) / kBand;
  parallel_for(outer * bands, 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t o = t / bands, i0 = (t % bands) * kBand, i1 = std::min(inner, i0 + kBand);
      Sum<T>* out = y + o * inner;
      std::fill(out + i0, out + i1, Sum<T>(0));
      for (int64_t r = 0; r < count; ++r) {
        const T* row = x + (o * count + r) * inner;
#pragma omp simd
        for (int64_t i = i0; i < i1; ++i) out[i] += static_cast<Sum<T>>(row[i]);
      }
    }
  });
}

template <class T>
void max_axis(const T* x, T* value, int64_t* index, int64_t outer, int64_t count, int64_t inner) {
  const int64_t grain = std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(1, count));
  parallel_for(outer * inner, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* p = x + (t / inner) * count * inner + t % inner;
      T best = p[0];
      int64_t at = 0;
      for (int64_t r = 1; r < count && best == best; ++r) {
        const T candidate = p[r * inner];
        if (candidate > best || candidate != candidate) {
          best = candidate;
          at = r;
        }
      }
      if (value) value[t] = best;
      if (index) index[t] = at;
    }
  });
}

template <class T>
void sum_channels(const Tensor& x, double* y) {
  const T* p = x.data<T>();
  const auto sums = reduce_channels<T, 0, 1>(
      channel_view(x.shape(), x.layout()), ChannelParams<T, 0>{},
      [p](auto v, int64_t at, const auto&, auto& acc) { acc[0] += load<decltype(v)>(p + at); });
  std::copy(sums.begin(), sums.end(), y);
}

}  // namespace

void sum_axis_cpu(const Tensor& x, const Tensor& y, int64_t outer, int64_t count, int64_t inner) {
  MTCKI_DISPATCH_ALL(x.dtype(), T,
                     { sum_axis<T>(x.data<T>(), y.data<Sum<T>>(), outer, count, inner); });
}

void sum_channels_cpu(const Tensor& x, const Tensor& y) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "sum", T, { sum_channels<T>(x, y.data<double>()); });
}

void max_axis_cpu(const Tensor& x, const Tensor& value, const Tensor& index, int64_t outer,
                  int64_t count, int64_t inner) {
  MTCKI_DISPATCH_ALL(x.dtype(), T, {
    max_axis<T>(x.data<T>(), value.defined() ? value.data<T>() : nullptr,
                index.defined() ? index.data<int64_t>() : nullptr, outer, count, inner);
  });
}

double sum_of_squares_cpu(const Tensor& x) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "norm", T, {
    const T* p = x.data<T>();
    return sum_pieces<double>(
        x.numel(), [p](int64_t begin, int64_t end) { return squares_run(p + begin, end - begin); });
  });
}

void broadcast_cpu(const Tensor& x, const Tensor& y) {
  const Shape& to = y.shape();
  const int rank = to.rank(), lead = rank - x.rank();
  int64_t stride[Shape::kMaxRank] = {};
  int64_t step = 1;
  for (int i = rank - 1; i >= lead; --i) {
    stride[i] = x.size(i - lead) == 1 ? 0 : step;
    step *= x.size(i - lead);
  }
  const int64_t inner = rank ? to[-1] : 1, rows = y.numel() / inner;
  MTCKI_DISPATCH_ALL(x.dtype(), T, {
    const T* src = x.data<T>();
    T* dst = y.data<T>();
    const int64_t grain = std::max<int64_t>(1, (1 << 14) / inner);
    parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        int64_t rest = row;
        int64_t at = 0;
        for (int d = rank - 2; d >= 0; --d) {
          at += (rest % to[d]) * stride[d];
          rest /= to[d];
        }
        T* out = dst + row * inner;
        if (rank && stride[rank - 1] == 0) {
          std::fill(out, out + inner, src[at]);
        } else {
          std::copy(src + at, src + at + inner, out);
        }
      }
    });
  });
}

int64_t topk_correct_cpu(const Tensor& logits, const Tensor& labels, int k) {
  const double* x = logits.data<double>();
  const int64_t* label = labels.data<int64_t>();
  const int64_t rows = logits.size(0), classes = logits.size(1);
  int64_t correct = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double* row = x + i * classes;
    const double own = row[label[i]];
    if (std::isnan(own)) continue;
    int64_t ahead = 0;
    for (int64_t j = 0; j < classes; ++j) ahead += row[j] > own || (row[j] == own && j < label[i]);
    correct += ahead < k;
  }
  return correct;
}

}  // namespace mtcki
