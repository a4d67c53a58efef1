// Batch normalisation and the loss on its statistics.
#include <algorithm>
#include <cmath>

#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

constexpr double kEps = 1e-3;
using In = const std::vector<Variable>&;
using Ref = const std::vector<Tensor>&;

Index channel_of(const Index& i) { return {i[1]}; }

struct Moments {
  std::vector<double> mean, var;  // biased
};
Moments moments(const Tensor& x) {
  const size_t channels = static_cast<size_t>(x.size(1));
  const double n = static_cast<double>(x.numel() / x.size(1));
  Moments m{std::vector<double>(channels), std::vector<double>(channels)};
  for_each_index(x.shape(),
                 [&](const Index& i) { m.mean[static_cast<size_t>(i[1])] += at(x, i) / n; });
  for_each_index(x.shape(), [&](const Index& i) {
    const size_t c = static_cast<size_t>(i[1]);
    m.var[c] += (at(x, i) - m.mean[c]) * (at(x, i) - m.mean[c]) / n;
  });
  return m;
}

double activate(const Activation& act, double x) {
  if (act.kind == Activation::Kind::bounded_relu) return std::clamp(x, 0.0, act.parameter);
  if (act.kind == Activation::Kind::none || x > 0) return x;
  return act.kind == Activation::Kind::relu ? 0.0 : act.parameter * x;
}

// act((x - mean)/sqrt(var + eps)*weight + bias + residual)
Tensor normalised(Ref in, const Moments& m, const Activation& act) {
  return fill(in[0].shape(), [&](const Index& i) {
    const size_t c = static_cast<size_t>(i[1]);
    double y = (at(in[0], i) - m.mean[c]) / std::sqrt(m.var[c] + kEps);
    if (in[1].defined()) y *= at(in[1], channel_of(i));
    if (in[2].defined()) y += at(in[2], channel_of(i));
    if (in[3].defined()) y += at(in[3], i);
    return activate(act, y);
  });
}

Tensor running_mean(int64_t channels) { return noise({channels}, 21); }
Tensor running_var(int64_t channels) { return positive({channels}, 22); }

Row batch_norm_row(bool train) {
  Row row;
  row.function = train ? "batch_norm_train" : "batch_norm_eval";
  row.tolerance = 1e-5;
  row.bf16_tolerance = 0.1;  // the gradient is a difference of values rounded to 8 bits
  struct Sample {
    const char* name;
    Shape shape;
    bool affine, residual;
    Activation act;
  };
  const Activation none = Activation::none(), relu = Activation::relu(),
                   leaky = Activation::leaky_relu(0.2), bounded = Activation::bounded_relu(0.7);
  for (const Sample& s : std::vector<Sample>{{"plain", {3, kC, 3, 3}, true, false, none},
                                             {"not affine", {3, kC, 3, 3}, false, false, none},
                                             {"relu", {3, kC, 3, 3}, true, false, relu},
                                             {"leaky", {3, 2 * kC, 2, 3}, true, false, leaky},
                                             {"bounded", {3, 2 * kC, 2, 3}, true, false, bounded},
                                             {"residual", {3, kC, 3, 3}, true, true, none},
                                             {"residual relu", {3, kC, 3, 3}, true, true, relu},
                                             {"residual leaky", {3, kC, 3, 3}, true, true, leaky},
                                             {"relu, not affine", {3, 3, 3, 3}, false, true, relu},
                                             {"rows", {6, 5}, true, false, relu},
                                             {"odd", {2, 3, 5, 7}, true, true, leaky}}) {
    const int64_t channels = s.shape[1];
    Case c;
    c.name = s.name;
    c.inputs = {noise(s.shape, 1), s.affine ? away_from_zero({channels}, 2) : Tensor(),
                s.affine ? noise({channels}, 3) : Tensor(),
                s.residual ? noise(s.shape, 4) : Tensor()};
    c.run = [=, act = s.act](In in) {
      // bf16 networks keep their statistics in bf16 here: one dtype for everything.
      // Training writes them.
      const DType dtype = in[0].data().dtype();
      const Tensor mean = constant(running_mean(channels).to(dtype), in[0]).clone(),
                   var = constant(running_var(channels).to(dtype), in[0]).clone();
      return train ? batch_norm_train(in[0], in[1], in[2], mean, var, 0.1, kEps, act, in[3])
                   : batch_norm_eval(in[0], in[1], in[2], mean, var, kEps, act, in[3]);
    };
    c.reference = [=, act = s.act](Ref in) {
      if (train) return normalised(in, moments(in[0]), act);
      return normalised(
          in,
          {running_mean(channels).to_vector<double>(), running_var(channels).to_vector<double>()},
          act);
    };
    c.flops = (train ? 8 : 4) * count(s.shape);
    row.cases.push_back(c);
  }
  const auto run = [train](const Shape& x, int64_t channels) {
    const Tensor v = Tensor::full({channels}, 1.0);
    const Variable in(Tensor::zeros(x)), w(v);
    train ? batch_norm_train(in, w, w, v, v, 0.1, kEps) : batch_norm_eval(in, w, w, v, v, kEps);
  };
  row.errors = {{[run] {
                   run({2, 4, 3, 3}, 5);
                 },
                 {row.function + ": ", "needs shape [4]", "[2, 4, 3, 3] f32 cpu", "[5] f32 cpu"}},
                {[run] { run({4}, 4); }, {row.function + ": ", "[N,C,H,W]", "[4] f32 cpu"}}};
  if (train)
    row.errors.push_back({[run] {
                            run({1, 4, 1, 1}, 4);
                          },
                          {"batch_norm_train: ", "more than one value", "eval mode"}});
  row.weights = {1, 2};
  row.timed = [train](int64_t n) {
    // Training writes them; on a GPU the row's own copies of these values.
    const Tensor mean = Tensor::full({64}, 0.5), var = Tensor::full({64}, 2.0);
    return Timed{{noise(activations(n)), positive({64}), noise({64})}, [=](In in) {
                   const Tensor m = constant(mean, in[0]), v = constant(var, in[0]);
                   const Activation after = Activation::relu();
                   return train ? batch_norm_train(in[0], in[1], in[2], m, v, 0.1, 1e-5, after)
                                : batch_norm_eval(in[0], in[1], in[2], m, v, 1e-5, after);
                 }};
  };
  return row;
}

