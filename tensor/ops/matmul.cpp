#include "tensor/ops/matmul.h"

#include <algorithm>
#include <vector>

#include "tensor/op_error.h"
#include "tensor/ops/conv_select.h"
#include "tensor/parallel.h"
#include "tensor/profiler.h"

namespace mtcki {

namespace {

Tensor widen(const Tensor& t) {
  return t.defined() && t.dtype() == DType::bf16 ? t.to(DType::f32) : t;
}

// c[B,M,N] = op(a) op(b), checked, f32 or f64, everything plain.
void product(ProfileScope& scope, const Tensor& a, const Tensor& b, bool trans_a, bool trans_b,
             int64_t batch, int64_t m, int64_t n, int64_t k, const Tensor& c) {
  const int64_t lda = trans_a ? m : k, ldb = trans_b ? k : n;
  if (c.numel() == 0) return;
  if (k == 0) {
    c.bump_version();
    Tensor(c).zero_();
    return;
  }
  const GemmKernel* f32 = a.dtype() == DType::f32 ? &select_gemm(m, n, k) : nullptr;
  if (scope.active())
    scope.note(str(f32 ? f32->name : "builtin", batch > 1 ? str(" b", batch) : std::string(), " m",
                   m, " n", n, " k", k));
  for (int64_t i = 0; i < batch; ++i) {
    if (f32) {
      f32->gemm(trans_a, trans_b, m, n, k, a.data<float>() + i * m * k, lda,
                b.data<float>() + i * k * n, ldb, c.data<float>() + i * m * n, n);
    } else {
      builtin_gemm<double>(trans_a, trans_b, m, n, k, a.data<double>() + i * m * k, lda,
                           b.data<double>() + i * k * n, ldb, c.data<double>() + i * m * n, n);
    }
  }
}

struct Operand {
  const char* name;
  const Tensor* tensor;
};

OpError error(const char* op, const Operand& a, const Operand& b) {
  OpError e(op);
  e.operand(a.name, *a.tensor).operand(b.name, *b.tensor);
  return e;
}

void check(const char* op, const Operand& a, const Operand& b) {
  check_floating(op, a.name, *a.tensor);
  check_floating(op, b.name, *b.tensor);
  check_same_dtype_device(op, a.name, *a.tensor, b.name, *b.tensor);
  if (!a.tensor->device().is_cpu()) no_cuda(op);
}

// Rank-2 product with checks and profile: result [M,N] in a's dtype.
Tensor product2(const char* op, const Operand& left, const Operand& right, bool trans_a,
                bool trans_b, const Tensor& bias = Tensor()) {
  const Tensor &a = *left.tensor, &b = *right.tensor;
  check(op, left, right);
  if (a.rank() != 2 || b.rank() != 2)
    error(op, left, right).shape(left.name, " and ", right.name, " need rank 2");
  const int64_t m = a.size(trans_a ? 1 : 0), k = a.size(trans_a ? 0 : 1);
  const int64_t k2 = b.size(trans_b ? 1 : 0), n = b.size(trans_b ? 0 : 1);
  if (k != k2)
    error(op, left, right).shape(right.name, " expects ", k2, " features, ", left.name, " has ", k);
  if (bias.defined()) {
    if (bias.rank() != 1 || bias.size(0) != n)
      error(op, left, right).operand("bias", bias).shape("bias needs shape [", n, "]");
    check_same_dtype_device(op, left.name, a, "bias", bias);
  }
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  ProfileScope scope(
      op, flops,
      Traffic(static_cast<double>(m * k + k * n + m * n) * static_cast<double>(size_of(a.dtype())),
              &a));
  const Tensor wa = widen(a), wb = widen(b), add = widen(bias);
  Tensor y = Tensor::empty({m, n}, wa.dtype(), wa.device());
  product(scope, wa, wb, trans_a, trans_b, 1, m, n, k, y);
  if (add.defined()) {
    MTCKI_DISPATCH_FLOAT(y.dtype(), op, T, {
      T* out = y.data<T>();
      const T* row = add.data<T>();
      parallel_for(m, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i)
                       for (int64_t j = 0; j < n; ++j) out[i * n + j] += row[j];
                   });
    });
  }
  return y.to(a.dtype());
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b) {
  const Operand left{"a", &a}, right{"b", &b};
  check("matmul", left, right);
  if (a.rank() != b.rank() || (a.rank() != 2 && a.rank() != 3))
    error("matmul", left, right).shape("a and b need rank 2, or both rank 3");
  const int lead = a.rank() - 2;
  const int64_t batch = lead ? a.size(0) : 1;
  if (lead && b.size(0) != batch)
    error("matmul", left, right).shape("a has batch ", batch, ", b has batch ", b.size(0));
  const int64_t m = a.size(lead + (trans_a ? 1 : 0)), k = a.size(lead + (trans_a ? 0 : 1));
  const int64_t k2 = b.size(lead + (trans_b ? 1 : 0)), n = b.size(lead + (trans_b ? 0 : 1));
  if (k != k2)
    error("matmul", left, right)
        .shape("inner sizes differ: op(a) is ", m, "x", k, ", op(b) is ", k2, "x", n);
  const double items = static_cast<double>(batch);
  ProfileScope scope(
      "matmul",
      2.0 * items * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
      Traffic(items * static_cast<double>(m * k + k * n + m * n) *
                  static_cast<double>(size_of(a.dtype())),
              &a));
  const Tensor wa = widen(a), wb = widen(b);
  Tensor c = Tensor::empty(lead ? Shape{batch, m, n} : Shape{m, n}, wa.dtype(), wa.device());
  product(scope, wa, wb, trans_a, trans_b, batch, m, n, k, c);
  return c.to(a.dtype());
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  return product2("linear", {"input", &x}, {"weight", &w}, false, true, bias);
}

