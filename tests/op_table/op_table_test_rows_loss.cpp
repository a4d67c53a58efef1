// Softmax and the losses on rows; all of them return batch means.
#include <algorithm>
#include <cmath>

#include "tensor/ops/elementwise.h"
#include "tensor/rng.h"
#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

using In = const std::vector<Variable>&;
using Ref = const std::vector<Tensor>&;

// log softmax(x/T) of row i of [N,K].
std::vector<double> log_softmax_row(const Tensor& x, int64_t i, double temperature = 1) {
  std::vector<double> row;
  for (int64_t k = 0; k < x.size(1); ++k) row.push_back(at(x, {i, k}) / temperature);
  const double top = *std::max_element(row.begin(), row.end());
  double total = 0;
  for (double v : row) total += std::exp(v - top);
  for (double& v : row) v -= top + std::log(total);
  return row;
}

Row softmax_row(const std::string& name, bool logarithm) {
  Row row;
  row.function = name;
  for (const Shape& shape : {Shape{5, 10}, Shape{1, 1}, Shape{2, 3, 4}, Shape{3, 200}}) {
    Case c;
    c.name = shape.to_string();
    c.inputs = {mtcki::mul(noise(shape), 4.0)};
    c.run = [logarithm](In in) { return logarithm ? log_softmax(in[0]) : softmax(in[0]); };
    c.reference = [logarithm](Ref in) {
      const int64_t k = in[0].size(-1);
      const Tensor flat = in[0].reshape({-1, k});
      return fill(flat.shape(),
                  [&](const Index& i) {
                    const double l = log_softmax_row(flat, i[0])[static_cast<size_t>(i[1])];
                    return logarithm ? l : std::exp(l);
                  })
          .reshape(in[0].shape());
    };
    c.flops = 5 * count(shape);
    row.cases.push_back(c);
  }
  // Logits far out of the range of exp.
  Case large = row.cases[0];
  large.name = "large";
  large.inputs = {mtcki::add(distinct({4, 6}), 1000.0)};
  large.flops = 5 * 24;
  row.cases.push_back(large);
  row.errors = {
      {[logarithm] { logarithm ? log_softmax(Tensor::zeros({})) : softmax(Tensor::zeros({})); },
       {name + ": ", "rank 1 or more", "[] f32 cpu"}}};
  row.timed = [run = large.run](int64_t n) { return Timed{{noise(logits(n))}, run}; };
  return row;
}

Row cross_entropy_row() {
  Row row;
  row.function = "cross_entropy";
  row.event = "cross_entropy_rows";
  const std::vector<int64_t> labels{3, 0, 9, 3, 7};
  for (const double smoothing : {0.0, 0.1}) {
    Case c;
    c.name = str("smoothing ", smoothing);
    c.inputs = {mtcki::mul(noise({5, 10}), 4.0)};
    c.run = [=](In in) {
      return cross_entropy(in[0], constant(Tensor::from(labels, {5}), in[0]), smoothing);
    };
    c.reference = [=](Ref in) {
      double loss = 0;
      for (int64_t i = 0; i < 5; ++i) {
        const std::vector<double> l = log_softmax_row(in[0], i);
        for (size_t k = 0; k < 10; ++k) {
          const bool hit = static_cast<int64_t>(k) == labels[static_cast<size_t>(i)];
          loss -= l[k] * ((hit ? 1 - smoothing : 0) + smoothing / 10) / 5;
        }
      }
      return Tensor::scalar(loss, DType::f64);
    };
    c.flops = 5 * 50;
    row.cases.push_back(c);
  }
  const auto run = [](const Tensor& labels_, double smoothing) {
    cross_entropy(Tensor::zeros({2, 3}), labels_, smoothing);
  };
  row.errors = {{[run] {
                   run(Tensor::from<int64_t>({0, 3}, {2}), 0);
                 },
                 {"cross_entropy", "label 3 of row 1 is outside 0..2", "[2, 3] f32 cpu"}},
                {[run] { run(Tensor::from<int64_t>({0}, {1}), 0); },
                 {"cross_entropy", "one entry per row", "[1] i64 cpu"}},
                {[run] { run(Tensor::zeros({2}), 0); },
                 {"cross_entropy", "labels need dtype i64", "[2] f32 cpu"}},
                {[run] {
                   run(Tensor::from<int64_t>({0, 1}, {2}), 1.5);
                 },
                 {"cross_entropy", "label_smoothing needs to be in [0, 1], got 1.5"}}};
  row.timed = [](int64_t n) {
    const Tensor classes = randint(0, 10, {n}, Rng{11, rng_stream("op_table"), 1});
    return Timed{{noise(logits(n))},
                 [=](In in) { return cross_entropy(in[0], constant(classes, in[0])); }};
  };
  return row;
}

