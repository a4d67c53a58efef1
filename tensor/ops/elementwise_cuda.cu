#include <type_traits>

#include "tensor/cuda/launch.cuh"
#include "tensor/ops/elementwise_kernels.h"

namespace mtcki {

namespace {

using cuda::compute_t;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

// Sixteen bytes of T, moved at once.
template <class T>
struct alignas(16) Pack {
  static constexpr int count = 16 / sizeof(T);
  T v[count];
};
inline bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

template <class T, class F>
__global__ void map_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t n, F f) {
  MTCKI_GRID_LOOP(i, n) y[i] = T(f(compute_t<T>(x[i])));
}
template <class T, class F>
__global__ void map_packs_kernel(const Pack<T>* x, Pack<T>* y, int64_t packs, F f) {
  MTCKI_GRID_LOOP(i, packs) {
    Pack<T> p = x[i];
    for (int k = 0; k < Pack<T>::count; ++k) p.v[k] = T(f(compute_t<T>(p.v[k])));
    y[i] = p;
  }
}

// x and y may be the same memory.
template <class T, class F>
void map(const Tensor& x, const Tensor& y, F f) {
  const T* in = x.data<T>();
  T* out = y.data<T>();
  const int64_t n = x.numel();
  if (aligned16(in) && aligned16(out) && n % Pack<T>::count == 0) {
    const int64_t packs = n / Pack<T>::count;
    launch(map_packs_kernel<T, F>, grid_for(packs), kThreads, 0,
           reinterpret_cast<const Pack<T>*>(in), reinterpret_cast<Pack<T>*>(out), packs, f);
  } else {
    launch(map_kernel<T, F>, grid_for(n), kThreads, 0, in, out, n, f);
  }
}

// Offsets of the two operands of element i of y; one of the cases of BinaryPlan.
struct SameAt {
  MTCKI_HD int64_t a(int64_t i) const { return i; }
  MTCKI_HD int64_t b(int64_t i) const { return i; }
};
template <bool Left>
struct ScalarAt {
  MTCKI_HD int64_t a(int64_t i) const { return Left ? 0 : i; }
  MTCKI_HD int64_t b(int64_t i) const { return Left ? i : 0; }
};
template <bool Left>
struct ChannelAt {
  int64_t blocks, inner, block;
  MTCKI_HD int64_t channel(int64_t i) const {
    return i / (inner * block) % blocks * block + i % block;
  }
  MTCKI_HD int64_t a(int64_t i) const { return Left ? channel(i) : i; }
  MTCKI_HD int64_t b(int64_t i) const { return Left ? i : channel(i); }
};
struct StridedAt {
  int dims;
  int64_t size[Shape::kMaxRank], stride_a[Shape::kMaxRank], stride_b[Shape::kMaxRank];
  MTCKI_HD int64_t at(const int64_t* stride, int64_t i) const {
    int64_t offset = 0;
    for (int d = dims - 1; d >= 0; --d) {
      offset += i % size[d] * stride[d];
      i /= size[d];
    }
    return offset;
  }
  MTCKI_HD int64_t a(int64_t i) const { return at(stride_a, i); }
  MTCKI_HD int64_t b(int64_t i) const { return at(stride_b, i); }
};

template <class T, class R, class At, class F>
__global__ void zip_kernel(const T* a, const T* b, R* y, int64_t n, At at, F f) {
  MTCKI_GRID_LOOP(i, n) y[i] = R(f(compute_t<T>(a[at.a(i)]), compute_t<T>(b[at.b(i)])));
}
template <class T, class F>
__global__ void zip_packs_kernel(const Pack<T>* a, const Pack<T>* b, Pack<T>* y, int64_t packs,
                                 F f) {
  MTCKI_GRID_LOOP(i, packs) {
    const Pack<T> p = a[i], q = b[i];
    Pack<T> out;
    for (int k = 0; k < Pack<T>::count; ++k)
      out.v[k] = T(f(compute_t<T>(p.v[k]), compute_t<T>(q.v[k])));
    y[i] = out;
  }
}

// y may be a or b.
template <class T, class R, class F>
void zip_same(const T* a, const T* b, R* y, int64_t n, F f) {
  if constexpr (std::is_same_v<T, R>) {
    if (aligned16(a) && aligned16(b) && aligned16(y) && n % Pack<T>::count == 0) {
      const int64_t packs = n / Pack<T>::count;
      launch(zip_packs_kernel<T, F>, grid_for(packs), kThreads, 0,
             reinterpret_cast<const Pack<T>*>(a), reinterpret_cast<const Pack<T>*>(b),
             reinterpret_cast<Pack<T>*>(y), packs, f);
      return;
    }
  }
  launch(zip_kernel<T, R, SameAt, F>, grid_for(n), kThreads, 0, a, b, y, n, SameAt{}, f);
}

template <class T, class R, class F>
void zip(const Tensor& ta, const Tensor& tb, const Tensor& ty, const BinaryPlan& plan, F f) {
  const T *a = ta.data<T>(), *b = tb.data<T>();
  R* y = ty.data<R>();
  const int64_t n = ty.numel();
  const auto run = [&](auto at) {
    launch(zip_kernel<T, R, decltype(at), F>, grid_for(n), kThreads, 0, a, b, y, n, at, f);
  };
  const ChannelView& v = plan.view;
  using Kind = BinaryPlan::Kind;
  switch (plan.kind) {
    case Kind::same:
      return zip_same<T, R>(a, b, y, n, f);
    case Kind::a_scalar:
      return run(ScalarAt<true>{});
    case Kind::b_scalar:
      return run(ScalarAt<false>{});
    case Kind::a_channel:
      return run(ChannelAt<true>{v.blocks, v.inner, v.block});
    case Kind::b_channel:
      return run(ChannelAt<false>{v.blocks, v.inner, v.block});
    case Kind::strided: {
      StridedAt at{plan.dims, {}, {}, {}};
      for (int d = 0; d < plan.dims; ++d) {
        at.size[d] = plan.size[d];
        at.stride_a[d] = plan.stride_a[d];
        at.stride_b[d] = plan.stride_b[d];
      }
      return run(at);
    }
  }
}

template <class T>
__global__ void where_kernel(const bool* __restrict__ c, const T* __restrict__ a,
                             const T* __restrict__ b, T* __restrict__ y, int64_t n) {
  MTCKI_GRID_LOOP(i, n) y[i] = c[i] ? a[i] : b[i];
}

template <class T>
__global__ void find_not_finite_kernel(const T* __restrict__ x, int64_t n, int* found) {
  MTCKI_GRID_LOOP(i, n) {
    const compute_t<T> v = x[i];
    if (!(v - v == compute_t<T>(0))) atomicOr(found, 1);  // x - x is NaN unless x is finite
  }
}

template <class C>
struct AxpyFn {
  C alpha;
  MTCKI_HD C operator()(C dst, C src) const { return dst + alpha * src; }
};

}  // namespace

