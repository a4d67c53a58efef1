#include "tensor/ops/contrast.h"

#include <algorithm>

#include "tensor/ops/contrast_kernels.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

void check_rows(const char* op, const Tensor& u, const Tensor& v, double tau) {
  check_floating(op, "u", u);
  check_rank(op, "u", u, 2);
  check_rank(op, "v", v, 2);
  check_same_dtype_device(op, "u", u, "v", v);
  if (u.size(1) != v.size(1))
    OpError(op, "u", u, "v", v).shape("u has ", u.size(1), " columns, v has ", v.size(1));
  if (v.size(0) < std::max<int64_t>(1, u.size(0)))
    OpError(op, "u", u, "v", v)
        .shape("u has ", u.size(0), " rows, v has ", v.size(0), ": row i of v is row i's positive");
  if (!(tau > 0)) OpError(op, "u", u).argument("tau needs to be positive, got ", tau);
}

void check_gradient(const char* op, const Tensor& u, const Tensor& g, const Tensor& lse) {
  for (const Tensor& t : {g, lse}) {
    if (!t.defined() || t.shape() != Shape{u.size(0)})
      OpError(op, "u", u, "g", g, "lse", lse).shape("g and lse need one entry per row of u");
    check_same_device(op, "u", u, "g or lse", t);
  }
}

// f(begin, end) over chunks of u's rows whose similarities take about 4 MiB of f32, on a GPU 64.
template <class F>
void for_chunks(const Tensor& u, const Tensor& v, const F& f) {
  const int64_t rows = u.size(0);
  const int64_t elements = u.device().is_cuda() ? 1 << 24 : 1 << 20;
  const int64_t chunk = std::clamp<int64_t>(elements / v.size(0), 16, std::max<int64_t>(16, rows));
  for (int64_t begin = 0; begin < rows; begin += chunk) f(begin, std::min(rows, begin + chunk));
}

double flops(const Tensor& u, const Tensor& v, double matmuls) {
  const double pairs = static_cast<double>(u.size(0)) * static_cast<double>(v.size(0));
  return pairs * (matmuls * 2.0 * static_cast<double>(u.size(1)) + 6.0);
}

// The chunk of d loss / d similarities, as in contrast_kernels.h.
Tensor similarity_grad(const Tensor& u, const Tensor& v, const Tensor& g, const Tensor& lse,
                       double tau, int64_t begin, int64_t end) {
  Tensor s = matmul(u.slice(begin, end), v, false, true);
  MTCKI_ON_DEVICE(s, info_nce_chunk_grad, s, g, lse, tau, begin);
  return s;
}

}  // namespace

InfoNce info_nce_rows(const Tensor& u_in, const Tensor& v_in, double tau) {
  const char* op = "info_nce_rows";
  check_rows(op, u_in, v_in, tau);
  const Tensor u = at_least_f32(u_in), v = at_least_f32(v_in);
  InfoNce out;
  out.rows = Tensor::empty({u.size(0)}, u.dtype(), u.device());
  out.lse = Tensor::empty({u.size(0)}, u.dtype(), u.device());
  ProfileScope scope(op, flops(u, v, 1), bytes_of(u, v, out.rows, out.lse));
  for_chunks(u, v, [&](int64_t begin, int64_t end) {
    const Tensor s = matmul(u.slice(begin, end), v, false, true);
    MTCKI_ON_DEVICE(s, info_nce_chunk, s, tau, begin, out.rows, out.lse);
  });
  out.rows = out.rows.to(u_in.dtype());
  return out;  // lse stays wide: the gradient subtracts it from similarities
}

Tensor info_nce_grad_u(const Tensor& g, const Tensor& u_in, const Tensor& v_in, const Tensor& lse,
                       double tau) {
  const char* op = "info_nce_grad_u";
  check_rows(op, u_in, v_in, tau);
  check_gradient(op, u_in, g, lse);
  const Tensor u = at_least_f32(u_in), v = at_least_f32(v_in), wg = g.to(u.dtype()),
               wl = lse.to(u.dtype());
  Tensor gu = Tensor::empty_like(u);
  ProfileScope scope(op, flops(u, v, 2), bytes_of(u, v, gu));
  for_chunks(u, v, [&](int64_t begin, int64_t end) {
    gu.slice(begin, end).copy_(matmul(similarity_grad(u, v, wg, wl, tau, begin, end), v));
  });
  return gu.to(u_in.dtype());
}

Tensor info_nce_grad_v(const Tensor& g, const Tensor& u_in, const Tensor& v_in, const Tensor& lse,
                       double tau) {
  const char* op = "info_nce_grad_v";
  check_rows(op, u_in, v_in, tau);
  check_gradient(op, u_in, g, lse);
  const Tensor u = at_least_f32(u_in), v = at_least_f32(v_in), wg = g.to(u.dtype()),
               wl = lse.to(u.dtype());
  Tensor gv;
  ProfileScope scope(op, flops(u, v, 2), bytes_of(u, v, v));
  for_chunks(u, v, [&](int64_t begin, int64_t end) {
    const Tensor part =
        matmul(similarity_grad(u, v, wg, wl, tau, begin, end), u.slice(begin, end), true, false);
    if (gv.defined()) {
      add_(gv, part);
    } else {
      gv = part;
    }
  });
  if (!gv.defined()) gv = Tensor::zeros_like(v);
  return gv.to(v_in.dtype());
}

}  // namespace mtcki
