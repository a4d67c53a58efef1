// Sums run in f64 (integers: i64) in two stages of fixed order: every slice of the terms by itself,
// then the slices. How many slices there are depends on the shape alone.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tensor/kernels/functors.h"
#include "tensor/ops/reduce_kernels.h"
#include "tensor/kernels/rows.cuh"

namespace mtcki {

namespace {

using cuda::for_rows;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

template <class T>
constexpr bool kFloating = std::is_floating_point_v<T> || std::is_same_v<T, bfloat16>;
template <class T>
using Sum = std::conditional_t<kFloating<T>, double, int64_t>;

template <class T>
__device__ Sum<T> term(T x, bool square) {
  const auto v = static_cast<Sum<T>>(x);
  return square ? v * v : v;
}

// Terms begin, begin + step, ... below end of the walk from `in`.
template <class T>
__device__ Sum<T> sum_terms(const T* in, const Walk& walk, int64_t begin, int64_t end, int64_t step,
                            bool square) {
  Sum<T> total = 0;
  if (walk.dims > 1) {
    for (int64_t r = begin; r < end; r += step) total += term(in[walk.offset(r)], square);
    return total;
  }
  const int64_t stride = walk.stride[0];  // no divisions, and loads that run ahead of the sum
#if defined(__CUDA_ARCH__)
#pragma unroll 4
#endif
  for (int64_t r = begin; r < end; r += step) total += term(in[r * stride], square);
  return total;
}

// What becomes of a complete sum: y[k], or, where sums are of slices, partial[slice][k].
template <class T>
struct Finish {
  using Out = std::conditional_t<kFloating<T>, T, int64_t>;
  Out* y;
  Sum<T>* partial;
  SumKind kind;
  double scale;
  int64_t outputs;
  __device__ void final(int64_t k, Sum<T> total) const {
    if constexpr (kFloating<T>) {
      y[k] = Convert<T, double>()(kind == SumKind::norm ? std::sqrt(total) : total * scale);
    } else {
      y[k] = total;
    }
  }
  __device__ void operator()(int64_t k, int64_t slice, Sum<T> total) const {
    if (partial)
      partial[slice * outputs + k] = total;
    else
      final(k, total);
  }
};

// Neighbouring threads take neighbouring terms of one output.
template <class T>
struct SumRow {
  const T* x;
  Walk kept, reduced;
  int64_t slices, per_slice;
  Finish<T> finish;
  template <class Threads>
  __device__ void operator()(int64_t row, const Threads& th) const {
    const int64_t k = row / slices, slice = row % slices, begin = slice * per_slice;
    const int64_t end = begin + per_slice < reduced.count ? begin + per_slice : reduced.count;
    const Sum<T> total = th.sum(sum_terms(x + kept.offset(k), reduced, begin + th.index(), end,
                                          th.count(), finish.kind == SumKind::norm));
    if (th.index() == 0) finish(k, slice, total);
  }
};

// Neighbouring threads take neighbouring outputs: kColumns of them by kStrips strips of terms.
constexpr int kColumns = 32, kStrips = 8;
template <class T>
__global__ void sum_columns_kernel(const T* __restrict__ x, Walk kept, Walk reduced,
                                   int64_t per_slice, Finish<T> finish) {
  __shared__ Sum<T> strip[kStrips][kColumns];
  const int64_t k = int64_t{blockIdx.x} * kColumns + threadIdx.x, slice = blockIdx.y;
  const int64_t begin = slice * per_slice;
  const int64_t end = begin + per_slice < reduced.count ? begin + per_slice : reduced.count;
  Sum<T> total = 0;
  if (k < kept.count)
    total = sum_terms(x + kept.offset(k), reduced, begin + threadIdx.y, end, kStrips,
                      finish.kind == SumKind::norm);
  strip[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || k >= kept.count) return;
  for (int s = 1; s < kStrips; ++s) total += strip[s][threadIdx.x];
  finish(k, slice, total);
}

template <class T>
struct SumSlices {
  int64_t slices;
  Finish<T> finish;
  template <class Threads>
  __device__ void operator()(int64_t k, const Threads& th) const {
    Sum<T> total = 0;
    for (int64_t s = th.index(); s < slices; s += th.count())
      total += finish.partial[s * finish.outputs + k];
    total = th.sum(total);
    if (th.index() == 0) finish.final(k, total);
  }
};

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
void sum(const Tensor& x, const Tensor& y, const SumPlan& plan, SumKind kind, double scale) {
  constexpr int64_t kGroups = 512;  // warps or blocks that keep a device busy
  const int64_t outputs = plan.kept.count, terms = plan.reduced.count;
  const int64_t groups = plan.by_rows ? outputs : divided_up(outputs, kColumns);
  const int64_t shortest = plan.by_rows ? 8192 : 256;  // terms that are worth a slice
  const int64_t wanted = std::min(terms / shortest, kGroups / groups);
  const int64_t per_slice = divided_up(std::max<int64_t>(terms, 1), std::max<int64_t>(wanted, 1));
  const int64_t slices = divided_up(std::max<int64_t>(terms, 1), per_slice);
  Finish<T> finish{y.data<typename Finish<T>::Out>(), nullptr, kind, scale, outputs};
  Tensor partial;
  if (slices > 1) {
    partial = Tensor::empty({slices, outputs}, kFloating<T> ? DType::f64 : DType::i64, x.device());
    finish.partial = partial.data<Sum<T>>();
  }
  const T* in = x.data<T>();
  if (plan.by_rows) {
    for_rows(outputs * slices, per_slice,
             SumRow<T>{in, plan.kept, plan.reduced, slices, per_slice, finish});
  } else {
    launch(sum_columns_kernel<T>,
           dim3(static_cast<unsigned>(groups), static_cast<unsigned>(slices)),
           dim3(kColumns, kStrips), 0, in, plan.kept, plan.reduced, per_slice, finish);
  }
  if (slices > 1) for_rows(outputs, slices, SumSlices<T>{slices, finish});
}

// The order of max_axis: NaN before everything, then the larger, then the smaller index.
template <class V>
struct Candidate {
  V value;
  int64_t index;
};
template <class V>
__device__ bool ahead(Candidate<V> a, Candidate<V> b) {
  const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
  if (nan_a != nan_b) return nan_a;
  if (!nan_a && a.value != b.value) return a.value > b.value;
  return a.index < b.index;
}

template <class T>
using MaxOf = std::conditional_t<kFloating<T>, cuda::compute_t<T>, int64_t>;

template <class T>
struct MaxRow {
  using V = MaxOf<T>;
  const T* x;
  T* value;
  int64_t* index;
  int64_t count;
  template <class Threads>
  __device__ void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * count;
    const int64_t own = th.index() < count ? th.index() : count - 1;
    Candidate<V> best{static_cast<V>(in[own]), own};
    for (int64_t j = own + th.count(); j < count; j += th.count()) {
      const Candidate<V> c{static_cast<V>(in[j]), j};
      if (ahead(c, best)) best = c;
    }
    // The value first, then the smallest index that holds it: both are single words.
    const V most = th.all(best.value, [](V a, V b) {
      return ahead(Candidate<V>{a, 0}, Candidate<V>{b, 0}) ? a : b;
    });
    const bool holds = best.value == most || (most != most && best.value != best.value);
    const int64_t at =
        th.all(holds ? best.index : count, [](int64_t a, int64_t b) { return a < b ? a : b; });
    if (th.index() != 0) return;
    if (value) value[row] = in[at];
    if (index) index[row] = at;
  }
};

template <class T>
__global__ void max_columns_kernel(const T* __restrict__ x, T* value, int64_t* index, int64_t count,
                                   int64_t inner, int64_t outputs) {
  using V = MaxOf<T>;
  MTCKI_GRID_LOOP(k, outputs) {
    const T* in = x + k / inner * count * inner + k % inner;
    Candidate<V> best{static_cast<V>(in[0]), 0};
    for (int64_t r = 1; r < count; ++r) {
      const Candidate<V> c{static_cast<V>(in[r * inner]), r};
      if (ahead(c, best)) best = c;
    }
    if (value) value[k] = in[best.index * inner];
    if (index) index[k] = best.index;
  }
}

template <class T>
__global__ void broadcast_kernel(const T* __restrict__ x, T* __restrict__ y, Walk walk) {
  MTCKI_GRID_LOOP(i, walk.count) y[i] = x[walk.offset(i)];
}

// Whole numbers may be added in any order.
template <class T>
struct TopkRow {
  using C = cuda::compute_t<T>;
  const T* x;
  const int64_t* label;
  unsigned long long* correct;
  int64_t classes, k;
  template <class Threads>
  __device__ void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * classes;
    const int64_t own = label[row];
    const bool known = own >= 0 && own < classes;
    const C score = known ? C(in[own]) : C(0);
    int64_t before = 0;
    for (int64_t j = th.index(); j < classes; j += th.count())
      before += C(in[j]) > score || (C(in[j]) == score && j < own);
    before = th.sum(before);
    if (th.index() == 0 && known && score == score && before < k) atomicAdd(correct, 1ULL);
  }
};

}  // namespace

