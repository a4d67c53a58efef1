#include "tensor/ops/conv/cuda.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "tensor/cuda/conv.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/timing.h"
#include "tensor/error.h"
#include "tensor/ops/conv/cuda_kernels.h"
#include "tensor/ops/conv/narrow_cuda.h"
#include "tensor/ops/conv/wgmma_cuda.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/gradient_sum.h"
#include "tensor/ops/weight_copies.h"

namespace mtcki {

namespace conv_cuda {

namespace {

// Whether `first` is quicker than `second`, which computes the same; found out once per process for
// each key. `second` may say false: it cannot. While a graph is captured nothing can be timed: true
// for a new key.
bool first_is_quicker(const std::string& key, const std::function<void()>& first,
                      const std::function<bool()>& second) {
  static std::mutex mutex;
  static auto* winners = new std::map<std::string, bool>;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto known = winners->find(key);
  if (known != winners->end()) return known->second;
  if (cuda::capturing()) return true;
  const bool wins =
      !second() || cuda::microseconds_of(first) <= cuda::microseconds_of([&] { second(); });
  return winners->emplace(key, wins).first->second;
}

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
  const CudaConv kernels = math_settings().cuda_conv;
  if (kernels == CudaConv::cudnn) return true;
  return kernels == CudaConv::automatic && dtype != DType::f64 && !cuda::is_emulated();
}

// False when im2col has to do it.
bool by_cudnn(ProfileScope& scope, const ConvProblem& d, ConvPass pass, DType dtype, Math math,
              const Tensor& x, const Tensor& w, const Tensor& y, bool accumulate = false) {
  cuda::Convolution c{d, pass, dtype, math, math_settings().deterministic, accumulate};
  std::string kernel;
  if (dtype != DType::f64 && cuda::convolve(c, math_settings().autotune, x.raw(), w.raw(), y.raw(),
                                            scope.active() ? &kernel : nullptr)) {
    if (scope.active()) scope.note(shape_note(d, kernel));
    return true;
  }
  const std::string what = shape_note(d, str(name_of(pass), " ", mtcki::name_of(dtype)));
  if (math_settings().cuda_conv == CudaConv::cudnn)
    throw Error(str("cuDNN has no kernel for ", what, "; use MTCKI_CONV=auto"));
  warn_once(what);
  return false;
}

// Our kernel for forward or input gradient, where there is one.
template <class Function>
struct OwnKernel {
  const char* name = nullptr;
  bool preferred = false;  // without timing
  Function* run = nullptr;
};
OwnKernel<decltype(narrow::forward)> own_forward(const ConvProblem& d) {
  if (wgmma::supports_forward(d)) return {"wgmma", wgmma::preferred(d), wgmma::forward};
  if (narrow::supports_whole(d)) return {"narrow", narrow::preferred_whole(d), narrow::forward};
  return {};
}
OwnKernel<decltype(narrow::grad_input)> own_grad_input(const ConvProblem& d) {
  if (wgmma::supports_grad_input(d)) return {"wgmma", wgmma::preferred(d), wgmma::grad_input};
  if (narrow::supports_whole(d)) return {"narrow", narrow::preferred_whole(d), narrow::grad_input};
  return {};
}

// Whether our kernel, which can do it, is to: with autotune the quicker of it and the library's.
bool takes_own(const ConvProblem& d, ConvPass pass, DType dtype, bool preferred,
               const std::function<void()>& own, const std::function<bool()>& library) {
  if (math_settings().cuda_conv != CudaConv::automatic || dtype != DType::bf16) return false;
  if (!wants_cudnn(dtype) || !math_settings().autotune) return preferred;
  return first_is_quicker(shape_note(d, name_of(pass)), own, library);
}

}  // namespace

int64_t padded_channels(const ConvProblem& d, DType dtype, Math math) {
  if (d.groups != 1) return d.c;
  const int64_t unit = dtype == DType::bf16 ? 8 : dtype == DType::f32 && math == Math::tf32 ? 4 : 1;
  return std::max(d.c, unit);
}

Tensor forward(ProfileScope& scope, const ConvProblem& d, const Tensor& x, const Tensor& w,
               const Conv2dOptions& o, const Tensor& residual) {
  const DType dtype = x.dtype();
  Tensor y = Tensor::empty({d.n, d.k, d.p, d.q}, dtype, x.device(), Layout::channels_last);
  if (y.numel() == 0) return y;
  const Tensor more = residual.defined() ? channels_last(residual) : Tensor();
  const auto with_residual = [&] {
    if (more.defined()) add_(y, more);
    return y;
  };
  if (d.c == 0) {
    y.zero_();
    return with_residual();
  }
  const Tensor in = channels_last(x);
  const auto library = [&] {
    ConvProblem padded = d;
    padded.c = padded_channels(d, dtype, o.math);
    const Tensor copy = ohwi_weight(w, dtype, padded.c / d.groups, o.constant_weight);
    return by_cudnn(scope, padded, ConvPass::forward, dtype, o.math, with_channels(in, padded.c),
                    copy, y);
  };
  const Tensor copy = ohwi_weight(w, dtype, d.c / d.groups, o.constant_weight);
  const auto ours = own_forward(d);
  const auto own = [&] { ours.run(d, in, copy, more, y); };
  if (ours.run && is_aligned(copy) &&
      takes_own(d, ConvPass::forward, dtype, ours.preferred, own, [&] {
        const bool done = library();
        if (done) with_residual();
        return done;
      })) {
    own();
    if (scope.active()) scope.note(shape_note(d, ours.name));
    return y;
  }
  if (wants_cudnn(dtype) && library()) return with_residual();
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::forward(d, in, copy, y, o.math);
  return with_residual();
}

Tensor grad_input(ProfileScope& scope, const ConvProblem& d, const Tensor& gy, const Tensor& w,
                  const Conv2dOptions& o, Tensor sum) {
  const DType dtype = gy.dtype();
  const Shape shape{d.n, d.c, d.h, d.w};
  bool adds = sum.unique() && sum.numel() > 0 && gy.numel() > 0 &&
              sum.layout() == Layout::channels_last && is_aligned(sum);
  // Into the sum where the kernel can add; else the sum is added afterwards.
  Tensor gx = adds ? std::exchange(sum, Tensor())
                   : Tensor::empty(shape, dtype, gy.device(), Layout::channels_last);
  const auto finish = [&] {
    if (!sum.defined()) return gx;
    GradientSum both(std::exchange(sum, Tensor()));
    both.add(std::exchange(gx, Tensor()));
    return both.take();
  };
  if (gx.numel() == 0) return finish();
  if (gy.numel() == 0) {
    gx.zero_();
    return finish();
  }
  const Tensor g = channels_last(gy);
  const Tensor copy = ohwi_weight(w, dtype, d.c / d.groups, o.constant_weight);
  const auto library = [&](const Tensor& into) {
    return by_cudnn(scope, d, ConvPass::grad_input, dtype, o.math, into, copy, g, adds);
  };
  const auto ours = own_grad_input(d);
  const auto own = [&](const Tensor& into) { ours.run(d, g, copy, into, adds); };
  Tensor trial;  // what a contest writes to
  const auto in_trial = [&](const auto& kernel) {
    if (!trial.defined()) trial = Tensor::empty(shape, dtype, gy.device(), Layout::channels_last);
    return kernel(trial);
  };
  if (ours.run && is_aligned(copy) &&
      takes_own(
          d, ConvPass::grad_input, dtype, ours.preferred, [&] { in_trial(own); },
          [&] { return in_trial(library); })) {
    own(gx);
    if (scope.active()) scope.note(shape_note(d, ours.name));
    return finish();
  }
  if (wants_cudnn(dtype) && library(gx)) return finish();
  if (adds) {
    adds = false;
    sum = std::exchange(gx, Tensor::empty(shape, dtype, gy.device(), Layout::channels_last));
    if (wants_cudnn(dtype) && library(gx)) return finish();
  }
  if (scope.active()) scope.note(shape_note(d, "im2col"));
  im2col::grad_input(d, g, copy, gx, o.math);
  return finish();
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
  if (narrow::supports(d)) {
    const narrow::Division by = narrow::division(d);
    const narrow::WeightStrides ohwi{d.r * d.s * cg, 1, d.s * cg, cg};
    const auto own = [&] {
      gw = result(dtype);
      narrow::grad_weight(d, g, in, gw, ohwi, by);
    };
    if (takes_own(d, ConvPass::grad_weight, gy.dtype(), narrow::preferred(d), own, library)) {
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
