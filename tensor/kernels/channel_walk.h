// Per-channel CPU kernels over every layout, written once. A body works on one SIMD vector of
// elements at a time, given the per-channel parameters of these elements as vectors too:
//
//   plain          vectors along H,W of one channel; its parameters are broadcast
//   blocked        vectors along the channel block; parameters are loaded once per block
//   channels_last  vectors along the channels; parameters are loaded with them
//
// Bodies are generic lambdas: the ends of rows call them with T in place of the vector. Only the
// innermost loop is compiled for each of them; the walk around it is in channel_walk.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "tensor/kernels/simd.h"
#include "tensor/layout.h"

namespace mtcki {

static_assert(kSimdBytes == 4 * kChannelBlock, "a channel block is one vector of floats");

// P arrays of one value per channel.
template <class T, int P>
struct ChannelParams {
  std::array<const T*, P> values;

  template <class V>
  [[gnu::always_inline]] std::array<V, P> of(int64_t channel) const {  // consecutive channels
    std::array<V, P> out;
    for (int i = 0; i < P; ++i) out[i] = load_as<V>(values[i] + channel);
    return out;
  }
  template <class V>
  [[gnu::always_inline]] std::array<V, P> same(int64_t channel) const {  // one channel, broadcast
    std::array<V, P> out;
    for (int i = 0; i < P; ++i) out[i] = splat<V>(values[i][channel]);
    return out;
  }
};

// A stretch of the walk: `count` places, `step` elements apart from offset `at`. A vector belongs to
// one channel, or to `channel` and the channels after it.
struct ChannelRun {
  int64_t at, count, step, channel;
  bool one_channel;
};

// A body without its type. `self` goes to the functions, of which one takes vectors of `width`
// elements and the other single elements.
struct ChannelLoop {
  using Function = void (*)(const void* self, const ChannelRun& run);
  const void* self;
  int64_t width;
  Function vectors, elements;
};
void walk_channels(const ChannelView& v, const ChannelLoop& loop);
// The same for bodies that make `sums` sums of each place: into out[sum * width + lane].
template <class T>
struct ChannelSums {
  using Function = void (*)(const void* self, const ChannelRun& run, T* out);
  static constexpr int64_t kMost = 4;
  const void* self;
  int64_t width, sums;
  Function vectors, elements;
};
template <class T>  // float or double
std::vector<double> sum_channels(const ChannelView& v, const ChannelSums<T>& loop);

template <class T, int P, class Body>
struct ChannelBody {
  ChannelParams<T, P> params;
  Body body;

  template <class V>
  std::array<V, P> params_of(const ChannelRun& run) const {
    return run.one_channel ? params.template same<V>(run.channel)
                           : params.template of<V>(run.channel);
  }
  // The body and the parameters are copied, since a store through a pointer of the body could be
  // taken to change them.
  template <class V>
  [[gnu::flatten]] static void apply(const void* self, const ChannelRun& run) {
    const Body f = static_cast<const ChannelBody*>(self)->body;
    const auto p = static_cast<const ChannelBody*>(self)->template params_of<V>(run);
    int64_t at = run.at;
    const int64_t step = run.step;
    for (int64_t i = run.count; i > 0; --i, at += step) f(V{}, at, p);
  }
  // Four independent accumulators hide the latency of the additions of vectors.
  template <class V, int K>
  [[gnu::flatten]] static void sum(const void* self, const ChannelRun& run, T* out) {
    const Body f = static_cast<const ChannelBody*>(self)->body;
    const auto p = static_cast<const ChannelBody*>(self)->template params_of<V>(run);
    std::array<V, K> a{};
    int64_t at = run.at, i = 0;
    const int64_t step = run.step;
    if constexpr (!std::is_same_v<V, T>) {
      std::array<V, K> b{}, c{}, d{};
      for (; i + 4 <= run.count; i += 4, at += 4 * step) {
        f(V{}, at, p, a);
        f(V{}, at + step, p, b);
        f(V{}, at + 2 * step, p, c);
        f(V{}, at + 3 * step, p, d);
      }
      for (; i < run.count; ++i, at += step) f(V{}, at, p, a);
      for (int s = 0; s < K; ++s) a[s] = (a[s] + b[s]) + (c[s] + d[s]);
    } else {
      for (; i < run.count; ++i, at += step) f(V{}, at, p, a);
    }
    for (int s = 0; s < K; ++s) store(out + s * static_cast<int64_t>(sizeof(V) / sizeof(T)), a[s]);
  }
};

// body(V{}, offset, params): V is the vector type or T. Every element is visited once, in parallel.
template <class T, int P, class Body>
void for_channels(const ChannelView& v, const ChannelParams<T, P>& params, const Body& body) {
  using B = ChannelBody<T, P, Body>;
  const B self{params, body};
  walk_channels(v, {&self, Simd<T>::width, B::template apply<typename Simd<T>::Vector>,
                    B::template apply<T>});
}

// K sums per channel: body(V{}, offset, params, acc) adds to acc[0..K). Sums run in T over at most
// 256 vectors and are combined in f64, in an order that depends on the shape only. Returns K arrays
// of v.channels() values, one after the other.
template <class T, int P, int K, class Body>
std::vector<double> reduce_channels(const ChannelView& v, const ChannelParams<T, P>& params,
                                    const Body& body) {
  using B = ChannelBody<T, P, Body>;
  static_assert(K <= ChannelSums<T>::kMost);
  const B self{params, body};
  return sum_channels<T>(v, {&self, Simd<T>::width, K, B::template sum<typename Simd<T>::Vector, K>,
                             B::template sum<T, K>});
}

}  // namespace mtcki
