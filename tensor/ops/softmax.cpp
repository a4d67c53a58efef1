#include "tensor/ops/softmax.h"

#include "tensor/ops/op_util.h"
#include "tensor/ops/softmax_kernels.h"

namespace mtcki {

namespace {

Tensor rows_of(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  if (x.rank() < 1) OpError(op, name, x).shape(name, " needs rank 1 or more");
  if (x.size(-1) == 0) OpError(op, name, x).shape("the last dimension is empty");
  return widen(x.plain());
}

void check_logits(const char* op, const char* name, const Tensor& x) {
  check_floating(op, name, x);
  check_rank(op, name, x, 2);
  if (x.size(1) == 0) OpError(op, name, x).shape(name, " has no classes");
}

Tensor row_gradients(const char* op, const Tensor& g, const Tensor& logits) {
  check_floating(op, "g", g);
  if (g.shape() != Shape{logits.size(0)})
    OpError(op, "g", g, "logits", logits).shape("g needs one entry per row of logits");
  check_same_device(op, "g", g, "logits", logits);
  return g.to(widen(logits).dtype());
}

double work(const Tensor& x, double per_element) {
  return per_element * static_cast<double>(x.numel());
}

void check_smoothing(const char* op, const Tensor& logits, double e) {
  if (!(e >= 0 && e <= 1))
    OpError(op, "logits", logits).argument("label_smoothing needs to be in [0, 1], got ", e);
}

void check_pair(const char* op, const Tensor& p, const Tensor& q, double temperature) {
  check_logits(op, "p_logits", p);
  check_logits(op, "q_logits", q);
  check_same_shape(op, "p_logits", p, "q_logits", q);
  check_same_dtype_device(op, "p_logits", p, "q_logits", q);
  if (!(temperature > 0))
    OpError(op, "p_logits", p).argument("temperature needs to be positive, got ", temperature);
}

Tensor divergence(const char* op, Divergence kind, const Tensor& p, const Tensor& q,
                  double temperature) {
  check_pair(op, p, q, temperature);
  const Tensor wp = widen(p), wq = widen(q);
  Tensor loss = Tensor::empty({p.size(0)}, wp.dtype(), p.device());
  ProfileScope scope(op, work(p, 12), bytes_of(wp, wq, loss));
  MTCKI_ON_DEVICE(wp, divergence, kind, wp, wq, temperature, loss);
  return loss.to(p.dtype());
}

Tensor divergence_grad(const char* op, Divergence kind, Side side, const Tensor& g, const Tensor& p,
                       const Tensor& q, double temperature) {
  check_pair(op, p, q, temperature);
  const Tensor wg = row_gradients(op, g, p), wp = widen(p), wq = widen(q);
  Tensor gx = Tensor::empty_like(wp);
  ProfileScope scope(op, work(p, 14), bytes_of(wp, wq, gx));
  MTCKI_ON_DEVICE(wp, divergence_grad, kind, side, wg, wp, wq, temperature, gx);
  return gx.to(p.dtype());
}

Tensor softmax_forward(const char* op, const Tensor& x, bool logarithm) {
  const Tensor in = rows_of(op, "input", x);
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(op, work(x, 5), bytes_of(in, y));
  MTCKI_ON_DEVICE(in, softmax, in, y, logarithm);
  return y.to(x.dtype());
}

Tensor softmax_backward(const char* op, const Tensor& gy, const Tensor& y, bool logarithm) {
  check_floating(op, "gy", gy);
  check_floating(op, "y", y);
  check_same_shape(op, "gy", gy, "y", y);
  check_same_dtype_device(op, "gy", gy, "y", y);
  const Tensor g = rows_of(op, "gy", gy), out = rows_of(op, "y", y);
  Tensor gx = Tensor::empty_like(g);
  ProfileScope scope(op, work(y, 4), bytes_of(g, out, gx));
  MTCKI_ON_DEVICE(g, softmax_grad, g, out, gx, logarithm);
  return gx.to(gy.dtype());
}

}  // namespace

Tensor softmax(const Tensor& x) { return softmax_forward("softmax", x, false); }
Tensor softmax_grad(const Tensor& gy, const Tensor& y) {
  return softmax_backward("softmax_grad", gy, y, false);
}
Tensor log_softmax(const Tensor& x) { return softmax_forward("log_softmax", x, true); }
Tensor log_softmax_grad(const Tensor& gy, const Tensor& y) {
  return softmax_backward("log_softmax_grad", gy, y, true);
}

Tensor cross_entropy_rows(const Tensor& logits, const Tensor& labels, double label_smoothing) {
  const char* op = "cross_entropy_rows";
  check_logits(op, "logits", logits);
  check_labels(op, logits, labels);
  check_smoothing(op, logits, label_smoothing);
  const Tensor in = widen(logits);
  Tensor loss = Tensor::empty({logits.size(0)}, in.dtype(), logits.device());
  ProfileScope scope(op, work(logits, 5), bytes_of(in, labels, loss));
  MTCKI_ON_DEVICE(in, cross_entropy, in, labels, label_smoothing, loss);
  return loss.to(logits.dtype());
}

Tensor cross_entropy_rows_grad(const Tensor& g, const Tensor& logits, const Tensor& labels,
                               double label_smoothing) {
  const char* op = "cross_entropy_rows_grad";
  check_logits(op, "logits", logits);
  check_labels(op, logits, labels);
  check_smoothing(op, logits, label_smoothing);
  const Tensor wg = row_gradients(op, g, logits), in = widen(logits);
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, work(logits, 7), bytes_of(in, labels, gx));
  MTCKI_ON_DEVICE(in, cross_entropy_grad, wg, in, labels, label_smoothing, gx);
  return gx.to(logits.dtype());
}

