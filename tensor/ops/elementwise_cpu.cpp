#include <atomic>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "tensor/ops/elementwise_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

constexpr int64_t kGrain = 1 << 15;

template <class T, class F>
void map(const Tensor& x, const Tensor& y, const F& f) {
  const T* in = x.data<T>();
  T* out = y.data<T>();
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = f(in[i]);
  });
}

// y = f(x, p[channel]) over the channel view of x.
template <class T, class R, class F>
void map_channels(const T* x, const T* p, R* y, const ChannelView& v, const F& f) {
  const int64_t segment = v.inner * v.block;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, segment));
  parallel_for(v.outer * v.blocks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* channel = p + (t % v.blocks) * v.block;
      const T* in = x + t * segment;
      R* out = y + t * segment;
      if (v.block == 1) {
        const T value = *channel;
#pragma omp simd
        for (int64_t i = 0; i < v.inner; ++i) out[i] = f(in[i], value);
      } else if (v.block == kChannelBlock) {
        for (int64_t i = 0; i < v.inner; ++i) {
#pragma omp simd
          for (int64_t b = 0; b < kChannelBlock; ++b)
            out[i * kChannelBlock + b] = f(in[i * kChannelBlock + b], channel[b]);
        }
      } else {
        for (int64_t i = 0; i < v.inner; ++i) {
#pragma omp simd
          for (int64_t b = 0; b < v.block; ++b)
            out[i * v.block + b] = f(in[i * v.block + b], channel[b]);
        }
      }
    }
  });
}

template <class T, class R, class F>
void map_strided(const T* a, const T* b, R* y, const BinaryPlan& plan, const F& f) {
  const int last = plan.dims - 1;
  const int64_t inner = plan.size[last], sa = plan.stride_a[last], sb = plan.stride_b[last];
  int64_t rows = 1;
  for (int d = 0; d < last; ++d) rows *= plan.size[d];
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, inner));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t rest = row, at_a = 0, at_b = 0;
      for (int d = last - 1; d >= 0; --d) {
        const int64_t i = rest % plan.size[d];
        rest /= plan.size[d];
        at_a += i * plan.stride_a[d];
        at_b += i * plan.stride_b[d];
      }
      R* out = y + row * inner;
      for (int64_t i = 0; i < inner; ++i) out[i] = f(a[at_a + i * sa], b[at_b + i * sb]);
    }
  });
}

// Gradients: equal shapes only.
template <class T, class F>
void zip_same(const Tensor& ta, const Tensor& tb, const Tensor& ty, const F& f) {
  const T *a = ta.data<T>(), *b = tb.data<T>();
  T* y = ty.data<T>();
  parallel_for(ty.numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = f(a[i], b[i]);
  });
}

template <class T, class R, class F>
void zip(const Tensor& ta, const Tensor& tb, const Tensor& ty, const BinaryPlan& plan, const F& f) {
  const T *a = ta.data<T>(), *b = tb.data<T>();
  R* y = ty.data<R>();
  const auto swapped = [&f](T p, T q) { return f(q, p); };
  using Kind = BinaryPlan::Kind;
  switch (plan.kind) {
    case Kind::same:
      parallel_for(ty.numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) y[i] = f(a[i], b[i]);
      });
      break;
    case Kind::a_scalar:
    case Kind::b_scalar: {
      const bool left = plan.kind == Kind::a_scalar;
      const ChannelView flat{1, 1, ty.numel(), 1};
      left ? map_channels(b, a, y, flat, swapped) : map_channels(a, b, y, flat, f);
      break;
    }
    case Kind::a_channel:
      map_channels(b, a, y, plan.view, swapped);
      break;
    case Kind::b_channel:
      map_channels(a, b, y, plan.view, f);
      break;
    case Kind::strided:
      map_strided(a, b, y, plan, f);
      break;
  }
}

template <class T>
bool finite_range(const T* p, int64_t n) {
  std::atomic<bool> finite{true};
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    // x - x is 0 for every finite x, and NaN otherwise.
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = begin; i < end; ++i) bad |= !(p[i] - p[i] == T(0));
    if (bad) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

