// The kernels of softmax_kernels.h, once for both kinds of device. softmax_cpu.cpp and
// softmax_cuda.cu include this file after they have defined
//   MTCKI_ROWS_NAME(softmax)              softmax_cpu or softmax_cuda
//   MTCKI_ROWS_DISPATCH(dtype, op, T, ..)  over the dtypes of the device
//   compute_t<T>                          the type in which it computes on T
//   for_rows(rows, length, body)          body(row, threads) for each row; the threads that share a
//                                         row are those of rows.cuh, on the CPU a single one
#pragma once

#include <cmath>

#include "tensor/ops/softmax_kernels.h"

#if defined(__CUDACC__)
#define MTCKI_ROW_FUNCTION __device__
#else
#define MTCKI_ROW_FUNCTION
#endif

namespace mtcki {

namespace {

// Of a row x of logits at temperature t: log softmax = (x - most)/t - log_sum().
template <class T>
struct Normaliser {
  using C = compute_t<T>;
  C most, sum, t;

  template <class Threads>
  MTCKI_ROW_FUNCTION Normaliser(const Threads& th, const T* x, int64_t n, C temperature)
      : t(temperature) {
    most = -C(INFINITY);
    for (int64_t j = th.index(); j < n; j += th.count()) most = C(x[j]) > most ? C(x[j]) : most;
    most = th.largest(most);
    sum = 0;
    for (int64_t j = th.index(); j < n; j += th.count()) sum += std::exp((C(x[j]) - most) / t);
    sum = th.sum(sum);
  }
  MTCKI_ROW_FUNCTION C probability(T x) const { return std::exp((C(x) - most) / t) / sum; }
  MTCKI_ROW_FUNCTION C log_sum() const { return std::log(sum); }
  MTCKI_ROW_FUNCTION C scaled(T x) const { return (C(x) - most) / t; }
};

template <class T>
struct Softmax {
  using C = compute_t<T>;
  const T* x;
  T* y;
  int64_t n;
  bool logarithm;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * n;
    T* out = y + row * n;
    const Normaliser<T> p(th, in, n, C(1));
    const C shift = p.log_sum();
    for (int64_t j = th.index(); j < n; j += th.count())
      out[j] = T(logarithm ? p.scaled(in[j]) - shift : p.probability(in[j]));
  }
};

template <class T>
struct SoftmaxGrad {
  using C = compute_t<T>;
  const T *gy, *y;
  T* gx;
  int64_t n;
  bool logarithm;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *g = gy + row * n, *p = y + row * n;
    T* out = gx + row * n;
    C dot = 0;
    if (logarithm) {
      for (int64_t j = th.index(); j < n; j += th.count()) dot += C(g[j]);
      dot = th.sum(dot);
      for (int64_t j = th.index(); j < n; j += th.count())
        out[j] = T(C(g[j]) - std::exp(C(p[j])) * dot);
    } else {
      for (int64_t j = th.index(); j < n; j += th.count()) dot += C(g[j]) * C(p[j]);
      dot = th.sum(dot);
      for (int64_t j = th.index(); j < n; j += th.count()) out[j] = T(C(p[j]) * (C(g[j]) - dot));
    }
  }
};

template <class T>
struct CrossEntropy {
  using C = compute_t<T>;
  const T* x;
  const int64_t* label;
  double smoothing;
  T* loss;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * n;
    const Normaliser<T> p(th, in, n, C(1));
    const C shift = p.log_sum();
    double sum = 0;  // of -log p over the classes
    if (smoothing > 0) {
      for (int64_t j = th.index(); j < n; j += th.count())
        sum -= static_cast<double>(p.scaled(in[j]) - shift);
      sum = th.sum(sum);
    }
    if (th.index() != 0) return;
    const int64_t k = label[row];
    if (k < 0 || k >= n) {
      loss[row] = T(C(NAN));
      return;
    }
    const double hit = static_cast<double>(p.scaled(in[k]) - shift);
    const double value =
        smoothing > 0 ? -(1 - smoothing) * hit + smoothing * sum / static_cast<double>(n) : -hit;
    loss[row] = T(static_cast<C>(value));
  }
};

