// What the .cpp of every op shares: the bf16 detour and the bytes that a profiler scope reports.
#pragma once

#include "tensor/op_error.h"
#include "tensor/profiler.h"
#include "tensor/tensor.h"

namespace mtcki {

inline bool is_bf16(const Tensor& x) { return x.defined() && x.dtype() == DType::bf16; }
// CPU kernels know f32 and f64: bf16 operands are computed in f32, and the result is rounded back
// with Tensor::to. Everything else, undefined tensors too, passes through.
inline Tensor widen(const Tensor& x) { return is_bf16(x) ? x.to(DType::f32) : x; }
inline Tensor narrow_to(const Tensor& y, DType dtype) { return y.defined() ? y.to(dtype) : y; }

inline double bytes_of(const Tensor& x) {
  return x.defined() ? static_cast<double>(x.nbytes()) : 0;
}
template <class... Ts>
double bytes_of(const Tensor& x, const Ts&... rest) {
  return bytes_of(x) + bytes_of(rest...);
}

// How many values of an index tensor the argument checks can read: those on the host. CUDA kernels
// check their own.
inline int64_t checkable(const Tensor& x) { return x.device().is_cpu() ? x.numel() : 0; }

// The branch at which a CUDA build takes its own kernels.
inline void cpu_only(const char* op, const Tensor& x) {
  if (x.device().is_cuda()) no_cuda(op);
}

}  // namespace mtcki
