// Forward of batch norm: moments per channel, and the map that they make.
#include "tensor/ops/norm_cpu.h"

#include <algorithm>

namespace mtcki {

using namespace norm_cpu;

namespace {

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
      [p](auto z, int64_t at, const auto&, auto& acc) { acc[0] += load_as<decltype(z)>(p + at); });
  std::vector<T> shift(channels);
  const double head_count = static_cast<double>(std::max<int64_t>(1, head.per_channel()));
  for (size_t c = 0; c < channels; ++c) shift[c] = static_cast<T>(first[c] / head_count);
  ChannelParams<T, P + 1> with_shift{};
  std::copy(params.values.begin(), params.values.end(), with_shift.values.begin());
  with_shift.values[P] = shift.data();
  const auto sums = reduce_channels<T, P + 1, 2>(
      v, with_shift, [p, &also](auto z, int64_t at, const auto& q, auto& acc) {
        const auto in = load_as<decltype(z)>(p + at);
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

// y = act((x - mean)*scale + bias + residual)
template <class S, class T>
void apply(const Tensor& tx, const ChannelParams<T, 3>& p, Activation act, const Tensor& residual,
           const Tensor& ty) {
  const S *x = tx.data<S>(), *r = ptr<S>(residual);
  S* y = ty.data<S>();
  const T parameter = static_cast<T>(act.parameter);
  with_act(act.kind, [&](auto kind) {
    with_bool(r != nullptr, [&](auto has_residual) {
      for_channels(view_of(tx), p, [=](auto z, int64_t at, const auto& q) {
        using V = decltype(z);
        V out = bn_affine(load_as<V>(x + at), q[0], q[1], q[2]);
        if constexpr (decltype(has_residual)::value) out += load_as<V>(r + at);
        store(y + at, activate<decltype(kind)::value>(out, splat<V>(parameter)));
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
  const T parameter = static_cast<T>(act.parameter);
  Moments out;
  with_act(act.kind, [&](auto kind) {
    with_bool(r != nullptr, [&](auto has_residual) {
      out = moments<S>(tx, p, [=](const auto& x, int64_t at, const auto& q) {
        using V = std::decay_t<decltype(x)>;
        V value = bn_affine(x, q[0], q[1], q[2]);
        if constexpr (decltype(has_residual)::value) value += load_as<V>(r + at);
        store(y + at, activate<decltype(kind)::value>(value, splat<V>(parameter)));
      });
    });
  });
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

}  // namespace mtcki
