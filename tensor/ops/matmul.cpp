#include "tensor/ops/matmul.h"

#include <algorithm>
#include <vector>

#include "tensor/cuda/blas.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/conv/cuda_kernels.h"
#include "tensor/ops/gemm.h"
#include "tensor/ops/op_util.h"
#include "tensor/ops/weight_copies.h"
#include "tensor/parallel.h"

namespace mtcki {

namespace {

// Sizes of c[batch,m,n] = op(a) op(b), everything plain.
struct Product {
  bool trans_a, trans_b;
  int64_t batch, m, n, k;
  double flops() const {
    return 2.0 * static_cast<double>(batch) * static_cast<double>(m) * static_cast<double>(n) *
           static_cast<double>(k);
  }
  Traffic bytes(const Tensor& a) const {
    return {static_cast<double>(batch) * static_cast<double>(m * k + k * n + m * n) *
                static_cast<double>(size_of(a.dtype())),
            &a};
  }
  std::string note(const char* kernel) const {
    return str(kernel, batch > 1 ? str(" b", batch) : std::string(), " m", m, " n", n, " k", k);
  }
};

void add_row(const Tensor& y, const Tensor& bias) {
  const int64_t m = y.size(0), n = y.size(1);
  MTCKI_DISPATCH_FLOAT(y.dtype(), "linear", T, {
    T* out = y.data<T>();
    const T* row = bias.data<T>();
    parallel_for(m, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, n)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i)
                     for (int64_t j = 0; j < n; ++j) out[i * n + j] += row[j];
                 });
  });
}

// c of a's dtype, or f32 beside bf16.
void product_cuda(ProfileScope& scope, const Product& p, const Tensor& a, const Tensor& b,
                  const Tensor& bias, const Tensor& c, Math math) {
  if (scope.active())
    scope.note(p.note(math == Math::tf32 && a.dtype() == DType::f32 ? "cublas tf32" : "cublas"));
  cuda::Gemm g;
  g.in = a.dtype(), g.out = c.dtype(), g.math = math;
  g.trans_a = p.trans_a, g.trans_b = p.trans_b;
  g.m = p.m, g.n = p.n, g.k = p.k, g.batch = p.batch;
  g.lda = p.trans_a ? p.m : p.k, g.ldb = p.trans_b ? p.k : p.n, g.ldc = p.n;
  g.stride_a = p.m * p.k, g.stride_b = p.k * p.n, g.stride_c = p.m * p.n;
  const bool same = bias.defined() && bias.dtype() == c.dtype();
  const bool added = cuda::gemm(g, a.raw(), b.raw(), c.raw(), same ? bias.raw() : nullptr);
  if (bias.defined() && !(same && added)) conv_cuda::add_bias(c, bias);
}

// f32 or f64.
void product_cpu(ProfileScope& scope, const Product& p, const Tensor& a, const Tensor& b,
                 const Tensor& bias, const Tensor& c) {
  const auto& [trans_a, trans_b, batch, m, n, k] = p;
  const int64_t lda = trans_a ? m : k, ldb = trans_b ? k : n;
  const GemmKernel* f32 = a.dtype() == DType::f32 ? &select_gemm() : nullptr;
  if (scope.active()) scope.note(p.note(f32 ? f32->name : "builtin"));
  for (int64_t i = 0; i < batch; ++i) {
    if (f32) {
      f32->gemm(trans_a, trans_b, m, n, k, a.data<float>() + i * m * k, lda,
                b.data<float>() + i * k * n, ldb, c.data<float>() + i * m * n, n);
    } else {
      builtin_gemm<double>(trans_a, trans_b, m, n, k, a.data<double>() + i * m * k, lda,
                           b.data<double>() + i * k * n, ldb, c.data<double>() + i * m * n, n);
    }
  }
  if (bias.defined()) add_row(c, bias);
}