double kl(const std::vector<double>& log_p, const std::vector<double>& log_q) {
  double total = 0;
  for (size_t k = 0; k < log_p.size(); ++k) total += std::exp(log_p[k]) * (log_p[k] - log_q[k]);
  return total;
}

Row kl_row() {
  Row row;
  row.function = "kl_div";
  row.event = "kl_rows";
  row.tolerance = 1e-5;
  row.bf16_tolerance = 0.1;
  for (const double temperature : {1.0, 4.0})
    for (const bool weighted : {false, true}) {
      const Tensor weights = Tensor::from<double>({1, 0, 0.5, 2, 0.25, 1}, {6});
      Case c;
      c.name = str("T ", temperature, weighted ? ", weighted" : "");
      c.inputs = {mtcki::mul(noise({6, 7}, 1), 3.0), mtcki::mul(noise({6, 7}, 2), 3.0)};
      c.run = [=](In in) {
        const Tensor w = constant(weights.to(in[0].data().dtype()), in[0]);
        return kl_div(in[0], in[1], temperature, weighted ? w : Tensor());
      };
      c.reference = [=](Ref in) {
        double loss = 0;
        for (int64_t i = 0; i < 6; ++i)
          loss +=
              (weighted ? at(weights, {i}) : 1.0) / 6 *
              kl(log_softmax_row(in[0], i, temperature), log_softmax_row(in[1], i, temperature));
        return Tensor::scalar(loss, DType::f64);
      };
      c.flops = 12 * 42;
      row.cases.push_back(c);
    }
  row.errors = {{[] {
                   kl_div(Tensor::zeros({2, 3}), Tensor::zeros({2, 4}));
                 },
                 {"kl_rows: ", "equal shapes", "[2, 3] f32 cpu", "[2, 4] f32 cpu"}},
                {[] {
                   kl_div(Tensor::zeros({2, 3}), Tensor::zeros({2, 3}), 0.0);
                 },
                 {"kl_rows: ", "temperature needs to be positive, got 0"}},
                {[] {
                   kl_div(Tensor::zeros({2, 3}), Tensor::zeros({2, 3}), 1.0, Tensor::zeros({3}));
                 },
                 {"kl_div: ", "row_weights", "[3] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(logits(n), 1), noise(logits(n), 2)},
                 [](In in) { return kl_div(in[0], in[1], 4.0); }};
  };
  return row;
}

Row js_row() {
  Row row;
  row.function = "js_div";
  row.event = "js_rows";
  row.tolerance = 1e-5;
  row.bf16_tolerance = 0.1;
  for (const double temperature : {1.0, 3.0}) {
    Case c;
    c.name = str("T ", temperature);
    c.inputs = {mtcki::mul(noise({6, 7}, 1), 3.0), mtcki::mul(noise({6, 7}, 2), 3.0)};
    c.run = [=](In in) { return js_div(in[0], in[1], temperature); };
    c.reference = [=](Ref in) {
      double loss = 0;
      for (int64_t i = 0; i < 6; ++i) {
        const auto p = log_softmax_row(in[0], i, temperature),
                   q = log_softmax_row(in[1], i, temperature);
        for (size_t k = 0; k < p.size(); ++k) {
          // 1e-8 inside the logarithms
          const double a = std::exp(p[k]), b = std::exp(q[k]), m = (a + b) / 2;
          loss += (a * (std::log(a + 1e-8) - std::log(m + 1e-8)) +
                   b * (std::log(b + 1e-8) - std::log(m + 1e-8))) /
                  12;
        }
      }
      return Tensor::scalar(loss, DType::f64);
    };
    c.flops = 12 * 42;
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   js_div(Tensor::zeros({2, 3}), Tensor::zeros({3, 3}), 3.0);
                 },
                 {"js_rows: ", "equal shapes", "[2, 3] f32 cpu", "[3, 3] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(logits(n), 1), noise(logits(n), 2)},
                 [](In in) { return js_div(in[0], in[1], 4.0); }};
  };
  return row;
}