template <class T>
struct CrossEntropyGrad {
  using C = compute_t<T>;
  const T *g, *x;
  const int64_t* label;
  C off, hit;  // e/n, 1 - e
  T* gx;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * n;
    T* out = gx + row * n;
    const Normaliser<T> p(th, in, n, C(1));
    const int64_t k = label[row];
    const C weight = k >= 0 && k < n ? C(g[row]) : C(NAN);
    for (int64_t j = th.index(); j < n; j += th.count()) {
      C slope = weight * (p.probability(in[j]) - off);
      if (j == k) slope -= weight * hit;
      out[j] = T(slope);
    }
  }
};

// sum_j exp(a_j)(a_j - b_j) for the log probabilities of two rows; a probability of zero counts
// nothing.
template <class T, class Threads>
MTCKI_ROW_FUNCTION compute_t<T> kl(const Threads& th, const T* p, const Normaliser<T>& np,
                                   const T* q, const Normaliser<T>& nq, int64_t n) {
  using C = compute_t<T>;
  const C shift_p = np.log_sum(), shift_q = nq.log_sum();
  C sum = 0;
  for (int64_t j = th.index(); j < n; j += th.count()) {
    const C a = np.scaled(p[j]) - shift_p, b = nq.scaled(q[j]) - shift_q, prob = std::exp(a);
    if (prob != C(0)) sum += prob * (a - b);
  }
  return th.sum(sum);
}

// log((p + 1e-8)/(m + 1e-8)).
template <class C>
MTCKI_ROW_FUNCTION C log_ratio(C p, C m) {
  return std::log(p + C(1e-8)) - std::log(m + C(1e-8));
}

template <class T>
struct DivergenceRow {
  using C = compute_t<T>;
  Divergence kind;
  const T *p, *q;
  C t;
  T* loss;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *a = p + row * n, *b = q + row * n;
    const Normaliser<T> na(th, a, n, t), nb(th, b, n, t);
    C value = 0;
    if (kind == Divergence::kl) {
      value = kl(th, a, na, b, nb, n);
    } else {
      C of_p = 0, of_q = 0;
      for (int64_t j = th.index(); j < n; j += th.count()) {
        const C pa = na.probability(a[j]), pb = nb.probability(b[j]), m = (pa + pb) / 2;
        of_p += pa * log_ratio(pa, m);
        of_q += pb * log_ratio(pb, m);
      }
      value = (th.sum(of_p) + th.sum(of_q)) / 2;
    }
    if (th.index() == 0) loss[row] = T(value);
  }
};

// KL with respect to q: g/t (Q - P).
template <class T>
struct KlGradQ {
  using C = compute_t<T>;
  const T *g, *p, *q;
  C t;
  T* gx;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *a = p + row * n, *b = q + row * n;
    const Normaliser<T> na(th, a, n, t), nb(th, b, n, t);
    const C weight = C(g[row]) / t;
    for (int64_t j = th.index(); j < n; j += th.count())
      gx[row * n + j] = T(weight * (nb.probability(b[j]) - na.probability(a[j])));
  }
};

// KL with respect to p: g/t P (log P - log Q - KL).
template <class T>
struct KlGradP {
  using C = compute_t<T>;
  const T *g, *p, *q;
  C t;
  T* gx;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *a = p + row * n, *b = q + row * n;
    const Normaliser<T> na(th, a, n, t), nb(th, b, n, t);
    const C value = kl(th, a, na, b, nb, n), weight = C(g[row]) / t;
    const C shift_a = na.log_sum(), shift_b = nb.log_sum();
    for (int64_t j = th.index(); j < n; j += th.count()) {
      const C la = na.scaled(a[j]) - shift_a, lb = nb.scaled(b[j]) - shift_b, prob = std::exp(la);
      gx[row * n + j] = T(prob == C(0) ? C(0) : weight * prob * (la - lb - value));
    }
  }
};

