// Internal: what the batch norm kernels of the CPU share (norm_cpu.cpp, norm_grad_cpu.cpp).
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "tensor/kernels/channel_walk.h"
#include "tensor/kernels/functors.h"
#include "tensor/ops/norm_kernels.h"

namespace mtcki::norm_cpu {

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

inline ChannelView view_of(const Tensor& x) { return channel_view(x.shape(), x.layout()); }

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
    case Activation::Kind::bounded_relu:
      f(std::integral_constant<Act, Act::bounded_relu>());
      break;
  }
}
template <class F>
void with_bool(bool value, const F& f) {
  value ? f(std::true_type()) : f(std::false_type());
}

// The same for a choice inside a loop over elements of S: a constant, or for f64, which only checks
// of gradients use, a bool at run time, since each loop more takes seconds to compile.
template <class S, class F>
void with_choice(bool value, const F& f) {
  if constexpr (std::is_same_v<S, double>) {
    f(value);
  } else {
    with_bool(value, f);
  }
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

}  // namespace mtcki::norm_cpu
