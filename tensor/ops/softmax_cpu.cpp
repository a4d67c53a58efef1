#include <algorithm>
#include <cmath>
#include <vector>

#include "tensor/ops/softmax_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// f(row, scratch): scratch holds `buffers` rows of `classes` values, one set per thread chunk.
template <class T, class F>
void for_rows(int64_t rows, int64_t classes, int64_t buffers, const F& f) {
  const int64_t grain = std::max<int64_t>(1, 4096 / std::max<int64_t>(1, classes));
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> scratch(static_cast<size_t>(buffers * classes));
    for (int64_t i = begin; i < end; ++i) f(i, scratch.data());
  });
}

// out = log softmax(x/t)
template <class T>
void log_probabilities(const T* x, int64_t n, T t, T* out) {
  const T most = *std::max_element(x, x + n);
  T sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    out[j] = (x[j] - most) / t;
    sum += std::exp(out[j]);
  }
  const T lse = std::log(sum);
  for (int64_t j = 0; j < n; ++j) out[j] -= lse;
}

// out = softmax(x/t), without the rounding of a logarithm in between.
template <class T>
void probabilities(const T* x, int64_t n, T t, T* out) {
  const T most = *std::max_element(x, x + n);
  T sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    out[j] = std::exp((x[j] - most) / t);
    sum += out[j];
  }
  for (int64_t j = 0; j < n; ++j) out[j] /= sum;
}

template <class T>
void softmax(const T* x, T* y, int64_t rows, int64_t n, bool logarithm) {
  for_rows<T>(rows, n, 0, [&](int64_t i, T*) {
    if (logarithm) {
      log_probabilities(x + i * n, n, T(1), y + i * n);
    } else {
      probabilities(x + i * n, n, T(1), y + i * n);
    }
  });
}

template <class T>
void softmax_grad(const T* gy, const T* y, T* gx, int64_t rows, int64_t n, bool logarithm) {
  for_rows<T>(rows, n, 0, [&](int64_t i, T*) {
    const T *g = gy + i * n, *p = y + i * n;
    T* out = gx + i * n;
    T dot = 0;
    if (logarithm) {
      for (int64_t j = 0; j < n; ++j) dot += g[j];
      for (int64_t j = 0; j < n; ++j) out[j] = g[j] - std::exp(p[j]) * dot;
    } else {
      for (int64_t j = 0; j < n; ++j) dot += g[j] * p[j];
      for (int64_t j = 0; j < n; ++j) out[j] = p[j] * (g[j] - dot);
    }
  });
}

template <class T>
void cross_entropy(const T* x, const int64_t* label, double e, T* loss, int64_t rows, int64_t n) {
  for_rows<T>(rows, n, 1, [&](int64_t i, T* logp) {
    log_probabilities(x + i * n, n, T(1), logp);
    double mean = 0;
    for (int64_t j = 0; j < n && e > 0; ++j) mean -= static_cast<double>(logp[j]);
    const double hit = static_cast<double>(logp[label[i]]);
    loss[i] = static_cast<T>(e > 0 ? -(1 - e) * hit + e * mean / static_cast<double>(n) : -hit);
  });
}

template <class T>
void cross_entropy_grad(const T* g, const T* x, const int64_t* label, double e, T* gx, int64_t rows,
                        int64_t n) {
  for_rows<T>(rows, n, 0, [&](int64_t i, T*) {
    T* out = gx + i * n;
    probabilities(x + i * n, n, T(1), out);
    const T off = static_cast<T>(e / static_cast<double>(n)), hit = static_cast<T>(1 - e);
    for (int64_t j = 0; j < n; ++j) out[j] = g[i] * (out[j] - off);
    out[label[i]] -= g[i] * hit;
  });
}

// sum_j exp(a_j) (a_j - b_j); a probability of zero counts nothing.
template <class T>
T kl_sum(const T* a, const T* b, int64_t n) {
  T sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    const T p = std::exp(a[j]);
    if (p != T(0)) sum += p * (a[j] - b[j]);
  }
  return sum;
}

// KL(P||M) with the method's 1e-8 inside the logarithms.
template <class T>
struct JsTerms {
  T log_ratio(T p, T m) const { return std::log(p + eps) - std::log(m + eps); }
  T kl(const T* p, const T* q, int64_t n) const {
    T sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += p[j] * log_ratio(p[j], (p[j] + q[j]) / 2);
    return sum;
  }
  T eps = T(1e-8);
};

template <class T>
void divergence(Divergence kind, const T* p, const T* q, T t, T* loss, int64_t rows, int64_t n) {
  for_rows<T>(rows, n, 2, [&](int64_t i, T* a) {
    T* b = a + n;
    if (kind == Divergence::kl) {
      log_probabilities(p + i * n, n, t, a);
      log_probabilities(q + i * n, n, t, b);
      loss[i] = kl_sum(a, b, n);
    } else {
      probabilities(p + i * n, n, t, a);
      probabilities(q + i * n, n, t, b);
      const JsTerms<T> js;
      loss[i] = (js.kl(a, b, n) + js.kl(b, a, n)) / 2;
    }
  });
}