void sum_cuda(const Tensor& x, const Tensor& y, const SumPlan& plan, SumKind kind, double scale) {
  if (y.numel() == 0) return;
  MTCKI_DISPATCH_ALL(x.dtype(), T, { sum<T>(x, y, plan, kind, scale); });
}

void max_axis_cuda(const Tensor& x, const Tensor& value, const Tensor& index, int64_t outer,
                   int64_t count, int64_t inner) {
  MTCKI_DISPATCH_ALL(x.dtype(), T, {
    T* v = value.defined() ? value.data<T>() : nullptr;
    int64_t* at = index.defined() ? index.data<int64_t>() : nullptr;
    const T* in = x.data<T>();
    if (inner == 1) {
      for_rows(outer, count, MaxRow<T>{in, v, at, count});
    } else {
      launch(max_columns_kernel<T>, grid_for(outer * inner), kThreads, 0, in, v, at, count, inner,
             outer * inner);
    }
  });
}

void broadcast_cuda(const Tensor& x, const Tensor& y) {
  const Strides from(x.shape(), x.layout());
  const int rank = y.rank(), lead = rank - x.rank();
  Walk walk;
  for (int i = 0; i < rank; ++i) {
    const int d = memory_dim(y.layout(), i), own = d - lead;
    walk.add(y.size(d), own < 0 || x.size(own) == 1 ? 0 : from.of[own]);
  }
  MTCKI_DISPATCH_ALL(x.dtype(), T, {
    launch(broadcast_kernel<T>, grid_for(walk.count), kThreads, 0, x.data<T>(), y.data<T>(), walk);
  });
}

void topk_correct_cuda(const Tensor& logits, const Tensor& labels, int k, const Tensor& correct) {
  const int64_t classes = logits.size(1);
  MTCKI_DISPATCH_CUDA(logits.dtype(), "topk_correct", T, {
    for_rows(
        logits.size(0), classes,
        TopkRow<T>{logits.data<T>(), labels.data<int64_t>(),
                   reinterpret_cast<unsigned long long*>(correct.data<int64_t>()), classes, k});
  });
}

}  // namespace mtcki
