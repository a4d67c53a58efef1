#include <algorithm>

#include "tensor/cuda/launch.cuh"
#include "tensor/ops/conv/cuda_kernels.h"

namespace mtcki::conv_cuda {

namespace {

using cuda::compute_t;
using cuda::grid_for;
using cuda::kThreads;
using cuda::launch;

// V channels moved at once: 16 bytes, or one element.
template <class T, int V>
struct alignas(V * sizeof(T)) Pack {
  T v[V];
};
template <class T>
constexpr int kPack = 16 / sizeof(T);

bool aligned16(const void* p) { return (reinterpret_cast<uintptr_t>(p) & 15) == 0; }

// Packs of one row of the column matrix in order (group, tap, channel); n counts packs.
template <class P>
__global__ void unfold_kernel(ConvProblem d, const P* __restrict__ x, P* __restrict__ columns,
                              int64_t channels, int64_t n) {
  const int64_t cg = channels / d.groups, taps = d.r * d.s;
  MTCKI_GRID_LOOP(i, n) {
    const int64_t c = i % cg, tap = i / cg % taps, g = i / (cg * taps) % d.groups;
    const int64_t pixel = i / (channels * taps);
    const int64_t q = pixel % d.q, p = pixel / d.q % d.p, image = pixel / (d.q * d.p);
    const int64_t h = p * d.stride_h - d.pad_h + tap / d.s * d.dil_h;
    const int64_t w = q * d.stride_w - d.pad_w + tap % d.s * d.dil_w;
    P out{};
    if (h >= 0 && h < d.h && w >= 0 && w < d.w)
      out = x[((image * d.h + h) * d.w + w) * channels + g * cg + c];
    columns[i] = out;
  }
}

template <class C, class T>
__global__ void fold_kernel(ConvProblem d, const C* __restrict__ columns, T* __restrict__ gx,
                            int64_t n) {
  const int64_t cg = d.c / d.groups, taps = d.r * d.s;
  MTCKI_GRID_LOOP(i, n) {
    const int64_t c = i % d.c, w = i / d.c % d.w, h = i / (d.c * d.w) % d.h;
    const int64_t image = i / (d.c * d.w * d.h);
    C sum = 0;
    for (int64_t r = 0; r < d.r; ++r) {
      const int64_t above = h + d.pad_h - r * d.dil_h;
      if (above < 0 || above % d.stride_h != 0 || above / d.stride_h >= d.p) continue;
      for (int64_t s = 0; s < d.s; ++s) {
        const int64_t left = w + d.pad_w - s * d.dil_w;
        if (left < 0 || left % d.stride_w != 0 || left / d.stride_w >= d.q) continue;
        const int64_t pixel = (image * d.p + above / d.stride_h) * d.q + left / d.stride_w;
        sum += columns[((pixel * d.groups + c / cg) * taps + r * d.s + s) * cg + c % cg];
      }
    }
    gx[i] = T(sum);
  }
}

template <class From, class To>
__global__ void to_ohwi_kernel(const From* __restrict__ w, To* __restrict__ out, int64_t channels,
                               int64_t taps, bool plain, int64_t padded, int64_t n) {
  const int64_t next_channel = plain ? taps : 1, next_tap = plain ? 1 : channels;
  MTCKI_GRID_LOOP(i, n) {
    const int64_t c = i % padded, tap = i / padded % taps, k = i / (padded * taps);
    out[i] = c < channels ? To(w[k * channels * taps + c * next_channel + tap * next_tap]) : To(0);
  }
}

template <class From, class To>
__global__ void drop_padding_kernel(const From* __restrict__ in, To* __restrict__ gw,
                                    int64_t channels, int64_t padded, int64_t n) {
  MTCKI_GRID_LOOP(i, n) gw[i] = To(in[i / channels * padded + i % channels]);
}

template <class T>
__global__ void pad_channels_kernel(const T* __restrict__ x, T* __restrict__ y, int64_t channels,
                                    int64_t padded, int64_t n) {
  MTCKI_GRID_LOOP(i, n) {
    const int64_t c = i % padded;
    y[i] = c < channels ? x[i / padded * channels + c] : T(0);
  }
}

template <class T, class B>
__global__ void add_bias_kernel(T* y, const B* __restrict__ bias, int64_t channels, int64_t inner,
                                int64_t n) {
  MTCKI_GRID_LOOP(i, n) {
    using C = compute_t<T>;
    y[i] = T(static_cast<C>(y[i]) + static_cast<C>(bias[i / inner % channels]));
  }
}

// channels_last, V channels at once.
template <class T, class B, int V>
__global__ void add_bias_packs_kernel(Pack<T, V>* y, const B* __restrict__ bias, int packs,
                                      int64_t n) {
  using C = compute_t<T>;
  MTCKI_GRID_LOOP(i, n) {
    Pack<T, V> values = y[i];
    const B* of_pack = bias + i % packs * V;
    for (int v = 0; v < V; ++v)
      values.v[v] = T(static_cast<C>(values.v[v]) + static_cast<C>(of_pack[v]));
    y[i] = values;
  }
}

// Stage 1: block (x, y) sums rows y, y + gridDim.y, ... (each of blockDim.y) of the channels of its
// columns into partial[y][channel].
template <class T>
__global__ void sum_rows_kernel(const T* __restrict__ g, compute_t<T>* __restrict__ partial,
                                int64_t rows, int64_t channels) {
  __shared__ compute_t<T> tile[kThreads];
  const int width = static_cast<int>(blockDim.x), height = static_cast<int>(blockDim.y);
  const int64_t c = int64_t{blockIdx.x} * width + threadIdx.x;
  compute_t<T> sum = 0;
  if (c < channels)
    for (int64_t r = int64_t{blockIdx.y} * height + threadIdx.y; r < rows;
         r += int64_t{gridDim.y} * height)
      sum += static_cast<compute_t<T>>(g[r * channels + c]);
  tile[threadIdx.y * width + threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && c < channels) {
    for (int r = 1; r < height; ++r) sum += tile[r * width + threadIdx.x];
    partial[blockIdx.y * channels + c] = sum;
  }
}
// Stage 2: a block for each channel, a thread for each of at most kThreads partial sums.
template <class C, class To>
__global__ void sum_partials_kernel(const C* __restrict__ partial, To* __restrict__ out, int count,
                                    int64_t channels) {
  __shared__ double sums[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  sums[i] = i < count ? static_cast<double>(partial[i * channels + blockIdx.x]) : 0.0;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (i < half) sums[i] += sums[i + half];
  }
  if (i == 0) out[blockIdx.x] = To(static_cast<C>(sums[0]));
}

// The conversions that weights meet: their own dtype, and f32 beside bf16.
template <template <class, class> class Run, class... Args>
void on_types(DType from, DType to, const Args&... args) {
  if (from == DType::f32 && to == DType::f32) return Run<float, float>()(args...);
  if (from == DType::f64 && to == DType::f64) return Run<double, double>()(args...);
  if (from == DType::f32 && to == DType::bf16) return Run<float, bfloat16>()(args...);
  if (from == DType::bf16 && to == DType::f32) return Run<bfloat16, float>()(args...);
  if (from == DType::bf16 && to == DType::bf16) return Run<bfloat16, bfloat16>()(args...);
  throw DTypeError(
      str("convolution on CUDA: no conversion from ", name_of(from), " to ", name_of(to)));
}

template <class From, class To>
struct ToOhwi {
  void operator()(const Tensor& w, const Tensor& out) const {
    launch(to_ohwi_kernel<From, To>, grid_for(out.numel()), kThreads, 0, w.data<From>(),
           out.data<To>(), w.size(1), out.size(1), w.is_plain(), out.size(2), out.numel());
  }
};
template <class From, class To>
struct DropPadding {
  void operator()(const Tensor& in, const Tensor& gw) const {
    launch(drop_padding_kernel<From, To>, grid_for(gw.numel()), kThreads, 0, in.data<From>(),
           gw.data<To>(), gw.size(1), in.size(2), gw.numel());
  }
};
template <class B, class T>
struct AddBias {
  void operator()(const Tensor& bias, const Tensor& y) const {
    constexpr int V = kPack<T>;
    const int64_t inner = y.rank() == 4 && y.is_plain() ? y.size(2) * y.size(3) : 1;
    if (inner == 1 && y.size(1) % V == 0 && aligned16(y.raw()))
      return launch(add_bias_packs_kernel<T, B, V>, grid_for(y.numel() / V), kThreads, 0,
                    reinterpret_cast<Pack<T, V>*>(y.data<T>()), bias.data<B>(),
                    static_cast<int>(y.size(1) / V), y.numel() / V);
    launch(add_bias_kernel<T, B>, grid_for(y.numel()), kThreads, 0, y.data<T>(), bias.data<B>(),
           y.size(1), inner, y.numel());
  }
};
template <class T, class To>
struct ChannelSums {
  void operator()(const Tensor& g, const Tensor& out) const {
    using C = compute_t<T>;
    const int64_t channels = g.size(1), rows = channels ? g.numel() / channels : 0;
    if (channels == 0) return;
    int width = 1;
    while (width < 32 && width < channels) width *= 2;
    const int height = kThreads / width;
    const int64_t chunks = std::clamp<int64_t>(rows / (16 * height), 1, kThreads);
    const Tensor partial = Tensor::empty({chunks, channels}, dtype_of<C>::value, g.device());
    launch(
        sum_rows_kernel<T>,
        dim3(static_cast<unsigned>((channels + width - 1) / width), static_cast<unsigned>(chunks)),
        dim3(static_cast<unsigned>(width), static_cast<unsigned>(height)), 0, g.data<T>(),
        partial.data<C>(), rows, channels);
    launch(sum_partials_kernel<C, To>, dim3(static_cast<unsigned>(channels)), kThreads, 0,
           partial.data<C>(), out.data<To>(), static_cast<int>(chunks), channels);
  }
};

}  // namespace

void unfold(const ConvProblem& d, const Tensor& x, int64_t images, const Tensor& columns) {
  const int64_t n = images * d.p * d.q * d.r * d.s * d.c;
  MTCKI_DISPATCH_CUDA(x.dtype(), "conv2d", T, {
    constexpr int V = kPack<T>;
    const T* in = x.data<T>();
    T* out = columns.data<T>();
    if (d.c / d.groups % V == 0 && aligned16(in) && aligned16(out)) {
      using P = Pack<T, V>;
      launch(unfold_kernel<P>, grid_for(n / V), kThreads, 0, d, reinterpret_cast<const P*>(in),
             reinterpret_cast<P*>(out), d.c / V, n / V);
    } else {
      launch(unfold_kernel<T>, grid_for(n), kThreads, 0, d, in, out, d.c, n);
    }
  });
}

void fold(const ConvProblem& d, const Tensor& columns, int64_t images, const Tensor& gx) {
  const int64_t n = images * d.h * d.w * d.c;
  MTCKI_DISPATCH_CUDA(gx.dtype(), "conv2d_grad_input", T, {
    using C = compute_t<T>;
    launch(fold_kernel<C, T>, grid_for(n), kThreads, 0, d, columns.data<C>(), gx.data<T>(), n);
  });
}

void weight_to_ohwi(const Tensor& w, const Tensor& out) {
  on_types<ToOhwi>(w.dtype(), out.dtype(), w, out);
}
void drop_weight_padding(const Tensor& in, const Tensor& gw) {
  on_types<DropPadding>(in.dtype(), gw.dtype(), in, gw);
}

void pad_channels(const Tensor& x, const Tensor& y) {
  MTCKI_DISPATCH_CUDA(x.dtype(), "conv2d", T, {
    launch(pad_channels_kernel<T>, grid_for(y.numel()), kThreads, 0, x.data<T>(), y.data<T>(),
           x.size(1), y.size(1), y.numel());
  });
}

void add_bias(const Tensor& y, const Tensor& bias) {
  on_types<AddBias>(bias.dtype(), y.dtype(), bias, y);
}

void channel_sums(const Tensor& g, const Tensor& out) {
  on_types<ChannelSums>(g.dtype(), out.dtype(), g.rank() == 4 ? g.to(Layout::channels_last) : g,
                        out);
}

}  // namespace mtcki::conv_cuda
