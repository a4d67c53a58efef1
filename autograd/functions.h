// Differentiable ops: the names and semantics of tensor/ops (and PyTorch) on Variables. Each family
// has its forward and backward side by side in functions/<family>.cpp. Arguments that are Tensors
// (labels, masks, running statistics, random offsets) are constants.
#pragma once

#include <vector>

#include "autograd/variable.h"
#include "tensor/ops/conv/conv.h"
#include "tensor/ops/norm.h"
#include "tensor/ops/pool.h"

namespace mtcki {

// functions/elementwise.cpp ------------------------------------------------- broadcasting as NumPy
Variable add(const Variable& a, const Variable& b);
Variable sub(const Variable& a, const Variable& b);
Variable mul(const Variable& a, const Variable& b);
Variable div(const Variable& a, const Variable& b);
Variable add(const Variable& a, double s);
Variable mul(const Variable& a, double s);
Variable neg(const Variable& x);
Variable exp(const Variable& x);
Variable log(const Variable& x);
Variable sqrt(const Variable& x);
Variable square(const Variable& x);
Variable abs(const Variable& x);
Variable relu(const Variable& x);
Variable leaky_relu(const Variable& x, double negative_slope = 0.01);
Variable clamp(const Variable& x, double low, double high);  // gradient 0 at the limits
Variable relu6(const Variable& x);                           // clamp(x, 0, 6)
Variable sigmoid(const Variable& x);
Variable tanh(const Variable& x);
Variable erf(const Variable& x);
inline Variable operator+(const Variable& a, const Variable& b) { return add(a, b); }
inline Variable operator-(const Variable& a, const Variable& b) { return sub(a, b); }
inline Variable operator*(const Variable& a, const Variable& b) { return mul(a, b); }
inline Variable operator*(const Variable& a, double s) { return mul(a, s); }
inline Variable operator*(double s, const Variable& a) { return mul(a, s); }
inline Variable operator/(const Variable& a, const Variable& b) { return div(a, b); }
inline Variable operator+(const Variable& a, double s) { return add(a, s); }
inline Variable operator+(double s, const Variable& a) { return add(a, s); }
inline Variable operator-(const Variable& a, double s) { return add(a, -s); }
inline Variable operator-(double s, const Variable& a) { return add(neg(a), s); }
inline Variable operator/(const Variable& a, double s) { return mul(a, 1 / s); }
inline Variable operator-(const Variable& a) { return neg(a); }

// functions/reduce.cpp
Variable sum(const Variable& x, const std::vector<int>& dims = {}, bool keepdim = false);
Variable mean(const Variable& x, const std::vector<int>& dims = {}, bool keepdim = false);
Variable norm(const Variable& x);  // ||x||_2, gradient 0 at 0

// functions/shape.cpp
Variable reshape(const Variable& x, const Shape& shape);
Variable flatten(const Variable& x);                   // [N, rest]
Variable to_layout(const Variable& x, Layout layout);  // the same values, in another order
Variable cat(const std::vector<Variable>& parts, int dim = 0);
Variable narrow(const Variable& x, int dim, int64_t begin, int64_t end);
Variable index_select(const Variable& x, const Tensor& index);
Variable transpose(const Variable& x);
Variable permute(const Variable& x, const std::vector<int>& order);
// Channel c of [N,C,H,W] goes to place (c mod C/groups) groups + c div (C/groups), as PyTorch's.
Variable channel_shuffle(const Variable& x, int64_t groups);
Variable subsample_pad_channels(const Variable& x, int64_t stride, int64_t before, int64_t after);
Variable cast(const Variable& x, DType dtype);

// functions/matmul.cpp
Variable matmul(const Variable& a, const Variable& b, Math math = Math::strict);
Variable linear(const Variable& x, const Variable& w, const Variable& bias,
                Math math = Math::strict, bool constant_weight = false);

// functions/conv.cpp; residual: of the result's shape, added in the same pass where the kernels can
Variable conv2d(const Variable& x, const Variable& w, const Variable& bias,
                const Conv2dOptions& o = {}, const Variable& residual = {});
Variable conv_transpose2d(const Variable& x, const Variable& w, const Variable& bias,
                          const ConvTranspose2dOptions& o = {});

// functions/norm.cpp ---------------------------------------- act(bn(x) + residual); see ops/norm.h
// recompute: a convolution behind it keeps no copy of the output (without a residual) for its
// backward, which computes the same bits again from x. One more pass over x, one activation less.
Variable batch_norm_train(const Variable& x, const Variable& weight, const Variable& bias,
                          const Tensor& running_mean, const Tensor& running_var, double momentum,
                          double eps, Activation act = {}, const Variable& residual = {},
                          bool recompute = false);
// conv2d(act(batch_norm_train(x)), w, bias) + residual in one: the batch norm's output is made where
// kernels load it, forward and for the weight's gradient, and never stored (where
// conv2d_normalises(), which takes relu and bounded_relu; else the ops run one after the other, the
// batch norm again in the backward).
Variable bn_conv2d(const Variable& x, const Variable& bn_weight, const Variable& bn_bias,
                   const Tensor& running_mean, const Tensor& running_var, double momentum,
                   double eps, const Variable& w, const Variable& bias, const Conv2dOptions& o = {},
                   const Variable& residual = {}, Activation act = Activation::relu());
Variable batch_norm_eval(const Variable& x, const Variable& weight, const Variable& bias,
                         const Tensor& running_mean, const Tensor& running_var, double eps,
                         Activation act = {}, const Variable& residual = {},
                         MomentSums* moments = nullptr);
// The BN-statistics loss of one layer (ops/bn_statistics.h). batch_mean/batch_var, if not null,
// receive the statistics of this batch.
Variable bn_statistics(const Variable& x, const Tensor& running_mean, const Tensor& running_var,
                       double momentum = 0.0, const Tensor& ema_mean = {},
                       const Tensor& ema_var = {}, Tensor* batch_mean = nullptr,
                       Tensor* batch_var = nullptr, const MomentSums& known = {});
// The sum over several layers, at less cost than their sums; `statistics`, if not null, receives
// those of this batch, layer by layer.
struct BnStatisticsInput {
  Variable x;
  Tensor running_mean, running_var, ema_mean, ema_var;
  MomentSums known;
};
Variable bn_statistics(const std::vector<BnStatisticsInput>& layers, double momentum = 0.0,
                       std::vector<ChannelMoments>* statistics = nullptr);

// functions/pool.cpp
Variable max_pool2d(const Variable& x, const Pool2dOptions& o);
Variable avg_pool2d(const Variable& x, const Pool2dOptions& o);
Variable adaptive_avg_pool2d(const Variable& x, int64_t oh, int64_t ow);
Variable global_avg_pool(const Variable& x);
Variable upsample_nearest2d(const Variable& x, int64_t oh, int64_t ow);

// functions/augment.cpp
Variable pad_crop_flip(const Variable& x, int64_t pad, const Tensor& offset, const Tensor& flip);
Variable resized_crop_flip(const Variable& x, const Tensor& box, const Tensor& flip, int64_t oh,
                           int64_t ow);
Variable normalize_channels(const Variable& x, const Tensor& mean, const Tensor& std);

// functions/softmax.cpp ------------------------------------------- losses return the batch mean
Variable softmax(const Variable& x);
Variable log_softmax(const Variable& x);
Variable cross_entropy(const Variable& logits, const Tensor& labels, double label_smoothing = 0);
// mean_i w_i * rows_i; weights [N] or undefined (all 1). Rows as in ops/softmax.h.
Variable kl_div(const Variable& p_logits, const Variable& q_logits, double temperature = 1.0,
                const Tensor& row_weights = {});
Variable js_div(const Variable& p_logits, const Variable& q_logits, double temperature);
Variable normalize(const Variable& x, double eps = 1e-12);
// mean over rows with weights c_i: sum_i c_i l_i; row_weights [A] (e.g. 1/B). v may be a constant.
Variable info_nce(const Variable& u, const Variable& v, double tau, const Tensor& row_weights);

}  // namespace mtcki