Row normalize_row() {
  Row row;
  row.function = "normalize";
  for (const Shape& shape : {Shape{5, 8}, Shape{9}, Shape{2, 3, 4}}) {
    Case c;
    c.name = shape.to_string();
    c.inputs = {noise(shape)};
    c.run = [](In in) { return normalize(in[0]); };
    c.reference = [](Ref in) {
      return fill(in[0].shape(), [&](const Index& i) {
        double squares = 0;
        Index j = i;
        for (j.back() = 0; j.back() < in[0].size(-1); ++j.back())
          squares += at(in[0], j) * at(in[0], j);
        return at(in[0], i) / std::sqrt(squares);
      });
    };
    c.flops = 3 * count(shape);
    row.cases.push_back(c);
  }
  // Rows shorter than eps are divided by eps.
  Case tiny;
  tiny.name = "below eps";
  tiny.inputs = {noise({3, 4})};
  tiny.run = [](In in) { return normalize(in[0], 100.0); };
  tiny.reference = [](Ref in) { return mtcki::mul(in[0], 0.01); };
  tiny.flops = 36;
  row.cases.push_back(tiny);
  row.errors = {{[] { normalize(Tensor::zeros({2}, DType::i64)); },
                 {"normalize: ", "floating dtype", "[2] i64 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(features(n))}, [](In in) { return normalize(in[0]); }};
  };
  return row;
}

Row info_nce_row() {
  Row row;
  row.function = "info_nce";
  row.event = "info_nce_rows";
  row.products = true;
  row.tolerance = 1e-5;
  row.bf16_tolerance = 0.1;
  for (const double tau : {0.2, 1.0}) {
    const Tensor weights = positive({5}, 7);
    Case c;
    c.name = str("tau ", tau);
    c.inputs = {noise({5, 6}, 1), noise({9, 6}, 2)};
    c.run = [=](In in) { return info_nce(in[0], in[1], tau, constant(weights, in[0])); };
    c.reference = [=](Ref in) {
      const Tensor s = fill({5, 9}, [&](const Index& i) {
        double dot = 0;
        for (int64_t d = 0; d < 6; ++d) dot += at(in[0], {i[0], d}) * at(in[1], {i[1], d});
        return dot;
      });
      double loss = 0;
      for (int64_t i = 0; i < 5; ++i)
        loss -= at(weights, {i}) * log_softmax_row(s, i, tau)[static_cast<size_t>(i)];
      return Tensor::scalar(loss, DType::f64);
    };
    c.flops = 45 * (2 * 6 + 6);
    row.cases.push_back(c);
  }
  const auto run = [](const Shape& u, const Shape& v, double tau, int64_t weights) {
    info_nce(Tensor::zeros(u), Tensor::zeros(v), tau, Tensor::zeros({weights}));
  };
  row.errors = {{[run] {
                   run({2, 3}, {4, 5}, 1, 2);
                 },
                 {"info_nce", "u has 3 columns, v has 5", "[2, 3] f32 cpu", "[4, 5] f32 cpu"}},
                {[run] {
                   run({4, 3}, {2, 3}, 1, 4);
                 },
                 {"info_nce", "u has 4 rows, v has 2", "[4, 3] f32 cpu", "[2, 3] f32 cpu"}},
                {[run] {
                   run({2, 3}, {4, 3}, 0, 2);
                 },
                 {"info_nce", "tau needs to be positive, got 0"}},
                {[run] {
                   run({2, 3}, {4, 3}, 1, 3);
                 },
                 {"info_nce: ", "row_weights", "[3] f32 cpu"}}};
  row.timed = [](int64_t n) {
    const Tensor weights = Tensor::full({n}, 1.0 / static_cast<double>(n));
    return Timed{{noise({n, 256}, 1), noise({n + 4096, 256}, 2)},
                 [=](In in) { return info_nce(in[0], in[1], 0.1, constant(weights, in[0])); }};
  };
  return row;
}

}  // namespace

std::vector<Row> loss_rows() {
  return {softmax_row("softmax", false),
          softmax_row("log_softmax", true),
          cross_entropy_row(),
          kl_row(),
          js_row(),
          normalize_row(),
          info_nce_row()};
}

}  // namespace mtcki::op_table