// JS with respect to the logits of `own`: exact for the function with its 1e-8.
template <class T>
struct JsGrad {
  using C = compute_t<T>;
  const T *g, *own, *other;
  C t;
  T* gx;
  int64_t n;
  MTCKI_ROW_FUNCTION static C slope(C a, C b) {  // d JS / d a, but for a factor
    const C m = (a + b) / 2, e = C(1e-8);
    return log_ratio(a, m) + a / (a + e) - m / (m + e);
  }
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *x = own + row * n, *z = other + row * n;
    const Normaliser<T> na(th, x, n, t), nb(th, z, n, t);
    C dot = 0;
    for (int64_t j = th.index(); j < n; j += th.count()) {
      const C a = na.probability(x[j]);
      dot += a * slope(a, nb.probability(z[j]));
    }
    dot = th.sum(dot);
    const C weight = C(g[row]) / (2 * t);
    for (int64_t j = th.index(); j < n; j += th.count()) {
      const C a = na.probability(x[j]);
      gx[row * n + j] = T(weight * a * (slope(a, nb.probability(z[j])) - dot));
    }
  }
};

template <class T, class Threads>
MTCKI_ROW_FUNCTION compute_t<T> length(const Threads& th, const T* x, int64_t n) {
  double sum = 0;
  for (int64_t j = th.index(); j < n; j += th.count()) {
    const double v = static_cast<double>(compute_t<T>(x[j]));
    sum += v * v;
  }
  return static_cast<compute_t<T>>(std::sqrt(th.sum(sum)));
}

template <class T>
struct Normalize {
  using C = compute_t<T>;
  const T* x;
  T* y;
  C eps;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T* in = x + row * n;
    const C d = length(th, in, n), by = d < eps ? eps : d;
    for (int64_t j = th.index(); j < n; j += th.count()) y[row * n + j] = T(C(in[j]) / by);
  }
};

template <class T>
struct NormalizeGrad {
  using C = compute_t<T>;
  const T *gy, *x;
  T* gx;
  C eps;
  int64_t n;
  template <class Threads>
  MTCKI_ROW_FUNCTION void operator()(int64_t row, const Threads& th) const {
    const T *g = gy + row * n, *in = x + row * n;
    const C d = length(th, in, n);
    double dot = 0;
    for (int64_t j = th.index(); j < n; j += th.count())
      dot += static_cast<double>(C(in[j])) * static_cast<double>(C(g[j]));
    dot = th.sum(dot);
    const C s =
        d < eps ? C(0) : static_cast<C>(dot / (static_cast<double>(d) * static_cast<double>(d)));
    const C by = d < eps ? eps : d;
    for (int64_t j = th.index(); j < n; j += th.count())
      gx[row * n + j] = T((C(g[j]) - C(in[j]) * s) / by);
  }
};

int64_t classes_of(const Tensor& x) { return x.size(-1); }
int64_t rows_of(const Tensor& x) { return x.numel() / x.size(-1); }

}  // namespace

void MTCKI_ROWS_NAME(softmax)(const Tensor& x, const Tensor& y, bool logarithm) {
  const int64_t n = classes_of(x);
  MTCKI_ROWS_DISPATCH(x.dtype(), "softmax", T, {
    for_rows(rows_of(x), n, Softmax<T>{x.data<T>(), y.data<T>(), n, logarithm});
  });
}

void MTCKI_ROWS_NAME(softmax_grad)(const Tensor& gy, const Tensor& y, const Tensor& gx,
                                   bool logarithm) {
  const int64_t n = classes_of(y);
  MTCKI_ROWS_DISPATCH(y.dtype(), "softmax_grad", T, {
    for_rows(rows_of(y), n, SoftmaxGrad<T>{gy.data<T>(), y.data<T>(), gx.data<T>(), n, logarithm});
  });
}

