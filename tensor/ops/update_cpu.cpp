#include <algorithm>

#include "tensor/ops/reduce_kernels.h"
#include "tensor/ops/update_kernels.h"
#include "tensor/ops/update_rules.h"
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
  parallel_for(std::ssize(pieces), 2, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const Piece& piece = pieces[static_cast<size_t>(k)];
      f(piece.tensor, piece.begin, piece.end);
    }
  });
}

template <class T, class Rule>
void apply_rule(const typename Rule::Factors& factors, T* a, const T* source, T* b, T* c,
                int64_t n) {
  const typename Rule::template In<T> in(factors);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) in.apply(a + i, source[i], b + i, c + i);
}

template <class Rule>
void update(const char* op, const typename Rule::Factors& factors, const TensorList& a,
            const TensorList& source, const TensorList& b, const TensorList& c) {
  for_pieces(a, [&](size_t k, int64_t begin, int64_t end) {
    MTCKI_DISPATCH_FLOAT(a[k].dtype(), op, T, {
      // A rule that needs no third or fourth tensor does not touch it: any pointer will do.
      const auto at = [&](const TensorList& list) {
        return (list.empty() ? a : list)[k].template data<T>() + begin;
      };
      apply_rule<T, Rule>(factors, at(a), at(source), at(b), at(c), end - begin);
    });
  });
}

}  // namespace

void sgd_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& buffers,
                    const SgdUpdate& u, const KeptCopies&) {
  const SgdRule rule(u, !buffers.empty());
  update<SgdRule>("sgd_update_", rule.factors(u.lr.value(), u.step.value(), u.grad_scale.value()),
                  params, grads, buffers, {});
}

void adam_update_cpu(const TensorList& params, const TensorList& grads, const TensorList& exp_avg,
                     const TensorList& exp_avg_sq, const AdamUpdate& u, const KeptCopies&) {
  update<AdamRule>("adam_update_",
                   AdamRule(u).factors(u.lr.value(), u.step.value(), u.grad_scale.value()), params,
                   grads, exp_avg, exp_avg_sq);
}

void ema_update_cpu(const TensorList& dst, const TensorList& src, const Scalar& decay) {
  update<EmaRule>("ema_update_", {decay.value()}, dst, src, {}, {});
}

double sum_of_squares_cpu(const TensorList& tensors) {
  double total = 0;
  for (const Tensor& t : tensors) total += sum_of_squares_cpu(t);
  return total;
}

}  // namespace mtcki