template <class T>
void divergence_grad(Divergence kind, Side side, const T* g, const T* p, const T* q, T t, T* gx,
                     int64_t rows, int64_t n) {
  for_rows<T>(rows, n, 2, [&](int64_t i, T* a) {
    T *b = a + n, *out = gx + i * n;
    if (kind == Divergence::kl && side == Side::q) {
      probabilities(p + i * n, n, t, a);
      probabilities(q + i * n, n, t, b);
      for (int64_t j = 0; j < n; ++j) out[j] = g[i] / t * (b[j] - a[j]);
    } else if (kind == Divergence::kl) {
      log_probabilities(p + i * n, n, t, a);
      log_probabilities(q + i * n, n, t, b);
      const T kl = kl_sum(a, b, n);
      for (int64_t j = 0; j < n; ++j) {
        const T prob = std::exp(a[j]);
        out[j] = prob == T(0) ? T(0) : g[i] / t * prob * (a[j] - b[j] - kl);
      }
    } else {
      probabilities((side == Side::p ? p : q) + i * n, n, t, a);
      probabilities((side == Side::p ? q : p) + i * n, n, t, b);
      // Exact for the function with its 1e-8: r_j = d JS/d a_j, then through the softmax.
      T dot = 0;
      for (int64_t j = 0; j < n; ++j) {
        const T m = (a[j] + b[j]) / 2, e = JsTerms<T>().eps;
        const T r = JsTerms<T>().log_ratio(a[j], m) + a[j] / (a[j] + e) - m / (m + e);
        out[j] = r;
        dot += a[j] * r;
      }
      for (int64_t j = 0; j < n; ++j) out[j] = g[i] / (2 * t) * a[j] * (out[j] - dot);
    }
  });
}

template <class T>
T length(const T* x, int64_t n) {
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += static_cast<double>(x[j]) * static_cast<double>(x[j]);
  return static_cast<T>(std::sqrt(sum));
}

template <class T>
void normalize(const T* x, T* y, T eps, int64_t rows, int64_t n) {
  for_rows<T>(rows, n, 0, [&](int64_t i, T*) {
    const T d = std::max(length(x + i * n, n), eps);
    for (int64_t j = 0; j < n; ++j) y[i * n + j] = x[i * n + j] / d;
  });
}

// y = x/|x|: gx = (gy - y (y.gy))/|x|. Where eps rules, the length is a constant: gx = gy/eps.
template <class T>
void normalize_grad(const T* gy, const T* x, T* gx, T eps, int64_t rows, int64_t n) {
  for_rows<T>(rows, n, 0, [&](int64_t i, T*) {
    const T *g = gy + i * n, *in = x + i * n;
    T* out = gx + i * n;
    const T d = length(in, n);
    if (d < eps) {
      for (int64_t j = 0; j < n; ++j) out[j] = g[j] / eps;
      return;
    }
    double dot = 0;
    for (int64_t j = 0; j < n; ++j) dot += static_cast<double>(in[j]) * static_cast<double>(g[j]);
    const T s = static_cast<T>(dot / (static_cast<double>(d) * static_cast<double>(d)));
    for (int64_t j = 0; j < n; ++j) out[j] = (g[j] - in[j] * s) / d;
  });
}

int64_t classes_of(const Tensor& x) { return x.size(-1); }
int64_t rows_of(const Tensor& x) { return x.numel() / x.size(-1); }

}  // namespace

void softmax_cpu(const Tensor& x, const Tensor& y, bool logarithm) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "softmax", T, {
    softmax(x.data<T>(), y.data<T>(), rows_of(x), classes_of(x), logarithm);
  });
}

void softmax_grad_cpu(const Tensor& gy, const Tensor& y, const Tensor& gx, bool logarithm) {
  MTCKI_DISPATCH_FLOAT(y.dtype(), "softmax_grad", T, {
    softmax_grad(gy.data<T>(), y.data<T>(), gx.data<T>(), rows_of(y), classes_of(y), logarithm);
  });
}

void cross_entropy_cpu(const Tensor& logits, const Tensor& labels, double smoothing,
                       const Tensor& loss) {
  MTCKI_DISPATCH_FLOAT(logits.dtype(), "cross_entropy_rows", T, {
    cross_entropy(logits.data<T>(), labels.data<int64_t>(), smoothing, loss.data<T>(),
                  rows_of(logits), classes_of(logits));
  });
}

void cross_entropy_grad_cpu(const Tensor& g, const Tensor& logits, const Tensor& labels,
                            double smoothing, const Tensor& gx) {
  MTCKI_DISPATCH_FLOAT(logits.dtype(), "cross_entropy_rows_grad", T, {
    cross_entropy_grad(g.data<T>(), logits.data<T>(), labels.data<int64_t>(), smoothing,
                       gx.data<T>(), rows_of(logits), classes_of(logits));
  });
}

void divergence_cpu(Divergence kind, const Tensor& p, const Tensor& q, double temperature,
                    const Tensor& loss) {
  MTCKI_DISPATCH_FLOAT(p.dtype(), "divergence", T, {
    divergence(kind, p.data<T>(), q.data<T>(), static_cast<T>(temperature), loss.data<T>(),
               rows_of(p), classes_of(p));
  });
}

void divergence_grad_cpu(Divergence kind, Side side, const Tensor& g, const Tensor& p,
                         const Tensor& q, double temperature, const Tensor& gx) {
  MTCKI_DISPATCH_FLOAT(p.dtype(), "divergence_grad", T, {
    divergence_grad(kind, side, g.data<T>(), p.data<T>(), q.data<T>(), static_cast<T>(temperature),
                    gx.data<T>(), rows_of(p), classes_of(p));
  });
}

void normalize_cpu(const Tensor& x, const Tensor& y, double eps) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "normalize", T, {
    normalize(x.data<T>(), y.data<T>(), static_cast<T>(eps), rows_of(x), classes_of(x));
  });
}

void normalize_grad_cpu(const Tensor& gy, const Tensor& x, const Tensor& gx, double eps) {
  MTCKI_DISPATCH_FLOAT(x.dtype(), "normalize_grad", T, {
    normalize_grad(gy.data<T>(), x.data<T>(), gx.data<T>(), static_cast<T>(eps), rows_of(x),
                   classes_of(x));
  });
}

}  // namespace mtcki
