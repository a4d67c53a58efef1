// Backward of batch norm, and what is an affine map per channel like it.
#include "tensor/ops/norm_cpu.h"

namespace mtcki {

using namespace norm_cpu;

namespace {

// The gradient at the normalisation's output, gy*act'(.), for V elements at offset `at`.
template <Act A, bool FromY, class V, class S, class Q>
[[gnu::always_inline]] inline V masked(const S* gy, const S* x, const S* y, int64_t at, const Q& q,
                                       Computed<S> parameter) {
  const V g = load_as<V>(gy + at);
  if constexpr (A == Act::none) return g;
  const V s = splat<V>(parameter);
  if constexpr (FromY) return activate_grad<A>(g, load_as<V>(y + at), s);
  return activate_grad<A>(g, bn_affine(load_as<V>(x + at), q[0], q[1], q[2]), s);
}

template <class S, Act A, bool FromY>
void grad(const Tensor& tgy, const BatchNormArgs& a, const Tensor& ty, bool train,
          const Tensor& tgx, const Tensor& gweight, const Tensor& gbias, const Tensor& tgr) {
  using T = Computed<S>;
  const ChannelView v = view_of(tgy);
  const size_t channels = static_cast<size_t>(v.channels());
  const S *gy = tgy.data<S>(), *x = ptr<S>(a.x), *y = ptr<S>(ty);
  const T parameter = static_cast<T>(a.act.parameter);
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
          const V g = masked<A, FromY, V>(gy, x, y, at, q, parameter);
          acc[0] += g;
          acc[1] += g * (load_as<V>(x + at) - q[0]);
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
  with_choice<S>((train || statistics) && gx, [&](auto centred) {
    with_choice<S>(gr != nullptr, [&](auto has_residual) {
      with_choice<S>(sum != nullptr, [&](auto has_sum) {
        for_channels(v, p, [=](auto z, int64_t at, const auto& q) {
          using V = decltype(z);
          const V g = masked<A, FromY, V>(gy, x, y, at, q, parameter);
          V out = q[3] * g;
          if (centred) out += q[4] * (load_as<V>(x + at) - q[0]) + q[5];
          if (has_sum) out += load_as<V>(sum + at);
          if (has_residual) store(gr + at, g);
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
                   V value = q[0] * load_as<V>(x + at) + q[1];
                   if constexpr (decltype(has_sum)::value) value += load_as<V>(sum + at);
                   store(y + at, value);
                 });
  });
}

}  // namespace

void batch_norm_grad_cpu(const Tensor& gy, const BatchNormArgs& a, const Tensor& y, bool train,
                         const Tensor& gx, const Tensor& gweight, const Tensor& gbias,
                         const Tensor& gresidual) {
  with_storage(gy.dtype(), "batch_norm_grad", [&](auto z) {
    with_act(a.act.kind, [&](auto kind) {
      constexpr Act act = kind();
      const auto run = [&](auto from_y) {
        grad<decltype(z), act, from_y()>(gy, a, y, train, gx, gweight, gbias, gresidual);
      };
      if constexpr (act == Act::none) {
        run(std::false_type());  // there is no mask
      } else {
        with_bool(y.defined(), run);
      }
    });
  });
}

void channel_affine_cpu(const Tensor& x, const Tensor& a, const Tensor& b, const Tensor& factor,
                        const Tensor& sum, const Tensor& out) {
  with_storage(x.dtype(), "channel_affine",
               [&](auto z) { affine_kernel<decltype(z)>(x, a, b, factor.item(), sum, out); });
}

}  // namespace mtcki