void unary_cuda(UnaryOp op, const Tensor& x, const Tensor& y, double p, double q) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "elementwise", T, {
    visit_unary<compute_t<T>>(op, p, q, [&](const auto& f) { map<T>(x, y, f); });
  });
}

void binary_cuda(BinaryOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                 const BinaryPlan& plan, double p, double q) {
  MTCKI_DISPATCH_CUDA(a.dtype(), "elementwise", T, {
    visit_binary<compute_t<T>>(op, p, q, [&](const auto& f, auto broadcasts) {
      if constexpr (decltype(broadcasts)::value) {
        zip<T, T>(a, b, y, plan, f);
      } else {
        zip_same<T, T>(a.data<T>(), b.data<T>(), y.data<T>(), y.numel(), f);
      }
    });
  });
}

void compare_cuda(CompareOp op, const Tensor& a, const Tensor& b, const Tensor& y,
                  const BinaryPlan& plan) {
  MTCKI_DISPATCH_ALL(a.dtype(), T, {
    visit_compare<compute_t<T>>(op, [&](const auto& f) { zip<T, bool>(a, b, y, plan, f); });
  });
}

void where_cuda(const Tensor& condition, const Tensor& a, const Tensor& b, const Tensor& y) {
  const int64_t n = y.numel();
  MTCKI_DISPATCH_ALL(a.dtype(), T, {
    launch(where_kernel<T>, grid_for(n), kThreads, 0, condition.data<bool>(), a.data<T>(),
           b.data<T>(), y.data<T>(), n);
  });
}

bool all_finite_cuda(const Tensor& x) {
  const Tensor found = Tensor::zeros({1}, DType::i32, x.device());
  const int64_t n = x.numel();
  MTCKI_DISPATCH_CUDA(x.dtype(), "all_finite", T, {
    launch(find_not_finite_kernel<T>, grid_for(n), kThreads, 0, x.data<T>(), n,
           found.data<int32_t>());
  });
  return found.item() == 0;
}

void axpy_cuda(const Tensor& dst, const Tensor& src, double alpha) {
  MTCKI_DISPATCH_CUDA(dst.dtype(), "add_", T, {
    using C = compute_t<T>;
    zip_same<T, T>(dst.data<T>(), src.data<T>(), dst.data<T>(), dst.numel(),
                   AxpyFn<C>{static_cast<C>(alpha)});
  });
}

void scale_cuda(const Tensor& dst, double s) {
  MTCKI_DISPATCH_CUDA(dst.dtype(), "mul_", T, {
    map<T>(dst, dst, MulScalarFn<compute_t<T>>{static_cast<compute_t<T>>(s)});
  });
}

}  // namespace mtcki