Tensor product(ProfileScope& scope, const Product& p, const Shape& shape, const Tensor& a_in,
               const Tensor& b_in, const Tensor& bias_in, DType dtype, Math math) {
  if (is_bf16(a_in) && a_in.device().is_cpu() && shape.numel() > 0 && p.k > 0 && bf16_kernels()) {
    if (scope.active()) scope.note(p.note("onednn bf16"));
    const Tensor c = Tensor::empty(shape, dtype), bias = widen(bias_in);
    gemm_bf16::gemm(p.trans_a, p.trans_b, p.batch, p.m, p.n, p.k, a_in.data<bfloat16>(),
                    b_in.data<bfloat16>(), bias.defined() ? bias.data<float>() : nullptr, c.raw(),
                    dtype);
    return c;
  }
  const Tensor a = widen(a_in), b = widen(b_in), bias = widen(bias_in);
  const bool cuda = a.device().is_cuda();
  Tensor c = Tensor::empty(shape, cuda ? dtype : a.dtype(), a.device());
  if (c.numel() == 0) return c.to(dtype);
  if (p.k == 0) {
    c.zero_();
    if (bias.defined()) cuda ? conv_cuda::add_bias(c, bias) : add_row(c, bias);
  } else if (cuda) {
    product_cuda(scope, p, a, b, bias, c, math);
  } else {
    product_cpu(scope, p, a, b, bias, c);
  }
  return c.to(dtype);
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
}

// Beside bf16 activations a parameter may be f32: the product reads it rounded.
Tensor parameter(const Tensor& x, const Tensor& w, bool constant) {
  const bool mixed =
      is_bf16(x) && w.defined() && w.dtype() == DType::f32 && w.device() == x.device();
  if (!mixed) return w;
  return x.device().is_cuda() ? cast_weight(w, DType::bf16, constant) : w.to(DType::bf16);
}

// The dtype asked for a parameter's gradient: the activations', or f32 where those are bf16.
DType gradient_type(const char* op, const Tensor& gy, std::optional<DType> dtype) {
  const DType d = dtype.value_or(gy.dtype());
  if (d != gy.dtype() && !(gy.dtype() == DType::bf16 && d == DType::f32))
    OpError(op, "grad_output", gy)
        .dtype("a gradient in ", name_of(d), " cannot be had from ", name_of(gy.dtype()));
  return d;
}

// Rank-2 product with checks and profile: result [M,N] in dtype.
Tensor product2(const char* op, const Operand& left, const Operand& right, bool trans_a,
                bool trans_b, DType dtype, Math math, const Tensor& bias = Tensor()) {
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
    if (!(is_bf16(a) && bias.dtype() == DType::f32 && bias.device() == a.device()))
      check_same_dtype_device(op, left.name, a, "bias", bias);
  }
  const Product p{trans_a, trans_b, 1, m, n, k};
  ProfileScope scope(op, p.flops(), p.bytes(a));
  return product(scope, p, {m, n}, a, b, bias, dtype, math);
}

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b, Math math) {
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
  const Product p{trans_a, trans_b, batch, m, n, k};
  ProfileScope scope("matmul", p.flops(), p.bytes(a));
  return product(scope, p, lead ? Shape{batch, m, n} : Shape{m, n}, a, b, Tensor(), a.dtype(),
                 math);
}

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias, Math math,
              bool constant_weight) {
  const Tensor weight = parameter(x, w, constant_weight);
  return product2("linear", {"input", &x}, {"weight", &weight}, false, true, x.dtype(), math, bias);
}

Tensor linear_grad_input(const Tensor& gy, const Tensor& w, Math math, bool constant_weight) {
  const Tensor weight = parameter(gy, w, constant_weight);
  return product2("linear_grad_input", {"grad_output", &gy}, {"weight", &weight}, false, false,
                  gy.dtype(), math);
}

Tensor linear_grad_weight(const Tensor& gy, const Tensor& x, Math math,
                          std::optional<DType> dtype) {
  return product2("linear_grad_weight", {"grad_output", &gy}, {"input", &x}, true, false,
                  gradient_type("linear_grad_weight", gy, dtype), math);
}

Tensor linear_grad_bias(const Tensor& gy_in, std::optional<DType> dtype) {
  check_rank("linear_grad_bias", "grad_output", gy_in, 2);
  check_floating("linear_grad_bias", "grad_output", gy_in);
  const DType out_type = gradient_type("linear_grad_bias", gy_in, dtype);
  ProfileScope scope("linear_grad_bias", static_cast<double>(gy_in.numel()), bytes_of(gy_in));
  const int64_t m = gy_in.size(0), n = gy_in.size(1);
  if (gy_in.device().is_cuda()) {
    Tensor gb = Tensor::empty({n}, out_type, gy_in.device());
    conv_cuda::channel_sums(gy_in, gb);
    return gb;
  }
  const Tensor gy = widen(gy_in);
  Tensor gb = Tensor::empty({n}, gy.dtype());
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
  return gb.to(out_type);
}

}  // namespace mtcki
