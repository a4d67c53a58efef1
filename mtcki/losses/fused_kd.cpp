#include "mtcki/losses/fused_kd.h"

#include "autograd/functions.h"
#include "tensor/comm.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/softmax.h"

namespace mtcki {

namespace {

Tensor weighted_sum(const std::vector<Tensor>& parts, const std::vector<double>& weights) {
  Tensor total = mul(parts.at(0), weights.at(0));
  for (size_t m = 1; m < parts.size(); ++m) add_(total, parts[m], weights.at(m));
  return total;
}

// Σ_m omega[:, m] z_m; omega [N, M].
Tensor sample_weighted(const std::vector<Tensor>& logits, const Tensor& omega) {
  Tensor total;
  for (size_t m = 0; m < logits.size(); ++m) {
    const int64_t column = static_cast<int64_t>(m);
    const Tensor part = mul(logits[m], narrow(omega, 1, column, column + 1));
    total = total.defined() ? add(total, part) : part;
  }
  return total;
}

// One column [N, 1] per teacher, side by side.
template <class Rows>
Tensor columns(const std::vector<Tensor>& logits, const Rows& rows) {
  std::vector<Tensor> parts;
  for (const Tensor& z : logits) parts.push_back(rows(z).reshape({z.size(0), 1}));
  return cat(parts, 1);
}

Tensor entropy_rows(const Tensor& z) {
  const Tensor log_p = log_softmax(z);
  return neg(sum(mul(exp(log_p), log_p), {1}));
}

}  // namespace

Tensor fused_targets(Fuse mode, const std::vector<Tensor>& logits,
                     const std::vector<double>& weights, double temperature, const Tensor& labels) {
  const size_t count = logits.size();
  if (mode == Fuse::mean || count == 1)
    return count == 1 ? logits.at(0) : weighted_sum(logits, weights);
  if (mode == Fuse::prob) {
    std::vector<Tensor> p;
    for (const Tensor& z : logits) p.push_back(softmax(mul(z, 1.0 / temperature)));
    // softmax(T log P / T) = P
    return mul(log(add(weighted_sum(p, weights), 1e-30)), temperature);
  }
  if (mode == Fuse::conf) {
    const Tensor share =
        softmax(columns(logits, [&](const Tensor& z) { return cross_entropy_rows(z, labels); }));
    return sample_weighted(logits, mul(add(neg(share), 1.0), 1.0 / static_cast<double>(count - 1)));
  }
  return sample_weighted(logits, softmax(neg(columns(logits, entropy_rows))));
}

Variable fused_kd(const Tensor& targets, const Variable& student_logits, double temperature,
                  const Tensor& counts) {
  return mul(kl_div(Variable(targets), student_logits, temperature, counts),
             temperature * temperature);
}

Tensor agreement_weights(const Tensor& targets, const std::vector<Tensor>& logits,
                         const std::vector<double>& weights, double exponent) {
  const Tensor decided = argmax(targets, 1);
  Tensor share = Tensor::zeros(decided.shape(), targets.dtype(), targets.device());
  for (size_t m = 0; m < logits.size(); ++m)
    add_(share, equal(argmax(logits[m], 1), decided).to(targets.dtype()), weights[m]);
  const Tensor counts = exp(mul(log(add(share, 1e-30)), exponent));
  return div(counts, add(mean(communicator().all_gather(counts)), 1e-30));
}

}  // namespace mtcki
