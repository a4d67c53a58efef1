#include "tensor/ops/conv/select.h"

#include "tensor/kernels/simd.h"
#include "tensor/ops/conv/amx_cpu.h"

namespace mtcki {

namespace {

constexpr ConvKernel<float> kDirect{"direct", conv_direct::forward, conv_direct::grad_input,
                                    conv_direct::grad_weight};
constexpr ConvKernel<float> kWinograd{"winograd",
                                      conv_winograd::forward,
                                      conv_winograd::grad_input,
                                      conv_winograd::grad_weight,
                                      conv_winograd::grad_input_plus,
                                      conv_winograd::forward_from,
                                      conv_winograd::grad_weight_from,
                                      true};
constexpr ConvKernel<float> kOnednn{"onednn", conv_onednn::forward, conv_onednn::grad_input,
                                    conv_onednn::grad_weight};
constexpr ConvKernel<float> kDepthwise{.name = "depthwise",
                                       .forward = conv_depthwise::forward,
                                       .grad_input = conv_depthwise::grad_input,
                                       .grad_weight = conv_depthwise::grad_weight,
                                       .forward_from = conv_depthwise::forward_from,
                                       .grad_weight_from = conv_depthwise::grad_weight_from,
                                       .bounded = true};
constexpr ConvKernel<float> kGroups{"groups", conv_groups::forward, conv_groups::grad_input,
                                    conv_groups::grad_weight};
constexpr ConvKernel<float> kPointwise{.name = "pointwise",
                                       .forward = conv_pointwise::forward,
                                       .grad_input = conv_pointwise::grad_input,
                                       .grad_weight = conv_pointwise::grad_weight,
                                       .plain = true};
constexpr ConvKernel<bfloat16> kWinogradBf16{"winograd bf16", conv_winograd::forward,
                                             conv_winograd::grad_input, conv_winograd::grad_weight};
constexpr ConvKernel<bfloat16> kOnednnBf16{"onednn bf16", conv_bf16::forward, conv_bf16::grad_input,
                                           conv_bf16::grad_weight};
constexpr ConvKernel<bfloat16> kAmx{"amx bf16", conv_amx::forward<amx::Tiles>,
                                    conv_amx::grad_input<amx::Tiles>,
                                    conv_amx::grad_weight<amx::Tiles>};

CpuKernels cpu_kernels() { return math_settings().cpu_kernels; }

constexpr bool kWide = kSimdBytes == 64;  // AVX-512

bool only_builtin() { return cpu_kernels() == CpuKernels::builtin || !onednn_available(); }

// Where it applies it wins (see select_conv), but for the narrowest layers at stride 2.
bool prefers_winograd(const ConvProblem& d, ConvPass pass) {
  const bool narrow = d.stride_h > 1 && d.c < 32 && (kWide || pass == ConvPass::grad_weight);
  return math_settings().winograd && cpu_kernels() != CpuKernels::onednn &&
         conv_winograd::applies(d) && (only_builtin() || !narrow);
}

// Against oneDNN 2.6 at batch 128 (bench/conv_bench) on a Xeon of the fifth generation: weight
// gradients are 1.5 to 9 times as fast, input gradients 1.3 to 5 times at stride 2 and on small
// maps, outputs 2 to 3 times on the smallest; elsewhere its tiles of many pixels are better fed.
bool prefers_amx(const ConvProblem& d, ConvPass pass) {
  if (cpu_kernels() != CpuKernels::automatic || !amx::available() || !conv_amx::applies(d))
    return false;
  const bool strided = d.stride_h > 1, one = d.r == 1;
  if (pass == ConvPass::forward) return !one && d.p * d.q <= 16;
  if (pass == ConvPass::grad_input) return strided ? !one || d.h * d.w <= 256 : d.h * d.w <= 64;
  return true;
}

}  // namespace

// Measured at batch 128 (bench/conv_bench) on one AVX-512 machine, once more built for AVX2. Where
// Winograd applies it wins, at stride 1 from 1.1 times at 16 channels to 3 times at 128 and more,
// at stride 2 from 1.1 to 1.7 times but for the narrowest layers. 1x1 kernels on channels that are
// no whole blocks are 1.3 to 1.7 times as fast as oneDNN with its reorders (AVX2). Of the rest,
// oneDNN is faster on images and 1x1 kernels, the direct kernels on outputs of few channels and on
// strided kernels with more than a few channels.
const ConvKernel<float>& select_conv(const ConvProblem& d, ConvPass pass) {
  if (d.groups > 1) return conv_depthwise::applies(d) ? kDepthwise : kGroups;
  if (cpu_kernels() == CpuKernels::onednn) return kOnednn;
  if (prefers_winograd(d, pass)) return kWinograd;
  if (conv_pointwise::applies(d, pass)) return kPointwise;
  if (only_builtin()) return kDirect;
  const bool image_in = d.c <= 4, image_out = d.k <= 4;
  const bool strided = d.stride_h > 1 && d.r > 1 && d.c >= 32;
  if (pass == ConvPass::forward && (image_out || strided)) return kDirect;
  if (pass == ConvPass::grad_input) {
    const bool strided_1x1 = d.stride_h > 1 && d.r == 1;
    if (image_in || strided || (!kWide && strided_1x1)) return kDirect;
  }
  if (pass == ConvPass::grad_weight) {
    const bool image_direct = image_in && (d.c != 3 || (kWide && d.k >= 64));
    if (image_out || image_direct || (!kWide && strided)) return kDirect;
  }
  if (conv_onednn::is_slow(d, pass)) return kDirect;
  return kOnednn;
}

const ConvKernel<bfloat16>* select_bf16(const ConvProblem& d, ConvPass pass) {
  if (!bf16_channels_last() && prefers_winograd(d, pass)) return &kWinogradBf16;
  if (bf16_channels_last() && prefers_amx(d, pass)) return &kAmx;
  return bf16_kernels() && conv_bf16::applies(d, pass) ? &kOnednnBf16 : nullptr;
}

bool bf16_channels_last() {
  // oneDNN has no bf16 kernels for blocks of 8 channels.
  return bf16_kernels() && (conv_bf16::has_amx() || kChannelBlock != 16);
}

// Declared in tensor.h: what the kernels above want.
Layout preferred_layout(Device device, DType dtype, int64_t channels) {
  if (device.is_cuda() || (dtype == DType::bf16 && bf16_channels_last()))
    return Layout::channels_last;
  const bool blocks = dtype == DType::f32 || dtype == DType::bf16;
  return blocks && channels % kChannelBlock == 0 ? Layout::blocked : Layout::plain;
}

bool bf16_kernels() { return cpu_kernels() != CpuKernels::builtin && conv_bf16::available(); }

}  // namespace mtcki
