#include "tensor/ops/elementwise.h"

#include <cstring>

#include "tensor/ops/elementwise_kernels.h"
#include "tensor/ops/op_util.h"

namespace mtcki {

namespace {

Tensor unary(const char* name, UnaryOp op, const Tensor& x, double p = 0, double q = 0) {
  check_floating(name, "input", x);
  const Tensor in = widen(x);
  Tensor y = Tensor::empty_like(in);
  ProfileScope scope(name, static_cast<double>(x.numel()), bytes_of(in, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(in, unary, op, in, y, p, q);
  return y.to(x.dtype());
}

// One value per channel of a full [N,C,H,W] or [N,C] tensor: [1,C,1,1], [C,1,1]; [1,C], [C].
bool is_per_channel(const Shape& small, const Shape& full) {
  const int rank = full.rank();
  if ((rank != 4 && rank != 2) || small.rank() < rank - 1) return false;
  for (int i = 1; i <= small.rank(); ++i) {  // from the end
    const int64_t wanted = rank - i == 1 ? full[1] : 1;
    if (small[-i] != wanted) return false;
  }
  return true;
}

struct Operands {
  Tensor a, b;
  Shape shape;
  Layout layout = Layout::plain;
  BinaryPlan plan;
};

Operands prepare(const char* name, const Tensor& a_in, const Tensor& b_in) {
  if (!a_in.defined() || !b_in.defined())
    OpError(name, "a", a_in, "b", b_in).argument("an operand is undefined");
  check_same_dtype_device(name, "a", a_in, "b", b_in);
  Operands o{a_in, b_in, {}, Layout::plain, {}};
  const Shape &sa = a_in.shape(), &sb = b_in.shape();
  using Kind = BinaryPlan::Kind;
  if (sa == sb) {
    o.shape = sa;
    o.layout = a_in.layout();
    o.b = o.b.to(o.layout);
    return o;
  }
  o.a = widen(a_in);
  o.b = widen(b_in);
  o.shape = broadcast_shapes(name, sa, sb);
  if (o.shape == sa && b_in.numel() == 1) {
    o.plan.kind = Kind::b_scalar;
    o.layout = a_in.layout();
  } else if (o.shape == sb && a_in.numel() == 1) {
    o.plan.kind = Kind::a_scalar;
    o.layout = b_in.layout();
  } else if (o.shape == sa && is_per_channel(sb, sa)) {
    o.plan.kind = Kind::b_channel;  // per-channel values are in plain order in every layout
    o.layout = a_in.layout();
    o.plan.view = channel_view(o.shape, o.layout);
  } else if (o.shape == sb && is_per_channel(sa, sb)) {
    o.plan.kind = Kind::a_channel;
    o.layout = b_in.layout();
    o.plan.view = channel_view(o.shape, o.layout);
  } else {
    o.plan.kind = Kind::strided;
    o.a = o.a.plain();
    o.b = o.b.plain();
    const int rank = o.shape.rank();
    o.plan.dims = rank;
    int64_t step_a = 1, step_b = 1;
    for (int i = 1; i <= rank; ++i) {
      const int64_t da = i <= sa.rank() ? sa[-i] : 1, db = i <= sb.rank() ? sb[-i] : 1;
      o.plan.size[rank - i] = o.shape[-i];
      o.plan.stride_a[rank - i] = da == 1 ? 0 : step_a;
      o.plan.stride_b[rank - i] = db == 1 ? 0 : step_b;
      step_a *= da;
      step_b *= db;
    }
  }
  return o;
}

Tensor binary(const char* name, BinaryOp op, const Tensor& a, const Tensor& b, double p = 0,
              double q = 0) {
  check_floating(name, "a", a);
  const Operands o = prepare(name, a, b);
  Tensor y = Tensor::empty(o.shape, o.a.dtype(), a.device(), o.layout);
  ProfileScope scope(name, static_cast<double>(y.numel()), bytes_of(o.a, o.b, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(y, binary, op, o.a, o.b, y, o.plan, p, q);
  return y.to(a.dtype());
}

Tensor gradient(const char* name, BinaryOp op, const Tensor& gy, const Tensor& y, double p = 0,
                double q = 0) {
  if (gy.defined() && y.defined()) check_same_shape(name, "gy", gy, "y", y);
  return binary(name, op, gy, y, p, q);
}

Tensor compare(const char* name, CompareOp op, const Tensor& a, const Tensor& b) {
  const Operands o = prepare(name, a, b);
  Tensor y = Tensor::empty(o.shape, DType::boolean, a.device(), o.layout);
  ProfileScope scope(name, static_cast<double>(y.numel()), bytes_of(o.a, o.b, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(y, compare, op, o.a, o.b, y, o.plan);
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b) { return binary("add", BinaryOp::add, a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return binary("sub", BinaryOp::sub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary("mul", BinaryOp::mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return binary("div", BinaryOp::div, a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) {
  return binary("maximum", BinaryOp::maximum, a, b);
}
Tensor add(const Tensor& a, double s) { return unary("add", UnaryOp::add_scalar, a, s); }
Tensor mul(const Tensor& a, double s) { return unary("mul", UnaryOp::mul_scalar, a, s); }

Tensor neg(const Tensor& x) { return unary("neg", UnaryOp::neg, x); }
Tensor exp(const Tensor& x) { return unary("exp", UnaryOp::exp, x); }
Tensor log(const Tensor& x) { return unary("log", UnaryOp::log, x); }
Tensor sqrt(const Tensor& x) { return unary("sqrt", UnaryOp::sqrt, x); }
Tensor square(const Tensor& x) { return unary("square", UnaryOp::square, x); }
Tensor abs(const Tensor& x) { return unary("abs", UnaryOp::abs, x); }
Tensor sign(const Tensor& x) { return unary("sign", UnaryOp::sign, x); }
Tensor clamp(const Tensor& x, double low, double high) {
  if (!(low <= high)) OpError("clamp", "input", x).argument("low ", low, " exceeds high ", high);
  return unary("clamp", UnaryOp::clamp, x, low, high);
}

Tensor relu(const Tensor& x) { return unary("relu", UnaryOp::relu, x); }
Tensor leaky_relu(const Tensor& x, double negative_slope) {
  return unary("leaky_relu", UnaryOp::leaky_relu, x, negative_slope);
}
Tensor sigmoid(const Tensor& x) { return unary("sigmoid", UnaryOp::sigmoid, x); }
Tensor erf(const Tensor& x) { return unary("erf", UnaryOp::erf, x); }
Tensor tanh(const Tensor& x) { return unary("tanh", UnaryOp::tanh, x); }

Tensor relu_grad(const Tensor& gy, const Tensor& y) {
  return gradient("relu_grad", BinaryOp::relu_grad, gy, y);
}
Tensor leaky_relu_grad(const Tensor& gy, const Tensor& y, double negative_slope) {
  return gradient("leaky_relu_grad", BinaryOp::leaky_relu_grad, gy, y, negative_slope);
}
Tensor clamp_grad(const Tensor& gy, const Tensor& y, double low, double high) {
  // What the forward has rounded is compared with what has been rounded likewise.
  const auto stored = [&y](double limit) {
    const bool bf16 = y.defined() && y.dtype() == DType::bf16;
    return bf16 ? static_cast<float>(bfloat16(static_cast<float>(limit))) : limit;
  };
  return gradient("clamp_grad", BinaryOp::clamp_grad, gy, y, stored(low), stored(high));
}
Tensor sigmoid_grad(const Tensor& gy, const Tensor& y) {
  return gradient("sigmoid_grad", BinaryOp::sigmoid_grad, gy, y);
}
Tensor tanh_grad(const Tensor& gy, const Tensor& y) {
  return gradient("tanh_grad", BinaryOp::tanh_grad, gy, y);
}

Tensor equal(const Tensor& a, const Tensor& b) { return compare("equal", CompareOp::equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return compare("less", CompareOp::less, a, b); }

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  if (!condition.defined() || condition.dtype() != DType::boolean)
    OpError("where", "condition", condition).dtype("condition needs dtype bool");
  check_same_shape("where", "a", a, "b", b);
  check_same_shape("where", "condition", condition, "a", a);
  check_same_dtype_device("where", "a", a, "b", b);
  const Tensor other = b.to(a.layout()), mask = condition.to(a.layout());
  Tensor y = Tensor::empty_like(a);
  ProfileScope scope("where", 0, bytes_of(mask, a, other, y));
  if (y.numel() > 0) MTCKI_ON_DEVICE(y, where, mask, a, other, y);
  return y;
}

bool all_finite(const Tensor& x) {
  check_floating("all_finite", "input", x);
  const Tensor in = widen(x);
  ProfileScope scope("all_finite", 0, bytes_of(in));
  return in.numel() == 0 || MTCKI_ON_DEVICE(in, all_finite, in);
}

bool identical(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor left = a.to(Device::cpu()), right = b.to(Device::cpu()).to(left.layout());
  return left.nbytes() == 0 || std::memcmp(left.raw(), right.raw(), left.nbytes()) == 0;
}

bool allclose(const Tensor& a, const Tensor& b, double rtol, double atol) {
  if (!a.defined() || !b.defined())
    OpError("allclose", "a", a, "b", b).argument("an operand is undefined");
  check_same_shape("allclose", "a", a, "b", b);
  const Tensor left = a.to(Device::cpu()), right = b.to(Device::cpu());
  return allclose_cpu(left.to(DType::f64), right.to(left.layout()).to(DType::f64), rtol, atol);
}

void add_(const Tensor& dst, const Tensor& src, double alpha) {
  check_floating("add_", "dst", dst);
  check_floating("add_", "src", src);
  check_same_shape("add_", "dst", dst, "src", src);
  check_same_dtype_device("add_", "dst", dst, "src", src);
  const Tensor addend = src.to(dst.layout());
  ProfileScope scope("add_", 2.0 * static_cast<double>(dst.numel()),
                     2 * bytes_of(dst) + bytes_of(src));
  if (dst.numel() > 0) MTCKI_ON_DEVICE(dst, axpy, dst, addend, alpha);
  dst.bump_version();
}

void mul_(const Tensor& dst, double s) {
  check_floating("mul_", "dst", dst);
  ProfileScope scope("mul_", static_cast<double>(dst.numel()), 2 * bytes_of(dst));
  const Tensor product = widen(dst);
  if (dst.numel() > 0) MTCKI_ON_DEVICE(dst, scale, product, s);
  product.shares_memory(dst) ? dst.bump_version() : dst.copy_(product);
}

}  // namespace mtcki
