// One element of each update of update.h, for the kernels of all devices. A rule makes its factors
// once per kernel, in f64, from the scalars of the step; In<C> rounds them to the type of the
// computation, and In::apply(a, source, b, c) updates the element.
#pragma once

#include <cmath>

#include "tensor/host_device.h"
#include "tensor/ops/update.h"

namespace mtcki {

// a: parameter, source: gradient, b: momentum buffer.
struct SgdRule {
  double momentum, dampening, weight_decay;
  bool nesterov, decoupled, buffered;
  SgdRule(const SgdUpdate& u, bool has_buffers)
      : momentum(u.momentum),
        dampening(u.dampening),
        weight_decay(u.weight_decay),
        nesterov(u.nesterov),
        decoupled(u.decoupled),
        buffered(has_buffers) {}

  struct Factors {
    double lr, scale, coupled, keep, momentum, fresh, buffered, nesterov, first;
  };
  MTCKI_HD Factors factors(double lr, double step, double grad_scale) const {
    const bool first = step <= 1.0;
    return {lr,
            grad_scale,
            decoupled ? 0.0 : weight_decay,
            decoupled ? 1.0 - lr * weight_decay : 1.0,
            momentum,
            first ? 1.0 : 1.0 - dampening,
            buffered ? 1.0 : 0.0,
            nesterov ? 1.0 : 0.0,
            first ? 1.0 : 0.0};
  }
  template <class C>
  struct In {
    C lr, scale, coupled, keep, momentum, fresh;
    bool buffered, nesterov, first;
    MTCKI_HD explicit In(const Factors& f)
        : lr(static_cast<C>(f.lr)),
          scale(static_cast<C>(f.scale)),
          coupled(static_cast<C>(f.coupled)),
          keep(static_cast<C>(f.keep)),
          momentum(static_cast<C>(f.momentum)),
          fresh(static_cast<C>(f.fresh)),
          buffered(f.buffered != 0),
          nesterov(f.nesterov != 0),
          first(f.first != 0) {}
    MTCKI_HD void apply(C* p, C g, C* buffer, C*) const {
      C d = scale * g + coupled * *p;
      if (buffered) {
        // What the buffer held before the first step does not matter, not even a NaN.
        const C b = first ? d : momentum * *buffer + fresh * d;
        *buffer = b;
        d = nesterov ? d + momentum * b : b;
      }
      *p = keep * *p - lr * d;
    }
  };
};

// a: parameter, source: gradient, b, c: exponential averages.
struct AdamRule {
  double beta1, beta2, eps, weight_decay;
  bool decoupled;
  explicit AdamRule(const AdamUpdate& u)
      : beta1(u.beta1),
        beta2(u.beta2),
        eps(u.eps),
        weight_decay(u.weight_decay),
        decoupled(u.decoupled) {}

  struct Factors {
    double step, root, beta1, beta2, eps, scale, coupled, keep;
  };
  MTCKI_HD Factors factors(double lr, double step, double grad_scale) const {
    return {lr / (1.0 - std::pow(beta1, step)),
            1.0 / std::sqrt(1.0 - std::pow(beta2, step)),
            beta1,
            beta2,
            eps,
            grad_scale,
            decoupled ? 0.0 : weight_decay,
            decoupled ? 1.0 - lr * weight_decay : 1.0};
  }
  template <class C>
  struct In {
    C step, root, beta1, beta2, rest1, rest2, eps, scale, coupled, keep;
    MTCKI_HD explicit In(const Factors& f)
        : step(static_cast<C>(f.step)),
          root(static_cast<C>(f.root)),
          beta1(static_cast<C>(f.beta1)),
          beta2(static_cast<C>(f.beta2)),
          rest1(static_cast<C>(1.0 - f.beta1)),
          rest2(static_cast<C>(1.0 - f.beta2)),
          eps(static_cast<C>(f.eps)),
          scale(static_cast<C>(f.scale)),
          coupled(static_cast<C>(f.coupled)),
          keep(static_cast<C>(f.keep)) {}
    MTCKI_HD void apply(C* p, C g, C* m, C* v) const {
      const C d = scale * g + coupled * *p;
      *m = beta1 * *m + rest1 * d;
      *v = beta2 * *v + rest2 * d * d;
      *p = keep * *p - step * *m / (std::sqrt(*v) * root + eps);
    }
  };
};

// a: the average, source: the value.
struct EmaRule {
  struct Factors {
    double keep;
  };
  template <class C>
  struct In {
    C keep, rest;
    MTCKI_HD explicit In(const Factors& f)
        : keep(static_cast<C>(f.keep)), rest(static_cast<C>(1.0 - f.keep)) {}
    MTCKI_HD void apply(C* dst, C src, C*, C*) const { *dst = keep * *dst + rest * src; }
  };
};

}  // namespace mtcki
