#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "tensor/kernels/channel_walk.h"
#include "tensor/kernels/walk.h"
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
      [p](auto v, int64_t at, const auto&, auto& acc) { acc[0] += load_as<decltype(v)>(p + at); });
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

namespace {

// out[i] = from[i * step].
template <class T>
void spread_line(const T* from, int64_t step, T* out, int64_t n) {
  if (step == 0) {
    std::fill(out, out + n, *from);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = from[i * step];
  }
}

// out in the order of the walk.
template <class T>
void spread(const T* from, const Walk& walk, T* out) {
  constexpr int64_t kGrain = 1 << 14;
  const int last = walk.dims - 1;
  if (last <= 0) {
    const int64_t step = last < 0 ? 0 : walk.stride[0];
    parallel_for(walk.count, kGrain, [&](int64_t begin, int64_t end) {
      spread_line(from + begin * step, step, out + begin, end - begin);
    });
    return;
  }
  const int64_t line = walk.size[last], step = walk.stride[last];
  const int64_t lines = walk.size[last - 1], between = walk.stride[last - 1];
  Walk outer;
  for (int d = 0; d < last - 1; ++d) outer.add(walk.size[d], walk.stride[d]);
  parallel_for(outer.count * lines, std::max<int64_t>(1, kGrain / line),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end;) {
                   const T* start = from + outer.offset(i / lines);
                   const int64_t stop = std::min(end, (i / lines + 1) * lines);
                   for (int64_t j = i % lines; i < stop; ++i, ++j)
                     spread_line(start + j * between, step, out + i * line, line);
                 }
               });
}

}  // namespace

void broadcast_cpu(const Tensor& x, const Tensor& y) {
  const Strides from(x.shape(), x.layout());
  const int rank = y.rank(), lead = rank - x.rank();
  Walk walk;
  const auto add = [&](int d, int64_t n, int64_t scale) {
    walk.add(n, d < lead || x.size(d - lead) == 1 ? 0 : scale * from.of[d - lead]);
  };
  const bool blocked = y.layout() == Layout::blocked;
  for (int i = 0; i < rank; ++i) {
    const int d = memory_dim(y.layout(), i);
    blocked&& d == 1 ? add(d, y.size(d) / kChannelBlock, kChannelBlock) : add(d, y.size(d), 1);
  }
  if (blocked) add(1, kChannelBlock, 1);
  if (walk.count == 0) return;
  MTCKI_DISPATCH_ALL(x.dtype(), T, { spread(x.data<T>(), walk, y.data<T>()); });
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