Row statistics_row() {
  Row row;
  row.function = "bn_statistics";
  row.tolerance = 1e-5;
  row.bf16_tolerance = 0.1;
  for (const double momentum : {0.0, 0.9})
    for (const Shape& shape : {Shape{3, kC, 3, 3}, Shape{4, 3, 5, 2}, Shape{6, 5}}) {
      const int64_t channels = shape[1];
      Case c;
      c.name = str(shape, " momentum ", momentum);
      c.inputs = {noise(shape, 1)};
      c.run = [=](In in) {
        const DType dtype = in[0].data().dtype();
        const auto t = [&](const Tensor& x) { return constant(x.to(dtype), in[0]); };
        return bn_statistics(in[0], t(running_mean(channels)), t(running_var(channels)), momentum,
                             momentum > 0 ? t(noise({channels}, 31)) : Tensor(),
                             momentum > 0 ? t(positive({channels}, 32)) : Tensor());
      };
      c.reference = [=](Ref in) {
        const Moments m = moments(in[0]);
        const Tensor rm = running_mean(channels), rv = running_var(channels),
                     em = noise({channels}, 31), ev = positive({channels}, 32);
        double mean = 0, var = 0;
        for (int64_t k = 0; k < channels; ++k) {
          const size_t u = static_cast<size_t>(k);
          const double dm = (1 - momentum) * m.mean[u] + momentum * at(em, {k}) - at(rm, {k});
          const double dv = (1 - momentum) * m.var[u] + momentum * at(ev, {k}) - at(rv, {k});
          mean += dm * dm;
          var += dv * dv;
        }
        return Tensor::scalar(std::sqrt(mean) + std::sqrt(var), DType::f64);
      };
      c.flops = 4 * count(shape);
      row.cases.push_back(c);
    }
  const Tensor three = Tensor::full({3}, 1.0);
  row.errors = {
      {[three] {
         bn_statistics(Tensor::zeros({2, 4, 3, 3}), three, three);
       },
       {"bn_statistics: ", "running_mean needs shape [4]", "[2, 4, 3, 3] f32 cpu", "[3] f32 cpu"}},
      {[three] {
         bn_statistics(Tensor::zeros({2, 3}), three, three, 1.0, three, three);
       },
       {"bn_statistics: ", "momentum needs to be in [0, 1), got 1"}}};
  row.timed = [](int64_t n) {
    const Tensor mean = Tensor::zeros({64}), var = Tensor::full({64}, 1.0);
    return Timed{{noise(activations(n))}, [=](In in) {
                   return bn_statistics(in[0], constant(mean, in[0]), constant(var, in[0]));
                 }};
  };
  return row;
}

}  // namespace

std::vector<Row> norm_rows() {
  return {batch_norm_row(true), batch_norm_row(false), statistics_row()};
}

}  // namespace mtcki::op_table
