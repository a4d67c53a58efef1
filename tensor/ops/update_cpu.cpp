#include <algorithm>
#include <cmath>

#include "tensor/ops/reduce_kernels.h"
#include "tensor/ops/update_kernels.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// One parallel pass over the elements of all tensors: f(tensor index, begin, end).
template <class F>
void for_pieces(const TensorList& list, const F& f) {
  constexpr int64_t kPiece = 1 << 14;
  struct Piece {
    size_t tensor;
    int64_t begin, end;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < list.size(); ++i) {
    const int64_t n = list[i].numel();
    for (int64_t begin = 0; begin < n; begin += kPiece)
      pieces.push_back({i, begin, std::min(n, begin + kPiece)});
  }
  parallel_for(static_cast<int64_t>(pieces.size()), 2, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const Piece& piece = pieces[static_cast<size_t>(k)];
      f(piece.tensor, piece.begin, piece.end);
    }
  });
}

template <class T>
void sgd_piece(T* p, const T* g, T* buffer, int64_t n, const SgdUpdate& u) {
  const T lr = static_cast<T>(u.lr.value()), scale = static_cast<T>(u.grad_scale.value());
  const bool first_step = u.step.value() == 1;
  const T coupled = u.decoupled ? T(0) : static_cast<T>(u.weight_decay);
  const T keep = u.decoupled ? static_cast<T>(1 - u.lr.value() * u.weight_decay) : T(1);
  if (!buffer) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) p[i] = keep * p[i] - lr * (scale * g[i] + coupled * p[i]);
    return;
  }
  // The first step sets the buffer to the gradient; 0*buffer would let a stale NaN through.
  if (first_step) std::fill(buffer, buffer + n, T(0));
  const T momentum = static_cast<T>(u.momentum);
  const T fresh = first_step ? T(1) : static_cast<T>(1 - u.dampening);
  if (u.nesterov) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const T d = scale * g[i] + coupled * p[i];
      const T b = momentum * buffer[i] + fresh * d;
      buffer[i] = b;
      p[i] = keep * p[i] - lr * (d + momentum * b);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
      const T b = momentum * buffer[i] + fresh * (scale * g[i] + coupled * p[i]);
      buffer[i] = b;
      p[i] = keep * p[i] - lr * b;
    }
  }
}

template <class T>
void adam_piece(T* p, const T* g, T* m, T* v, int64_t n, const AdamUpdate& u) {
  const double correct1 = 1 - std::pow(u.beta1, u.step.value());
  const double correct2 = 1 - std::pow(u.beta2, u.step.value());
  const T step = static_cast<T>(u.lr.value() / correct1),
          root = static_cast<T>(1 / std::sqrt(correct2));
  const T beta1 = static_cast<T>(u.beta1), beta2 = static_cast<T>(u.beta2);
  const T rest1 = static_cast<T>(1 - u.beta1), rest2 = static_cast<T>(1 - u.beta2);
  const T eps = static_cast<T>(u.eps), scale = static_cast<T>(u.grad_scale.value());
  const T coupled = u.decoupled ? T(0) : static_cast<T>(u.weight_decay);
  const T keep = u.decoupled ? static_cast<T>(1 - u.lr.value() * u.weight_decay) : T(1);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T d = scale * g[i] + coupled * p[i];
    m[i] = beta1 * m[i] + rest1 * d;
    v[i] = beta2 * v[i] + rest2 * d * d;
    p[i] = keep * p[i] - step * m[i] / (std::sqrt(v[i]) * root + eps);
  }
}

template <class T>
void ema_piece(T* dst, const T* src, int64_t n, double decay) {
  const T keep = static_cast<T>(decay), rest = static_cast<T>(1 - decay);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dst[i] = keep * dst[i] + rest * src[i];
}

}  // namespace

void sgd_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& buffers,
                    const SgdUpdate& u) {
  for_pieces(params, [&](size_t k, int64_t begin, int64_t end) {
    MTCKI_DISPATCH_FLOAT(params[k].dtype(), "sgd_update_", T, {
      T* buffer = buffers.empty() ? nullptr : buffers[k].data<T>() + begin;
      sgd_piece<T>(params[k].data<T>() + begin, grads[k].data<T>() + begin, buffer, end - begin, u);
    });
  });
}

void adam_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& exp_avg,
                     const TensorList& exp_avg_sq, const AdamUpdate& u) {
  for_pieces(params, [&](size_t k, int64_t begin, int64_t end) {
    MTCKI_DISPATCH_FLOAT(params[k].dtype(), "adam_update_", T, {
      adam_piece<T>(params[k].data<T>() + begin, grads[k].data<T>() + begin,
                    exp_avg[k].data<T>() + begin, exp_avg_sq[k].data<T>() + begin, end - begin, u);
    });
  });
}

void ema_update_cpu(const TensorList& dst, const TensorList& src, const Scalar& decay) {
  for_pieces(dst, [&](size_t k, int64_t begin, int64_t end) {
    MTCKI_DISPATCH_FLOAT(dst[k].dtype(), "ema_update_", T, {
      ema_piece<T>(dst[k].data<T>() + begin, src[k].data<T>() + begin, end - begin, decay.value());
    });
  });
}

double sum_of_squares_cpu(const TensorList& tensors) {
  double total = 0;
  for (const Tensor& t : tensors) total += sum_of_squares_cpu(t);
  return total;
}

}  // namespace mtcki
