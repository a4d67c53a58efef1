// Internal to the CUDA kernels of batch norm (norm_cuda.cu forward, norm_grad_cuda.cu): the map
// that they apply to the channels of a thread.
#pragma once

#include <cmath>

#include "tensor/kernels/channel_walk.cuh"
#include "tensor/kernels/functors.h"
#include "tensor/ops/norm_kernels.h"

namespace mtcki {

template <class T>
T* ptr(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

// How many channels a thread takes of all these activations and [C] operands; some may be
// undefined.
template <class T>
int common_pack(std::initializer_list<Tensor> activations,
                std::initializer_list<Tensor> per_channel) {
  int pack = channels_aligned(per_channel) ? static_cast<int>(16 / sizeof(T)) : 1;
  for (const Tensor& t : activations)
    if (t.defined()) pack = std::min(pack, channel_pack<T>(t, {}));
  return pack;
}

// act none: every value passes; relu: slope 0. most: NaN where there is no bound.
template <class C>
struct RunTimeActivation {
  bool on;
  C slope, most;
  MTCKI_HD C value(C y) const { return on && y < C(0) ? scaled(y) : (on && y > most ? most : y); }
  MTCKI_HD C grad(C gy, C y) const {
    return on && y <= C(0) ? scaled(gy) : (on && y >= most ? C(0) : gy);
  }
  MTCKI_HD C scaled(C v) const { return slope == C(0) ? C(0) : slope * v; }
};

template <class C>
struct Normalisation {
  const C *mean, *spread, *weight, *bias;  // weight, bias may be null
  bool spread_is_var;                      // else 1/sqrt(var + eps)
  C eps;
  RunTimeActivation<C> act;
  MTCKI_HD C invstd(C s) const { return spread_is_var ? C(1) / std::sqrt(s + eps) : s; }
};
// What it does to the channels of a thread.
template <int V, class C>
struct ChannelMap {
  C mean[V], scale[V], bias[V];
  __device__ ChannelMap(const Normalisation<C>& f, int64_t channel) {
    load_channels<V>(f.mean, channel, mean);
    load_channels<V>(f.weight, channel, scale, C(1));
    load_channels<V>(f.bias, channel, bias);
    C spread[V];
    load_channels<V>(f.spread, channel, spread);
    for (int v = 0; v < V; ++v) scale[v] *= f.invstd(spread[v]);
  }
};

template <class C>
Normalisation<C> normalisation(const BatchNormArgs& a, const Tensor& mean, const Tensor& spread,
                               bool spread_is_var) {
  using Kind = Activation::Kind;
  const Kind kind = a.act.kind;
  const C parameter = static_cast<C>(a.act.parameter);
  return {mean.data<C>(),
          spread.data<C>(),
          ptr<C>(a.weight),
          ptr<C>(a.bias),
          spread_is_var,
          static_cast<C>(a.eps),
          {kind != Kind::none, kind == Kind::leaky_relu ? parameter : C(0),
           kind == Kind::bounded_relu ? parameter : static_cast<C>(NAN)}};
}

}  // namespace mtcki
