#include "tensor/ops/conv_cuda.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <utility>

#include "tensor/cuda/conv.h"
#include "tensor/cuda/runtime.h"
#include "tensor/error.h"
#include "tensor/ops/conv_contest.h"
#include "tensor/ops/conv_narrow_cuda.h"
#include "tensor/ops/gradient_sum.h"
#include "tensor/ops/weight_copies.h"

namespace mtcki {

namespace {

CudaConv conv_from_environment() {
  const char* text = std::getenv("MTCKI_CONV");
  const std::string value = text ? text : "";
  if (value.empty() || value == "auto") return CudaConv::automatic;
  if (value == "cudnn") return CudaConv::cudnn;
  if (value == "im2col") return CudaConv::im2col;
  throw UsageError(str("MTCKI_CONV=", value, ": use auto, cudnn or im2col"));
}

std::atomic<CudaConv>& conv_setting() {
  static std::atomic<CudaConv> value{conv_from_environment()};
  return value;
}
std::atomic<bool> deterministic_on{true}, autotune_on{false};

}  // namespace

void set_cuda_conv(CudaConv kernels) { conv_setting() = kernels; }
CudaConv cuda_conv() { return conv_setting(); }
void set_deterministic(bool on) { deterministic_on = on; }
bool deterministic() { return deterministic_on; }
void set_autotune(bool on) { autotune_on = on; }
bool autotune() { return autotune_on; }

namespace conv_cuda {

namespace {

// Where cuDNN's and our vector loads can read and write.
bool is_aligned(const Tensor& x) { return reinterpret_cast<uintptr_t>(x.raw()) % 16 == 0; }
Tensor channels_last(const Tensor& x) {
  const Tensor t = x.to(Layout::channels_last);
  return is_aligned(t) ? t : t.clone();
}

Tensor with_channels(const Tensor& x, int64_t channels) {
  if (x.size(1) == channels) return x;
  const Tensor y = Tensor::empty({x.size(0), channels, x.size(2), x.size(3)}, x.dtype(), x.device(),
                                 Layout::channels_last);
  pad_channels(x, y);
  return y;
}

void warn_once(const std::string& convolution) {
  static std::mutex mutex;
  static auto* said = new std::set<std::string>;
  const std::lock_guard<std::mutex> lock(mutex);
  if (said->insert(convolution).second)
    std::fprintf(stderr, "warning: cuDNN has no kernel for %s; im2col and a GEMM take its place\n",
                 convolution.c_str());
}

const char* name_of(ConvPass pass) {
  return pass == ConvPass::forward      ? "conv2d"
         : pass == ConvPass::grad_input ? "conv2d_grad_input"
                                        : "conv2d_grad_weight";
}

// Whether cuDNN is to be asked at all.
bool wants_cudnn(DType dtype) {
  const CudaConv kernels = cuda_conv();
  if (kernels == CudaConv::cudnn) return true;
  return kernels == CudaConv::automatic && dtype != DType::f64 && !cuda::is_emulated();
}

// False when im2col has to do it.
bool by_cudnn(ProfileScope& scope, const ConvProblem& d, ConvPass pass, DType dtype, Math math,
              const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate = false) {
  cuda::Convolution c{d, pass, dtype, math, deterministic(), accumulate};
  std::string kernel;
  if (dtype != DType::f64 && cuda::convolve(c, autotune(), x.raw(), w.raw(), y.raw(),
                                            scope.active() ? &kernel : nullptr)) {
    if (scope.active()) scope.note(shape_note(d, kernel));
    return true;
  }
  const std::string what = shape_note(d, str(name_of(pass), " ", mtcki::name_of(dtype)));
  if (cuda_conv() == CudaConv::cudnn)
    throw Error(str("cuDNN has no kernel for ", what, "; use MTCKI_CONV=auto"));
  warn_once(what);
  return false;
}

}  // namespace

int64_t padded_channels(const ConvProblem& d, DType dtype, Math math) {
  if (d.groups != 1) return d.c;
  const int64_t unit = dtype == DType::bf16 ? 8 : dtype == DType::f32 && math == Math::tf32 ? 4 : 1;
  return std::max(d.c, unit);
}

Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x, const Tensor& w,
               const Conv2dOptions& o) {
  const DType dtype = x.dtype();
  Tensor y = Tensor::empty({d.n, d.k, d.p, d.q}, dtype, x.device(), Layout::channels_last);
  if (y.numel() == 0) return y;
  if (d.c == 0) {
    y.zero_();
    return y;
  }
  const Tensor in = channels_last(x);
  if (wants_cudnn(dtype)) {
    ConvProblem padded = d;
    padded.c = padded_channels(d, dtype, o.math);
    const Tensor copy = ohwi_weight(w, dtype, padded.c / d.groups, o.constant_weight);
    if (by_cudnn(scope, padded, ConvPass::forward, dtype, o.math, with_channels(in, padded.c), copy,
                 y))
      return y;
  }
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::forward(d, in, ohwi_weight(w, dtype, d.c / d.groups, o.constant_weight), y, o.math);
  return y;
}

namespace {

Tensor fresh_grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy,
                        const Tensor& w, const Conv2dOptions& o) {
  Tensor gx = Tensor::empty({d.n, d.c, d.h, d.w}, gy.dtype(), gy.device(), Layout::channels_last);
  if (gx.numel() == 0) return gx;
  if (gy.numel() == 0) {
    gx.zero_();
    return gx;
  }
  const Tensor g = channels_last(gy);
  const Tensor copy = ohwi_weight(w, gy.dtype(), d.c / d.groups, o.constant_weight);
  if (wants_cudnn(gy.dtype()) &&
      by_cudnn(scope, d, ConvPass::grad_input, gy.dtype(), o.math, gx, copy, g))
    return gx;
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::grad_input(d, g, copy, gx, o.math);
  return gx;
}

}  // namespace

Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& w,
                  const Conv2dOptions& o, Tensor sum) {
  if (sum.unique() && sum.numel() > 0 && gy.numel() > 0 && wants_cudnn(gy.dtype()) &&
      sum.layout() == Layout::channels_last && is_aligned(sum)) {
    const Tensor copy = ohwi_weight(w, gy.dtype(), d.c / d.groups, o.constant_weight);
    if (by_cudnn(scope, d, ConvPass::grad_input, gy.dtype(), o.math, sum, copy, channels_last(gy),
                 true))
      return sum;
  }
  Tensor gx = fresh_grad_input(scope, d, gy, w, o);
  if (!sum.defined()) return gx;
  GradientSum both(std::exchange(sum, Tensor()));
  both.add(std::move(gx));
  return both.take();
}

