// Reductions, in fixed order. Float inputs accumulate in f64 where the row is long. Results are
// plain unless it says otherwise.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace mtcki {

// Over the listed dimensions; all of them when the list is empty. keepdim keeps them as 1.
Tensor sum(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
Tensor mean(const Tensor& x, const std::vector<int>& dims = {}, bool keepdim = false);
// Maximum over one dimension, and the index (i64) of the first of the largest.
Tensor max(const Tensor& x, int dim, bool keepdim = false);
Tensor argmax(const Tensor& x, int dim);
// Euclidean norm of everything, f64 accumulation; a scalar tensor of x's dtype.
Tensor norm(const Tensor& x);

// Adjoint pair of broadcasting: copy x to a larger shape, in that layout; sum a gradient back to a
// smaller one. Where there is nothing to do the result is x itself, as of sum over dimensions of
// size 1.
Tensor broadcast_to(const Tensor& x, const Shape& shape, Layout layout = Layout::plain);
Tensor sum_to(const Tensor& x, const Shape& shape);

// Number of rows of logits [N,K] whose label [N] i64 is among the k largest (ties count in favour
// of the smaller index, as in torch.topk): a scalar i64 on their device, or that number on the
// host, for which a GPU is waited for.
Tensor topk_correct(const Tensor& logits, const Tensor& labels, int k);
int64_t count_topk_correct(const Tensor& logits, const Tensor& labels, int k);

}  // namespace mtcki
