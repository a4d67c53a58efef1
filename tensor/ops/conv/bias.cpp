// The bias of convolutions: added to each channel; its gradient, the sum over each channel.
#include <algorithm>
#include <vector>

#include "tensor/ops/conv/cuda_kernels.h"
#include "tensor/ops/conv/dispatch.h"
#include "tensor/ops/op_util.h"
#include "tensor/parallel.h"

namespace mtcki {

using namespace conv_dispatch;

namespace {

// Sums over everything but the channel. Short runs are summed in T, the runs in double.
template <class T>
void channel_sums(const ChannelView& v, const T* g, T* out) {
  constexpr int64_t kRun = 64;
  const auto run_sum = [&](const T* p, int64_t count, T* sums) {
    if (v.block == 1) {
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t j = 0; j < count; ++j) sum += p[j];
      sums[0] = sum;
      return;
    }
    std::fill(sums, sums + v.block, T(0));
    for (int64_t j = 0; j < count; ++j)
      for (int64_t c = 0; c < v.block; ++c) sums[c] += p[j * v.block + c];
  };
  parallel_for(v.blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> total(static_cast<size_t>(v.block));
    std::vector<T> sums(static_cast<size_t>(v.block));
    for (int64_t k = begin; k < end; ++k) {
      std::ranges::fill(total, 0.0);
      for (int64_t o = 0; o < v.outer; ++o) {
        const T* p = g + (o * v.blocks + k) * v.inner * v.block;
        for (int64_t i = 0; i < v.inner; i += kRun) {
          run_sum(p + i * v.block, std::min(kRun, v.inner - i), sums.data());
          for (size_t c = 0; c < sums.size(); ++c) total[c] += static_cast<double>(sums[c]);
        }
      }
      for (int64_t c = 0; c < v.block; ++c)
        out[k * v.block + c] = static_cast<T>(total[static_cast<size_t>(c)]);
    }
  });
}

// y is f32, f64 or bf16; bias f64 beside f64, else f32.
template <class T, class Bias>
void add_channel_bias(const Tensor& y, const Tensor& bias) {
  const ChannelView v = channel_view(y.shape(), y.layout());
  T* out = y.data<T>();
  const Bias* b = bias.data<Bias>();
  parallel_for(v.outer * v.blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t ok = begin; ok < end; ++ok) {
      const Bias* add = b + ok % v.blocks * v.block;
      T* row = out + ok * v.inner * v.block;
      for (int64_t i = 0; i < v.inner; ++i)
        for (int64_t c = 0; c < v.block; ++c)
          row[i * v.block + c] = T(static_cast<Bias>(row[i * v.block + c]) + add[c]);
    }
  });
}
}  // namespace

void conv_dispatch::add_bias(const Tensor& y, const Tensor& bias_in) {
  if (y.numel() == 0) return;
  if (y.device().is_cuda()) return conv_cuda::add_bias(y, bias_in);
  const Tensor bias = widen(bias_in);
  if (is_bf16(y)) return add_channel_bias<bfloat16, float>(y, bias);
  MTCKI_DISPATCH_FLOAT(y.dtype(), "add_bias", T, { add_channel_bias<T, T>(y, bias); });
}

Tensor conv2d_grad_bias(const Tensor& gy, std::optional<DType> dtype) {
  const Operands ops{"conv2d_grad_bias", {{"grad_output", &gy}}};
  check_types(ops);
  if (gy.rank() != 4) ops.error().shape("grad_output needs rank 4 [N,K,P,Q], got ", gy.shape());
  ProfileScope scope("conv2d_grad_bias", static_cast<double>(gy.numel()), bytes_of(gy));
  const DType out = gradient_type(ops, gy, dtype);
  if (gy.device().is_cuda()) {
    Tensor gb = Tensor::empty({gy.size(1)}, out, gy.device());
    conv_cuda::channel_sums(gy, gb);
    return gb;
  }
  const Tensor g = widen(gy);
  const ChannelView v = channel_view(g.shape(), g.layout());
  Tensor gb = Tensor::empty({v.channels()}, g.dtype());
  MTCKI_DISPATCH_FLOAT(g.dtype(), "conv2d_grad_bias", T,
                       { channel_sums(v, g.data<T>(), gb.data<T>()); });
  return gb.to(out);
}

}  // namespace mtcki