// As bfloat16(float), without a branch, so that loops over it vectorise.
bfloat16 rounded(float value) {
  uint32_t u;
  std::memcpy(&u, &value, 4);
  const uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  bfloat16 out;
  out.bits = static_cast<uint16_t>(value == value ? nearest : (u >> 16) | 0x40u);
  return out;
}
template <class T, class C>
T stored(C value) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return rounded(value);
  } else {
    return value;
  }
}

// T: float, double, bfloat16; bf16 sums in f32 and rounds once.
template <class T>
void axpy(double alpha, const T* src, T* dst, int64_t n) {
  using C = std::conditional_t<std::is_same_v<T, bfloat16>, float, T>;
  const C a = static_cast<C>(alpha);
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i)
      dst[i] = stored<T>(static_cast<C>(dst[i]) + a * static_cast<C>(src[i]));
  });
}

// bf16 operands of one shape, f in f32: no f32 copies of them.
template <class F>
void zip_bf16(const Tensor& ta, const Tensor& tb, const Tensor& ty, const F& f) {
  const bfloat16 *a = ta.data<bfloat16>(), *b = tb.data<bfloat16>();
  bfloat16* y = ty.data<bfloat16>();
  parallel_for(ty.numel(), kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i)
      y[i] = rounded(f(static_cast<float>(a[i]), static_cast<float>(b[i])));
  });
}

}  // namespace

void unary_cpu(UnaryOp op, const Tensor& x, const Tensor& y, double p, double q) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "elementwise", T,
                       { visit_unary<T>(op, p, q, [&](const auto& f) { map<T>(x, y, f); }); });
}

void binary_cpu(BinaryOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                const BinaryPlan& plan, double p, double q) {
  if (a.dtype() == DType::bf16)
    return visit_binary<float>(op, p, q, [&](const auto& f, auto) { zip_bf16(a, b, y, f); });
  MTCKI_DISPATCH_FLOAT(a.dtype(), "elementwise", T, {
    visit_binary<T>(op, p, q, [&](const auto& f, auto broadcasts) {
      if constexpr (broadcasts) {
        zip<T, T>(a, b, y, plan, f);
      } else {
        zip_same<T>(a, b, y, f);
      }
    });
  });
}

void compare_cpu(CompareOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                 const BinaryPlan& plan) {
  MTCKI_DISPATCH_ALL(a.dtype(), T, {
    visit_compare<T>(op, [&](const auto& f) { zip<T, bool>(a, b, y, plan, f); });
  });
}

void where_cpu(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y) {
  const bool* c = condition.data<bool>();
  MTCKI_DISPATCH_ALL(a.dtype(), T, {
    const T* pa = a.data<T>();
    const T* pb = b.data<T>();
    T* out = y.data<T>();
    parallel_for(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = c[i] ? pa[i] : pb[i];
    });
  });
}

bool all_finite_cpu(const Tensor& x) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "all_finite", T,
                       { return finite_range(x.data<T>(), x.numel()); });
}

bool allclose_cpu(const Tensor& a, const Tensor& b, double rtol, double atol) {
  const double *pa = a.data<double>(), *pb = b.data<double>();
  for (int64_t i = 0; i < a.numel(); ++i) {
    if (pa[i] == pb[i]) continue;  // equal infinities too
    if (!(std::fabs(pa[i] - pb[i]) <= atol + rtol * std::fabs(pb[i])) || std::isinf(pb[i]))
      return false;
  }
  return true;
}

void axpy_cpu(const Tensor& dst, const Tensor& src, double alpha) {
  if (dst.dtype() == DType::bf16)
    return axpy(alpha, src.data<bfloat16>(), dst.data<bfloat16>(), dst.numel());
  MTCKI_DISPATCH_FLOAT(dst.dtype(), "add_", T,
                       { axpy(alpha, src.data<T>(), dst.data<T>(), dst.numel()); });
}

void scale_cpu(const Tensor& dst, double s) {
  MTCKI_DISPATCH_FLOAT(dst.dtype(), "mul_", T,
                       { map<T>(dst, dst, MulScalarFn<T>{static_cast<T>(s)}); });
}

}  // namespace mtcki
