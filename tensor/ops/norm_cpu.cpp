#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "tensor/ops/channel_walk.h"
#include "tensor/ops/functors.h"
#include "tensor/ops/norm_kernels.h"

namespace mtcki {

namespace {

template <class T>
const T* ptr(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

template <class T>
ChannelParams<T, 3> params(const std::vector<T>& a, const std::vector<T>& b,
                           const std::vector<T>& c) {
  return {{a.data(), b.data(), c.data()}};
}

// f(S{}) with the type that an activation is stored in. Everything of shape [C] and all arithmetic
// is Computed<S>.
template <class F>
void with_storage(DType dtype, const char* op, const F& f) {
  if (dtype == DType::bf16) return f(bfloat16{});
  MTCKI_DISPATCH_FLOAT(dtype, op, T, { f(T{}); });
}

ChannelView view_of(const Tensor& x) { return channel_view(x.shape(), x.layout()); }

// Mean and biased variance per channel.
struct Moments {
  std::vector<double> mean, var;
};

// Sums of x-K and (x-K)^2 with K near the mean, so that the variance of data with a large mean
// keeps its digits. K: the channel's mean over the first image (or the first rows). also(z, at, q)
// sees every element once, with the channel's values of `params`.
template <class S, int P, class Also>
Moments moments(const Tensor& x, const ChannelParams<Computed<S>, P>& params, const Also& also) {
  using T = Computed<S>;
  const S* p = x.data<S>();
  const ChannelView v = view_of(x);
  const size_t channels = static_cast<size_t>(v.channels());
  ChannelView head = v;
  head.outer = std::min<int64_t>(v.outer, v.inner >= 64 ? 1 : 64 / std::max<int64_t>(1, v.inner));
  const auto first = reduce_channels<T, 0, 1>(
      head, ChannelParams<T, 0>{},
      [p](auto z, int64_t at, const auto&, auto& acc) { acc[0] += load<decltype(z)>(p + at); });
  std::vector<T> shift(channels);
  const double head_count = static_cast<double>(std::max<int64_t>(1, head.per_channel()));
  for (size_t c = 0; c < channels; ++c) shift[c] = static_cast<T>(first[c] / head_count);
  ChannelParams<T, P + 1> with_shift{};
  std::copy(params.values.begin(), params.values.end(), with_shift.values.begin());
  with_shift.values[P] = shift.data();
  const auto sums = reduce_channels<T, P + 1, 2>(
      v, with_shift, [p, &also](auto z, int64_t at, const auto& q, auto& acc) {
        const auto in = load<decltype(z)>(p + at);
        const auto d = in - q[P];
        acc[0] += d;
        acc[1] += d * d;
        also(in, at, q);
      });
  Moments m{std::vector<double>(channels), std::vector<double>(channels)};
  const double n = static_cast<double>(v.per_channel());
  for (size_t c = 0; c < channels; ++c) {
    const double d = sums[c] / n;
    m.mean[c] = static_cast<double>(shift[c]) + d;
    const double var = sums[channels + c] / n - d * d;
    m.var[c] = var < 0 ? 0 : var;  // a NaN stays
  }
  return m;
}

template <class S>
Moments moments(const Tensor& x) {
  return moments<S>(x, ChannelParams<Computed<S>, 0>{}, [](const auto&, int64_t, const auto&) {});
}

// f(std::integral_constant<Act, A>) for the run-time activation.
template <class F>
void with_act(Activation::Kind kind, const F& f) {
  switch (kind) {
    case Activation::Kind::none:
      f(std::integral_constant<Act, Act::none>());
      break;
    case Activation::Kind::relu:
      f(std::integral_constant<Act, Act::relu>());
      break;
    case Activation::Kind::leaky_relu:
      f(std::integral_constant<Act, Act::leaky_relu>());
      break;
  }
}
template <class F>
void with_bool(bool value, const F& f) {
  value ? f(std::true_type()) : f(std::false_type());
}

// y = act((x - mean)*scale + bias + residual)
template <class S, class T>
void apply(const Tensor& tx, const ChannelParams<T, 3>& p, Activation act, const Tensor& residual,
           const Tensor& ty) {
  const S *x = tx.data<S>(), *r = ptr<S>(residual);
  S* y = ty.data<S>();
  const T slope = static_cast<T>(act.slope);
  with_act(act.kind, [&](auto kind) {
    with_bool(r != nullptr, [&](auto has_residual) {
      for_channels(view_of(tx), p, [=](auto z, int64_t at, const auto& q) {
        using V = decltype(z);
        V out = bn_affine(load<V>(x + at), q[0], q[1], q[2]);
        if constexpr (decltype(has_residual)::value) out += load<V>(r + at);
        store(y + at, activate<decltype(kind)::value>(out, splat<V>(slope)));
      });
    });
  });
}

// The same, and the moments of x.
template <class S, class T>
Moments apply_and_sum(const Tensor& tx, const ChannelParams<T, 3>& p, Activation act,
                      const Tensor& residual, const Tensor& ty) {
  const S* r = ptr<S>(residual);
  S* y = ty.data<S>();
  const T slope = static_cast<T>(act.slope);
  Moments out;
  with_act(act.kind, [&](auto kind) {
    with_bool(r != nullptr, [&](auto has_residual) {
      out = moments<S>(tx, p, [=](const auto& x, int64_t at, const auto& q) {
        using V = std::decay_t<decltype(x)>;
        V value = bn_affine(x, q[0], q[1], q[2]);
        if constexpr (decltype(has_residual)::value) value += load<V>(r + at);
        store(y + at, activate<decltype(kind)::value>(value, splat<V>(slope)));
      });
    });
  });
  return out;
}

template <class T>
struct Affine {
  std::vector<T> mean, scale, bias, invstd;
};
// mean and invstd are double or T arrays.
template <class T, class M, class V>
Affine<T> affine_of(const BatchNormArgs& a, size_t channels, const M& mean, const V& invstd) {
  Affine<T> out{std::vector<T>(channels), std::vector<T>(channels), std::vector<T>(channels),
                std::vector<T>(channels)};
  const T *w = ptr<T>(a.weight), *b = ptr<T>(a.bias);
  for (size_t c = 0; c < channels; ++c) {
    out.mean[c] = static_cast<T>(mean[c]);
    out.invstd[c] = static_cast<T>(invstd[c]);
    out.scale[c] = (w ? w[c] : T(1)) * out.invstd[c];
    out.bias[c] = b ? b[c] : T(0);
  }
  return out;
}

template <class T>
std::vector<double> invstd_of(const T* var, size_t channels, double eps) {
  std::vector<double> out(channels);
  for (size_t c = 0; c < channels; ++c) out[c] = 1.0 / std::sqrt(static_cast<double>(var[c]) + eps);
  return out;
}

// Of the running statistics.
template <class T>
Affine<T> running_affine(const BatchNormArgs& a) {
  const size_t channels = static_cast<size_t>(a.x.size(1));
  const auto inv = invstd_of(a.var_or_invstd.data<T>(), channels, a.eps);
  return affine_of<T>(a, channels, a.mean.data<T>(), inv);
}

// One part, around the mean itself.
MomentSums sums_of(const Moments& m, const Tensor& x) {
  const int64_t channels = x.size(1);
  const double n = static_cast<double>(view_of(x).per_channel());
  MomentSums out{Tensor::zeros({1, channels, 2}, DType::f64), Tensor::from(m.mean, {channels})};
  for (int64_t c = 0; c < channels; ++c)
    out.sums.data<double>()[2 * c + 1] = m.var[static_cast<size_t>(c)] * n;
  return out;
}

template <class S>
void train_forward(const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
                   const Tensor& invstd, const Tensor& running_mean, const Tensor& running_var,
                   double momentum) {
  using T = Computed<S>;
  const Moments m = moments<S>(a.x);
  const size_t channels = m.mean.size();
  const auto inv = invstd_of(m.var.data(), channels, a.eps);
  const Affine<T> f = affine_of<T>(a, channels, m.mean, inv);
  std::copy(f.mean.begin(), f.mean.end(), mean.data<T>());
  std::copy(f.invstd.begin(), f.invstd.end(), invstd.data<T>());
  T* rm = ptr<T>(running_mean) ? running_mean.data<T>() : nullptr;
  T* rv = ptr<T>(running_var) ? running_var.data<T>() : nullptr;
  const double n = static_cast<double>(view_of(a.x).per_channel());
  for (size_t c = 0; c < channels; ++c) {
    const auto move = [&](T& r, double value) {
      r = static_cast<T>((1 - momentum) * static_cast<double>(r) + momentum * value);
    };
    if (rm) move(rm[c], m.mean[c]);
    if (rv) move(rv[c], m.var[c] * n / (n - 1));
  }
  if (y.defined()) apply<S>(a.x, params(f.mean, f.scale, f.bias), a.act, a.residual, y);
}

// The gradient at the normalisation's output, gy*act'(.), for V elements at offset `at`.
template <Act A, bool FromY, class V, class S, class Q>
[[gnu::always_inline]] inline V masked(const S* gy, const S* x, const S* y, int64_t at, const Q& q,
                                       Computed<S> slope) {
  const V g = load<V>(gy + at);
  if constexpr (A == Act::none) return g;
  const V s = splat<V>(slope);
  if constexpr (FromY) return activate_grad<A>(g, load<V>(y + at), s);
  return activate_grad<A>(g, bn_affine(load<V>(x + at), q[0], q[1], q[2]), s);
}

template <class S, Act A, bool FromY>
void grad(const Tensor& tgy, const BatchNormArgs& a, const Tensor& ty, bool train,
          const Tensor& tgx, const Tensor& gweight, const Tensor& gbias, const Tensor& tgr) {
  using T = Computed<S>;
  const ChannelView v = view_of(tgy);
  const size_t channels = static_cast<size_t>(v.channels());
  const S *gy = tgy.data<S>(), *x = ptr<S>(a.x), *y = ptr<S>(ty);
  const T slope = static_cast<T>(a.act.slope);
  const T* mean = a.mean.data<T>();
  const T* spread = a.var_or_invstd.data<T>();
  const Affine<T> f = train ? affine_of<T>(a, channels, mean, spread)
                            : affine_of<T>(a, channels, mean, invstd_of(spread, channels, a.eps));
  // gx = gscale*g + xscale*(x - mean) + shift
  std::vector<T> gscale(f.scale), xscale(channels, T(0)), shift(channels, T(0));
  if (gweight.defined() || (train && tgx.defined())) {
    const auto sums = reduce_channels<T, 3, 2>(
        v, params(f.mean, f.scale, f.bias), [=](auto z, int64_t at, const auto& q, auto& acc) {
          using V = decltype(z);
          const V g = masked<A, FromY, V>(gy, x, y, at, q, slope);
          acc[0] += g;
          acc[1] += g * (load<V>(x + at) - q[0]);
        });
    const double n = static_cast<double>(v.per_channel());
    for (size_t c = 0; c < channels; ++c) {
      const double inv = static_cast<double>(f.invstd[c]), scale = static_cast<double>(f.scale[c]);
      const double sum_g = sums[c], sum_gx = sums[channels + c];
      if (gweight.defined()) gweight.data<T>()[c] = static_cast<T>(sum_gx * inv);
      if (gbias.defined()) gbias.data<T>()[c] = static_cast<T>(sum_g);
      if (train) {
        xscale[c] = static_cast<T>(-scale * inv * inv * sum_gx / n);
        shift[c] = static_cast<T>(-scale * sum_g / n);
      }
    }
  }
  // A statistics loss adds another affine of x, here around the mean.
  const bool statistics = a.statistics.x.defined();
  if (statistics) {
    const double g = a.statistics.g.item();
    const auto sx = a.statistics.scale.to_vector<double>(),
               s1 = a.statistics.shift.to_vector<double>();
    for (size_t c = 0; c < channels; ++c) {
      xscale[c] += static_cast<T>(g * sx[c]);
      shift[c] += static_cast<T>(g * (s1[c] + sx[c] * static_cast<double>(f.mean[c])));
    }
  }
  S* gx = tgx.defined() ? tgx.data<S>() : nullptr;
  S* gr = tgr.defined() ? tgr.data<S>() : nullptr;
  if (!gx && !gr) return;
  const S* sum = ptr<S>(a.sum);
  const ChannelParams<T, 6> p{
      {f.mean.data(), f.scale.data(), f.bias.data(), gscale.data(), xscale.data(), shift.data()}};
  with_bool((train || statistics) && gx, [&](auto centred) {
    with_bool(gr != nullptr, [&](auto has_residual) {
      with_bool(sum != nullptr, [&](auto has_sum) {
        for_channels(v, p, [=](auto z, int64_t at, const auto& q) {
          using V = decltype(z);
          const V g = masked<A, FromY, V>(gy, x, y, at, q, slope);
          V out = q[3] * g;
          if constexpr (decltype(centred)::value) out += q[4] * (load<V>(x + at) - q[0]) + q[5];
          if constexpr (decltype(has_sum)::value) out += load<V>(sum + at);
          if constexpr (decltype(has_residual)::value) store(gr + at, g);
          if (gx) store(gx + at, out);
        });
      });
    });
  });
}

template <class S>
void affine_kernel(const Tensor& tx, const Tensor& ta, const Tensor& tb, double factor,
                   const Tensor& tsum, const Tensor& out) {
  using T = Computed<S>;
  const auto scaled = [factor](const Tensor& t) {
    std::vector<T> v(static_cast<size_t>(t.numel()));
    for (size_t c = 0; c < v.size(); ++c)
      v[c] = static_cast<T>(static_cast<double>(t.data<T>()[c]) * factor);
    return v;
  };
  const std::vector<T> a = scaled(ta), b = scaled(tb);
  const S* x = tx.data<S>();
  S* y = out.data<S>();
  const S* sum = ptr<S>(tsum);
  with_bool(sum != nullptr, [&](auto has_sum) {
    for_channels(view_of(tx), ChannelParams<T, 2>{{a.data(), b.data()}},
                 [=](auto z, int64_t at, const auto& q) {
                   using V = decltype(z);
                   V value = q[0] * load<V>(x + at) + q[1];
                   if constexpr (decltype(has_sum)::value) value += load<V>(sum + at);
                   store(y + at, value);
                 });
  });
}

}  // namespace

void moment_sums_cpu(const Tensor& x, MomentSums* out) {
  with_storage(x.dtype(), "channel_moments",
               [&](auto z) { *out = sums_of(moments<decltype(z)>(x), x); });
}

void finish_moments_cpu(const MomentSums& sums, double count, const ChannelMoments& out) {
  const int64_t parts = sums.sums.size(0), channels = sums.sums.size(1);
  const double *s = sums.sums.data<double>(), *origin = sums.origin.data<double>();
  for (int64_t c = 0; c < channels; ++c) {
    double a = 0, b = 0;
    for (int64_t part = 0; part < parts; ++part) {
      a += s[(part * channels + c) * 2];
      b += s[(part * channels + c) * 2 + 1];
    }
    const double mean = a / count, m2 = b - mean * a;
    out.mean.data<double>()[c] = origin[c] + mean;
    out.var.data<double>()[c] = (m2 < 0 ? 0 : m2) / count;  // a NaN stays
  }
}

void batch_norm_apply_cpu(const BatchNormArgs& a, const Tensor& y) {
  with_storage(a.x.dtype(), "batch_norm_apply", [&](auto s) {
    using S = decltype(s);
    using T = Computed<S>;
    const Affine<T> f = affine_of<T>(a, static_cast<size_t>(a.x.size(1)), a.mean.data<T>(),
                                     a.var_or_invstd.data<T>());
    apply<S>(a.x, params(f.mean, f.scale, f.bias), a.act, {}, y);
  });
}

void batch_norm_eval_cpu(const BatchNormArgs& a, const Tensor& y) {
  with_storage(a.x.dtype(), "batch_norm_eval", [&](auto z) {
    using S = decltype(z);
    const Affine<Computed<S>> f = running_affine<Computed<S>>(a);
    apply<S>(a.x, params(f.mean, f.scale, f.bias), a.act, a.residual, y);
  });
}

void batch_norm_eval_moments_cpu(const BatchNormArgs& a, const Tensor& y, MomentSums* out) {
  with_storage(a.x.dtype(), "batch_norm_eval", [&](auto z) {
    using S = decltype(z);
    const Affine<Computed<S>> f = running_affine<Computed<S>>(a);
    *out =
        sums_of(apply_and_sum<S>(a.x, params(f.mean, f.scale, f.bias), a.act, a.residual, y), a.x);
  });
}

void batch_norm_train_cpu(const BatchNormArgs& a, const Tensor& y, const Tensor& mean,
                          const Tensor& invstd, const Tensor& running_mean,
                          const Tensor& running_var, double momentum) {
  with_storage(a.x.dtype(), "batch_norm_train", [&](auto z) {
    train_forward<decltype(z)>(a, y, mean, invstd, running_mean, running_var, momentum);
  });
}

void batch_norm_grad_cpu(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                         const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                         const Tensor& gresidual) {
  with_storage(gy.dtype(), "batch_norm_grad", [&](auto z) {
    with_act(a.act.kind, [&](auto kind) {
      with_bool(y.defined(), [&](auto from_y) {
        grad<decltype(z), kind(), from_y()>(gy, a, y, train, gx, gweight, gbias, gresidual);
      });
    });
  });
}

void channel_affine_cpu(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& factor,
                        const Tensor& sum, const Tensor& out) {
  with_storage(x.dtype(), "channel_affine",
               [&](auto z) { affine_kernel<decltype(z)>(x, a, b, factor.item(), sum, out); });
}

}  // namespace mtcki
