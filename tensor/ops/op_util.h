// What the .cpp of every op shares: the bf16 detour of the CPU, the bytes that a profiler scope
// reports, checks.
#pragma once

#include "tensor/op_error.h"
#include "tensor/ops/on_device.h"
#include "tensor/profiler.h"
#include "tensor/tensor.h"

namespace mtcki {

inline bool is_bf16(const Tensor& x) { return x.defined() && x.dtype() == DType::bf16; }
// CPU kernels know f32 and f64: bf16 operands are computed in f32, and the result is rounded back
// with Tensor::to. Everything else, undefined tensors too, passes through. CUDA kernels read and
// write bf16 themselves and compute in f32.
inline Tensor widen(const Tensor& x) {
  return is_bf16(x) && x.device().is_cpu() ? x.to(DType::f32) : x;
}
// bf16 in f32 on every device: for terms of a sum, whose rounding would add up.
inline Tensor at_least_f32(const Tensor& x) { return is_bf16(x) ? x.to(DType::f32) : x; }
inline Tensor narrow_to(const Tensor& y, DType dtype) { return y.defined() ? y.to(dtype) : y; }

inline Traffic bytes_of(const Tensor& x) {
  return x.defined() ? Traffic(static_cast<double>(x.nbytes()), &x) : Traffic();
}
template <class... Ts>
Traffic bytes_of(const Tensor& x, const Ts&... rest) {
  return bytes_of(x) + bytes_of(rest...);
}

// How many values of an index tensor the argument checks can read: those on the host. CUDA kernels
// check their own.
inline int64_t checkable(const Tensor& x) { return x.device().is_cpu() ? x.numel() : 0; }

// Index tensors and the like, whose dtype is checked by itself.
inline void check_same_device(const char* op, const char* a_name, const Tensor& a,
                              const char* b_name, const Tensor& b) {
  if (a.device() != b.device())
    OpError(op, a_name, a, b_name, b).device(a_name, " and ", b_name, " are on different devices");
}

// A dimension, counted from the end where it is negative, as its number.
inline int check_dim(const char* op, const Tensor& x, int dim) {
  const int rank = x.rank();
  if (dim < -rank || dim >= rank)
    OpError(op, "input", x).shape("dimension ", dim, " is outside rank ", rank);
  return dim < 0 ? dim + rank : dim;
}

inline void check_defined(const char* op, const Tensor& x) {
  if (!x.defined()) OpError(op, "input", x).argument("the input is undefined");
}

// labels i64 [N] of logits [N,K], in 0..K-1 where the host can read them.
inline void check_labels(const char* op, const Tensor& logits, const Tensor& labels) {
  if (!labels.defined() || labels.dtype() != DType::i64)
    OpError(op, "logits", logits, "labels", labels).dtype("labels need dtype i64");
  if (labels.shape() != Shape{logits.size(0)})
    OpError(op, "logits", logits, "labels", labels)
        .shape("labels need one entry per row of logits");
  check_same_device(op, "logits", logits, "labels", labels);
  const int64_t* p = labels.data<int64_t>();
  for (int64_t i = 0; i < checkable(labels); ++i)
    if (p[i] < 0 || p[i] >= logits.size(1))
      OpError(op, "logits", logits, "labels", labels)
          .argument("label ", p[i], " of row ", i, " is outside 0..", logits.size(1) - 1);
}

}  // namespace mtcki
