#include "tensor/ops/conv_cuda.h"

#include <atomic>
#include <cstdlib>

#include "tensor/error.h"
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

Tensor channels_last(const Tensor& x) { return x.to(Layout::channels_last); }

}  // namespace

Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x, const Tensor& w,
               const Conv2dOptions& o) {
  Tensor y = Tensor::empty({d.n, d.k, d.p, d.q}, x.dtype(), x.device(), Layout::channels_last);
  if (y.numel() == 0) return y;
  if (d.c == 0) {
    y.zero_();
    return y;
  }
  const Tensor in = channels_last(x);
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::forward(d, in, ohwi_weight(w.plain(), x.dtype(), d.c / d.groups, o.constant_weight), y,
                  o.math);
  return y;
}

Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& w,
                  const Conv2dOptions& o) {
  Tensor gx = Tensor::empty({d.n, d.c, d.h, d.w}, gy.dtype(), gy.device(), Layout::channels_last);
  if (gx.numel() == 0) return gx;
  if (d.k == 0) {
    gx.zero_();
    return gx;
  }
  const Tensor g = channels_last(gy);
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::grad_input(d, g, ohwi_weight(w.plain(), gy.dtype(), d.c / d.groups, o.constant_weight),
                     gx, o.math);
  return gx;
}

Tensor grad_weight(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& x,
                   DType dtype, const Conv2dOptions& o) {
  const int64_t cg = d.c / d.groups;
  Tensor gw = Tensor::empty({d.k, cg, d.r, d.s}, dtype, gy.device());
  if (gw.numel() == 0) return gw;
  const Tensor g = channels_last(gy), in = channels_last(x);
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  const Tensor sums = Tensor::empty(
      {d.k, d.r * d.s, cg}, gy.dtype() == DType::f64 ? DType::f64 : DType::f32, gy.device());
  im2col::grad_weight(d, g, in, sums, o.math);
  weight_from_ohwi(sums, gw);
  return gw;
}

}  // namespace conv_cuda
}  // namespace mtcki