Tensor linear_grad_input(const Tensor& gy, const Tensor& w) {
  return product2("linear_grad_input", {"grad_output", &gy}, {"weight", &w}, false, false);
}

Tensor linear_grad_weight(const Tensor& gy, const Tensor& x) {
  return product2("linear_grad_weight", {"grad_output", &gy}, {"input", &x}, true, false);
}

Tensor linear_grad_bias(const Tensor& gy) {
  check_rank("linear_grad_bias", "grad_output", gy, 2);
  check_floating("linear_grad_bias", "grad_output", gy);
  if (!gy.device().is_cpu()) no_cuda("linear_grad_bias");
  if (gy.dtype() == DType::bf16) return linear_grad_bias(gy.to(DType::f32)).to(DType::bf16);
  ProfileScope scope("linear_grad_bias", static_cast<double>(gy.numel()),
                     Traffic(static_cast<double>(gy.nbytes()), &gy));
  const int64_t m = gy.size(0), n = gy.size(1);
  Tensor gb = Tensor::empty({n}, gy.dtype(), gy.device());
  MTCKI_DISPATCH_FLOAT(gy.dtype(), "linear_grad_bias", T, {
    const T* g = gy.data<T>();
    T* out = gb.data<T>();
    parallel_for(n, std::max<int64_t>(16, 16384 / std::max<int64_t>(1, m)),
                 [&](int64_t begin, int64_t end) {
                   std::vector<double> total(static_cast<size_t>(end - begin), 0.0);
                   for (int64_t i = 0; i < m; ++i)
                     for (int64_t j = begin; j < end; ++j)
                       total[static_cast<size_t>(j - begin)] += static_cast<double>(g[i * n + j]);
                   for (int64_t j = begin; j < end; ++j)
                     out[j] = static_cast<T>(total[static_cast<size_t>(j - begin)]);
                 });
  });
  return gb;
}

}  // namespace mtcki
