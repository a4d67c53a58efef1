#include "nn/layers.h"

#include <cmath>
#include <utility>

#include "autograd/parallel.h"
#include "nn/init.h"
#include "tensor/cuda/step_graph.h"
#include "tensor/op_error.h"

namespace mtcki::nn {

namespace {

// PyTorch's default: weight kaiming_uniform(a = sqrt 5), bias U(+-1/sqrt(fan_in)). Both bounds are
// 1/sqrt(fan_in). For a transposed convolution PyTorch takes size(1) * field of [in, out, k, k].
void default_init(Variable& weight, Variable* bias, Init& init) {
  if (!init.draw) {
    constant_(weight, 0.0);
    if (bias != nullptr) constant_(*bias, 0.0);
    return;
  }
  kaiming_uniform_(weight, std::sqrt(5.0), init.next());
  if (bias == nullptr) return;
  const auto fan = static_cast<double>(fan_in(weight.shape()));
  const double bound = fan > 0 ? 1.0 / std::sqrt(fan) : 0.0;
  uniform_(*bias, -bound, bound, init.next());
}

// Of `channels`, the share of one group; `other` are the channels of the layer's other side.
int64_t per_group(const char* layer, int64_t channels, int64_t other, int64_t groups) {
  if (groups < 1 || channels % groups != 0 || other % groups != 0)
    throw ShapeError(
        str(layer, ": ", groups, " groups must divide ", channels, " and ", other, " channels"));
  return channels / groups;
}

Variable optional(const Variable* v) { return v == nullptr ? Variable() : *v; }

// The input of a convolution or product. Parameters stay f32 beside it: the ops round them.
Variable operand(const Variable& x, Precision precision) {
  return precision == Precision::bf16 && x.data().dtype() == DType::f32 ? cast(x, DType::bf16) : x;
}
Math math_of(Precision p) { return p == Precision::tf32 ? Math::tf32 : Math::strict; }

template <class Options>
Options with_precision(Options o, const Module& m) {
  o.math = math_of(m.precision());
  o.constant_weight = m.constant_weights();
  return o;
}

}  // namespace

Conv2d::Conv2d(int64_t in, int64_t out, std::array<int64_t, 2> kernel, const Conv2dOptions& o,
               bool with_bias, Init& init)
    : weight(register_parameter(
          "weight",
          Tensor::empty({out, per_group("Conv2d", in, out, o.groups), kernel[0], kernel[1]},
                        init.dtype))),
      bias(with_bias ? &register_parameter("bias", Tensor::empty({out}, init.dtype)) : nullptr),
      options_(o) {
  default_init(weight, bias, init);
}

Conv2d::Conv2d(int64_t in, int64_t out, int64_t kernel, const Conv2dOptions& o, bool with_bias,
               Init& init)
    : Conv2d(in, out, std::array<int64_t, 2>{kernel, kernel}, o, with_bias, init) {}

Variable Conv2d::forward(const Variable& x) {
  return conv2d(operand(x, precision()), weight, optional(bias), with_precision(options_, *this));
}

Variable Conv2d::operator()(const Variable& x, ConvFusion fusion) {
  return call(x, [&] {
    return conv2d(operand(x, precision()).data(), weight.data(), optional(bias).data(),
                  with_precision(options_, *this), std::move(fusion));
  });
}

Variable Conv2d::operator()(const Variable& x, const Variable& residual) {
  return call(x, [&] {
    return conv2d(operand(x, precision()), weight, optional(bias), with_precision(options_, *this),
                  residual);
  });
}

Variable Conv2d::operator()(const Variable& x, BatchNorm2d& bn, Activation act,
                            const Variable& residual) {
  const Variable y = call(x, [&] {
    return bn_conv2d(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.momentum_, bn.eps_,
                     weight, optional(bias), with_precision(options_, *this), residual, act);
  });
  bn.count_batch();
  return y;
}

bool Conv2d::normalises(const Variable& x, Activation act) const {
  return precision() != Precision::bf16 &&
         conv2d_normalises(x.data(), weight.shape(), options_, act);
}

double Conv2d::macs(const Shape&, const Shape& output) const {
  const Shape& w = weight.shape();
  return static_cast<double>(output.numel()) * static_cast<double>(w[1] * w[2] * w[3]);
}

ConvTranspose2d::ConvTranspose2d(int64_t in, int64_t out, int64_t kernel,
                                 const ConvTranspose2dOptions& o, bool with_bias, Init& init)
    : weight(register_parameter(
          "weight",
          Tensor::empty({in, per_group("ConvTranspose2d", out, in, o.groups), kernel, kernel},
                        init.dtype))),
      bias(with_bias ? &register_parameter("bias", Tensor::empty({out}, init.dtype)) : nullptr),
      options_(o) {
  default_init(weight, bias, init);
}

Variable ConvTranspose2d::forward(const Variable& x) {
  return conv_transpose2d(operand(x, precision()), weight, optional(bias),
                          with_precision(options_, *this));
}

// Every input element meets every weight of its channel once.
double ConvTranspose2d::macs(const Shape& input, const Shape&) const {
  const Shape& w = weight.shape();
  return static_cast<double>(input.numel()) * static_cast<double>(w[1] * w[2] * w[3]);
}

Linear::Linear(int64_t in, int64_t out, bool with_bias, Init& init)
    : weight(register_parameter("weight", Tensor::empty({out, in}, init.dtype))),
      bias(with_bias ? &register_parameter("bias", Tensor::empty({out}, init.dtype)) : nullptr) {
  default_init(weight, bias, init);
}

Variable Linear::forward(const Variable& x) {
  return linear(keep_f32_ ? x : operand(x, precision()), weight, optional(bias),
                math_of(precision()), constant_weights());
}

double Linear::macs(const Shape&, const Shape& output) const {
  return static_cast<double>(output.numel()) * static_cast<double>(weight.size(1));
}

BatchNorm2d::BatchNorm2d(int64_t channels, double eps, double momentum, DType dtype)
    : weight(register_parameter("weight", Tensor::full({channels}, 1.0, dtype))),
      bias(register_parameter("bias", Tensor::zeros({channels}, dtype))),
      running_mean(register_buffer("running_mean", Tensor::zeros({channels}, dtype))),
      running_var(register_buffer("running_var", Tensor::full({channels}, 1.0, dtype))),
      num_batches_tracked(register_buffer("num_batches_tracked", Tensor::zeros({}, DType::i64))),
      eps_(eps),
      momentum_(momentum) {}

Variable BatchNorm2d::fused(const Variable& x, Activation act, const Variable& residual) {
  if (!training())
    return batch_norm_eval(x, weight, bias, running_mean, running_var, eps_, act, residual,
                           keeps_moments_ ? &moments_ : nullptr);
  Variable y = batch_norm_train(x, weight, bias, running_mean, running_var, momentum_, eps_, act,
                                residual, *comm_, recompute());
  count_batch();
  return y;
}

void BatchNorm2d::count_batch() {
  host_work([tracked = num_batches_tracked, mean = running_mean, var = running_var] {
    ++*tracked.data<int64_t>();
    for (const Tensor& t : {tracked, mean, var}) t.bump_version();
  });
}

// DCGAN's initialisation (Radford et al. 2016, section 4), of the layers that its authors list.
namespace {

void dcgan_init(Variable& weight, Variable* bias, Init& init) {
  normal_(weight, 0.0, 0.02, init.next());
  if (bias != nullptr) constant_(*bias, 0.0);
}

}  // namespace

void Conv2d::reset_parameters(Init& init) { dcgan_init(weight, bias, init); }
void ConvTranspose2d::reset_parameters(Init& init) { dcgan_init(weight, bias, init); }
void Linear::reset_parameters(Init& init) { dcgan_init(weight, bias, init); }

void BatchNorm2d::reset_parameters(Init& init) {
  normal_(weight, 1.0, 0.02, init.next());
  constant_(bias, 0.0);
  running_mean.fill_(0.0);
  running_var.fill_(1.0);
  num_batches_tracked.fill_(0.0);
}

}  // namespace mtcki::nn