Tensor kl_rows(const Tensor& p_logits, const Tensor& q_logits, double temperature) {
  return divergence("kl_rows", Divergence::kl, p_logits, q_logits, temperature);
}
Tensor kl_rows_grad_p(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits,
                      double temperature) {
  return divergence_grad("kl_rows_grad_p", Divergence::kl, Side::p, g, p_logits, q_logits,
                         temperature);
}
Tensor kl_rows_grad_q(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits,
                      double temperature) {
  return divergence_grad("kl_rows_grad_q", Divergence::kl, Side::q, g, p_logits, q_logits,
                         temperature);
}

Tensor js_rows(const Tensor& p_logits, const Tensor& q_logits, double temperature) {
  return divergence("js_rows", Divergence::js, p_logits, q_logits, temperature);
}
Tensor js_rows_grad_p(const Tensor& g, const Tensor& p_logits, const Tensor& q_logits,
                      double temperature) {
  return divergence_grad("js_rows_grad_p", Divergence::js, Side::p, g, p_logits, q_logits,
                         temperature);
}

Tensor normalize(const Tensor& x, double eps) {
  const char* op = "normalize";
  const Tensor in = rows_of(op, "input", x);
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(op, work(x, 3), bytes_of(in, y));
  MTCKI_ON_DEVICE(in, normalize, in, y, eps);
  return y.to(x.dtype());
}

Tensor normalize_grad(const Tensor& gy, const Tensor& x, double eps) {
  const char* op = "normalize_grad";
  check_floating(op, "gy", gy);
  check_floating(op, "input", x);
  check_same_shape(op, "gy", gy, "input", x);
  check_same_dtype_device(op, "gy", gy, "input", x);
  const Tensor g = rows_of(op, "gy", gy), in = rows_of(op, "input", x);
  Tensor gx = Tensor::empty_like(in);
  ProfileScope scope(op, work(x, 6), bytes_of(g, in, gx));
  MTCKI_ON_DEVICE(g, normalize_grad, g, in, gx, eps);
  return gx.to(gy.dtype());
}

}  // namespace mtcki