void MTCKI_ROWS_NAME(cross_entropy)(const Tensor& logits, const Tensor& labels, double smoothing,
                                    const Tensor& loss) {
  const int64_t n = classes_of(logits);
  MTCKI_ROWS_DISPATCH(logits.dtype(), "cross_entropy_rows", T, {
    for_rows(
        rows_of(logits), n,
        CrossEntropy<T>{logits.data<T>(), labels.data<int64_t>(), smoothing, loss.data<T>(), n});
  });
}

void MTCKI_ROWS_NAME(cross_entropy_grad)(const Tensor& g, const Tensor& logits,
                                         const Tensor& labels, double smoothing, const Tensor& gx) {
  const int64_t n = classes_of(logits);
  MTCKI_ROWS_DISPATCH(logits.dtype(), "cross_entropy_rows_grad", T, {
    using C = compute_t<T>;
    const C off = static_cast<C>(smoothing / static_cast<double>(n));
    const C hit = static_cast<C>(1 - smoothing);
    for_rows(rows_of(logits), n,
             CrossEntropyGrad<T>{g.data<T>(), logits.data<T>(), labels.data<int64_t>(), off, hit,
                                 gx.data<T>(), n});
  });
}

void MTCKI_ROWS_NAME(divergence)(Divergence kind, const Tensor& p, const Tensor& q,
                                 double temperature, const Tensor& loss) {
  const int64_t n = classes_of(p);
  MTCKI_ROWS_DISPATCH(p.dtype(), "divergence", T, {
    for_rows(rows_of(p), n,
             DivergenceRow<T>{kind, p.data<T>(), q.data<T>(),
                              static_cast<compute_t<T>>(temperature), loss.data<T>(), n});
  });
}

void MTCKI_ROWS_NAME(divergence_grad)(Divergence kind, Side side, const Tensor& g, const Tensor& p,
                                      const Tensor& q, double temperature, const Tensor& gx) {
  const int64_t n = classes_of(p), rows = rows_of(p);
  MTCKI_ROWS_DISPATCH(p.dtype(), "divergence_grad", T, {
    const auto t = static_cast<compute_t<T>>(temperature);
    const T* a = p.data<T>();
    const T* b = q.data<T>();
    if (kind == Divergence::js) {
      const bool of_p = side == Side::p;
      for_rows(rows, n, JsGrad<T>{g.data<T>(), of_p ? a : b, of_p ? b : a, t, gx.data<T>(), n});
    } else if (side == Side::q) {
      for_rows(rows, n, KlGradQ<T>{g.data<T>(), a, b, t, gx.data<T>(), n});
    } else {
      for_rows(rows, n, KlGradP<T>{g.data<T>(), a, b, t, gx.data<T>(), n});
    }
  });
}

void MTCKI_ROWS_NAME(normalize)(const Tensor& x, const Tensor& y, double eps) {
  const int64_t n = classes_of(x);
  MTCKI_ROWS_DISPATCH(x.dtype(), "normalize", T, {
    for_rows(rows_of(x), n,
             Normalize<T>{x.data<T>(), y.data<T>(), static_cast<compute_t<T>>(eps), n});
  });
}

void MTCKI_ROWS_NAME(normalize_grad)(const Tensor& gy, const Tensor& x, const Tensor& gx,
                                     double eps) {
  const int64_t n = classes_of(x);
  MTCKI_ROWS_DISPATCH(x.dtype(), "normalize_grad", T, {
    for_rows(rows_of(x), n,
             NormalizeGrad<T>{gy.data<T>(), x.data<T>(), gx.data<T>(),
                              static_cast<compute_t<T>>(eps), n});
  });
}

}  // namespace mtcki