Tensor grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& x,
                   DType dtype, bool accept_bf16, const Conv2dOptions& o) {
  const int64_t cg = d.c / d.groups;
  const auto result = [&](DType type) {
    return Tensor::empty({d.k, cg, d.r, d.s}, type, gy.device(), Layout::channels_last);
  };
  if (d.k * cg * d.r * d.s == 0) return result(dtype);
  const Tensor g = channels_last(gy), in = channels_last(x);
  Tensor gw;
  const auto library = [&] {
    ConvProblem padded = d;
    padded.c = padded_channels(d, gy.dtype(), o.math);
    const bool same = padded.c == d.c;
    const Tensor ohwi =
        same ? result(gy.dtype())
             : Tensor::empty({d.k, d.r * d.s, padded.c / d.groups}, gy.dtype(), gy.device());
    if (!by_cudnn(scope, padded, ConvPass::grad_weight, gy.dtype(), o.math,
                  with_channels(in, padded.c), ohwi, g))
      return false;
    if (same) {
      gw = accept_bf16 ? ohwi : ohwi.to(dtype);
    } else {
      gw = result(dtype);
      drop_weight_padding(ohwi, gw);
    }
    return true;
  };
  if (cuda_conv() == CudaConv::automatic && gy.dtype() == DType::bf16 && narrow::supports(d)) {
    const narrow::Division by = narrow::division(d);
    const narrow::WeightStrides ohwi{d.r * d.s * cg, 1, d.s * cg, cg};
    const auto own = [&] {
      gw = result(dtype);
      narrow::grad_weight(d, g, in, gw, ohwi, by);
    };
    const bool contest = wants_cudnn(gy.dtype()) && autotune();
    if (contest ? first_is_quicker(shape_note(d, mtcki::name_of(dtype)), own, library)
                : narrow::preferred(d)) {
      own();
      if (scope.active())
        scope.note(shape_note(d, str("narrow ", by.in, "->", by.out, " in ", by.pieces)));
      return gw;
    }
  }
  if (wants_cudnn(gy.dtype()) && library()) return gw;
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  gw = result(gy.dtype() == DType::f64 ? DType::f64 : DType::f32);
  im2col::grad_weight(d, g, in, gw, o.math);
  return gw.to(dtype);
}

}  // namespace conv_cuda
}  // namespace mtcki
