#include "tensor/ops/softmax.h"

#include "autograd/functions.h"
#include "autograd/recorder.h"
#include "tensor/op_error.h"
#include "tensor/ops/contrast.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki {

namespace {

void check_row_weights(const char* op, const Tensor& rows, const Tensor& weights) {
  if (!weights.defined() || weights.shape() != rows.shape())
    OpError(op, "rows", rows, "row_weights", weights).shape("row_weights needs one entry per row");
}

// The batch mean of rows is sum_i c_i rows_i with c_i = w_i/N: what multiplies each row's gradient.
Tensor row_coefficients(const Tensor& rows, const Tensor& weights) {
  const double n = static_cast<double>(rows.numel());
  if (weights.defined()) return mul(weights.to(rows.dtype()), 1.0 / n);
  return Tensor::full(rows.shape(), 1.0 / n, rows.dtype(), rows.device());
}

Tensor weighted_sum(const Tensor& rows, const Tensor& coefficients) {
  return sum(mul(rows, coefficients));
}

// The batch mean of no rows is NaN, as any mean of nothing.
Tensor batch_mean(const Tensor& rows, const Tensor& coefficients) {
  return rows.numel() == 0 ? mean(rows) : weighted_sum(rows, coefficients);
}

}  // namespace

Variable softmax(const Variable& x) {
  Recorder r("softmax", {x});
  const Tensor y = softmax(x.data());
  if (r.needs(0))
    r.grad(0, [y = r.save(y)](const Tensor& gy) { return softmax_grad(gy, y.get()); });
  return r.finish(y);
}

Variable log_softmax(const Variable& x) {
  Recorder r("log_softmax", {x});
  const Tensor y = log_softmax(x.data());
  if (r.needs(0))
    r.grad(0, [y = r.save(y)](const Tensor& gy) { return log_softmax_grad(gy, y.get()); });
  return r.finish(y);
}

Variable cross_entropy(const Variable& logits, const Tensor& labels, double label_smoothing) {
  Recorder r("cross_entropy", {logits});
  const Tensor rows = cross_entropy_rows(logits.data(), labels, label_smoothing);
  const Tensor c = row_coefficients(rows, {});
  if (r.needs(0))
    r.grad(0, [x = r.save(logits.data()), labels = r.save(labels), c = r.save(c),
               label_smoothing](const Tensor& gy) {
      return cross_entropy_rows_grad(mul(c.get(), gy), x.get(), labels.get(), label_smoothing);
    });
  return r.finish(batch_mean(rows, c));
}

Variable kl_div(const Variable& p_logits, const Variable& q_logits, double temperature,
                const Tensor& row_weights) {
  Recorder r("kl_div", {p_logits, q_logits});
  const Tensor rows = kl_rows(p_logits.data(), q_logits.data(), temperature);
  if (row_weights.defined()) check_row_weights("kl_div", rows, row_weights);
  const Tensor c = row_coefficients(rows, row_weights);
  if (r.needs_any()) {
    const SavedTensor p = r.save(p_logits.data()), q = r.save(q_logits.data()), k = r.save(c);
    if (r.needs(0))
      r.grad(0, [p, q, k, temperature](const Tensor& gy) {
        return kl_rows_grad_p(mul(k.get(), gy), p.get(), q.get(), temperature);
      });
    if (r.needs(1))
      r.grad(1, [p, q, k, temperature](const Tensor& gy) {
        return kl_rows_grad_q(mul(k.get(), gy), p.get(), q.get(), temperature);
      });
  }
  return r.finish(batch_mean(rows, c));
}

Variable js_div(const Variable& p_logits, const Variable& q_logits, double temperature) {
  Recorder r("js_div", {p_logits, q_logits});
  const Tensor rows = js_rows(p_logits.data(), q_logits.data(), temperature);
  const Tensor c = row_coefficients(rows, {});
  if (r.needs_any()) {
    const SavedTensor p = r.save(p_logits.data()), q = r.save(q_logits.data()), k = r.save(c);
    if (r.needs(0))
      r.grad(0, [p, q, k, temperature](const Tensor& gy) {
        return js_rows_grad_p(mul(k.get(), gy), p.get(), q.get(), temperature);
      });
    if (r.needs(1))  // symmetric: the same formula with the roles exchanged
      r.grad(1, [p, q, k, temperature](const Tensor& gy) {
        return js_rows_grad_p(mul(k.get(), gy), q.get(), p.get(), temperature);
      });
  }
  return r.finish(batch_mean(rows, c));
}

Variable normalize(const Variable& x, double eps) {
  Recorder r("normalize", {x});
  const Tensor y = normalize(x.data(), eps);
  if (r.needs(0))
    r.grad(0, [x = r.save(x.data()), eps](const Tensor& gy) {
      return normalize_grad(gy, x.get(), eps);
    });
  return r.finish(y);
}

Variable info_nce(const Variable& u, const Variable& v, double tau, const Tensor& row_weights) {
  Recorder r("info_nce", {u, v});
  const InfoNce out = info_nce_rows(u.data(), v.data(), tau);
  check_row_weights("info_nce", out.rows, row_weights);
  const Tensor c = row_weights.to(out.rows.dtype());
  if (r.needs_any()) {
    const SavedTensor su = r.save(u.data()), sv = r.save(v.data()), lse = r.save(out.lse),
                      k = r.save(c);
    if (r.needs(0))
      r.grad(0, [su, sv, lse, k, tau](const Tensor& gy) {
        return info_nce_grad_u(mul(k.get(), gy), su.get(), sv.get(), lse.get(), tau);
      });
    if (r.needs(1))
      r.grad(1, [su, sv, lse, k, tau](const Tensor& gy) {
        return info_nce_grad_v(mul(k.get(), gy), su.get(), sv.get(), lse.get(), tau);
      });
  }
  return r.finish(weighted_sum(out.rows, c));
}

}  // namespace mtcki
