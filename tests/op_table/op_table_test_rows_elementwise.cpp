#include <algorithm>
#include <cmath>

#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

using Scalar = std::function<double(double)>;
using Scalar2 = std::function<double(double, double)>;
using Samples = Tensor (*)(const Shape&, uint64_t);

// At least 1.25 from 0 and from 6.
Tensor around_0_and_6(const Shape& shape, uint64_t seed) {
  Tensor t = away_from_zero(shape, seed);  // at least 0.1 from 0
  for (int64_t i = 0; i < t.numel(); ++i) {
    double& v = t.data<double>()[i];
    v = 12.5 * v + (v > 0.3 ? 3.5 : 0.0);  // up to 3.75, from 7.25 on
  }
  return t;
}

Row unary(const std::string& name, const std::function<Variable(const Variable&)>& f,
          const Scalar& formula, Samples samples = noise, const std::string& event = "") {
  Row row;
  row.function = name;
  row.event = event;
  for (const Shape& shape :
       {Shape{}, Shape{7}, Shape{3, 50}, Shape{2, 3, 4, 5}, Shape{2, 2 * kC, 3, 5}, Shape{0, 4}}) {
    Case c;
    c.name = shape.to_string();
    c.inputs = {samples(shape, 1)};
    c.run = [f](const auto& in) { return f(in[0]); };
    c.reference = [formula](const auto& in) {
      return fill(in[0].shape(), [&](const Index& i) { return formula(at(in[0], i)); });
    };
    c.flops = count(shape);
    row.cases.push_back(c);
  }
  const std::string op = event.empty() ? name : event;
  row.errors = {{[f] {
                   f(Tensor::zeros({2, 3}, DType::i64));
                 },
                 {op + ": ", "needs a floating dtype", "[2, 3] i64 cpu"}}};
  row.timed = [samples, run = row.cases[0].run](int64_t n) {
    return Timed{{samples(activations(n), 1)}, run};
  };
  return row;
}

Row binary(const std::string& name,
           const std::function<Variable(const Variable&, const Variable&)>& f,
           const Scalar2& formula) {
  Row row;
  row.function = name;
  const Shape image{2, kC, 3, 3};
  struct Pair {
    const char* name;
    Shape a, b;
  };
  for (const Pair& p :
       {Pair{"same shape", image, image}, Pair{"row", {4, 5}, {5}}, Pair{"column", {4, 5}, {4, 1}},
        Pair{"outer", {3, 1}, {1, 4}}, Pair{"scalar", image, {}}, Pair{"scalar first", {}, {2, 3}},
        Pair{"per channel", image, {kC, 1, 1}}, Pair{"per channel first", {1, kC, 1, 1}, image},
        Pair{"per pixel", image, {2, 1, 3, 3}}, Pair{"rank", {3}, {2, 2, 3}}}) {
    Case c;
    c.name = p.name;
    c.inputs = {noise(p.a, 1), away_from_zero(p.b, 2)};
    c.run = [f](const auto& in) { return f(in[0], in[1]); };
    const Shape shape = broadcast_shapes("op_table", p.a, p.b);
    c.reference = [formula, shape](const auto& in) {
      return fill(shape, [&](const Index& i) { return formula(at(in[0], i), at(in[1], i)); });
    };
    c.flops = count(shape);
    row.cases.push_back(c);
  }
  row.errors = {{[f] {
                   f(Tensor::zeros({2, 3}), Tensor::zeros({2, 4}));
                 },
                 {name + ": ", "[2, 3]", "[2, 4]"}},
                {[f] { f(Tensor::zeros({2}), Tensor::zeros({2}, DType::f64)); },
                 {name + ": ", "equal dtypes", "[2] f32 cpu", "[2] f64 cpu"}}};
  row.timed = [run = row.cases[0].run](int64_t n) {
    return Timed{{noise(activations(n), 1), away_from_zero(activations(n), 2)}, run};
  };
  return row;
}

}  // namespace

std::vector<Row> elementwise_rows() {
  using V = const Variable&;
  std::vector<Row> rows{
      binary(
          "add", [](V a, V b) { return a + b; }, [](double a, double b) { return a + b; }),
      binary(
          "sub", [](V a, V b) { return a - b; }, [](double a, double b) { return a - b; }),
      binary(
          "mul", [](V a, V b) { return a * b; }, [](double a, double b) { return a * b; }),
      binary(
          "div", [](V a, V b) { return a / b; }, [](double a, double b) { return a / b; }),
      unary(
          "add_scalar", [](V x) { return add(x, 0.75); }, [](double x) { return x + 0.75; }, noise,
          "add"),
      unary(
          "mul_scalar", [](V x) { return -1.5 * x; }, [](double x) { return -1.5 * x; }, noise,
          "mul"),
      unary(
          "neg", [](V x) { return -x; }, [](double x) { return -x; }),
      unary(
          "exp", [](V x) { return exp(x); }, [](double x) { return std::exp(x); }),
      unary(
          "log", [](V x) { return log(x); }, [](double x) { return std::log(x); }, positive),
      unary(
          "sqrt", [](V x) { return sqrt(x); }, [](double x) { return std::sqrt(x); }, positive),
      unary(
          "square", [](V x) { return square(x); }, [](double x) { return x * x; }),
      unary(
          "abs", [](V x) { return abs(x); }, [](double x) { return std::abs(x); }, away_from_zero),
      unary(
          "relu", [](V x) { return relu(x); }, [](double x) { return std::max(x, 0.0); },
          away_from_zero),
      unary(
          "leaky_relu", [](V x) { return leaky_relu(x, 0.2); },
          [](double x) { return x > 0 ? x : 0.2 * x; }, away_from_zero),
      unary(
          "clamp", [](V x) { return clamp(x, -1.0, 6.0); },
          [](double x) { return std::min(std::max(x, -1.0), 6.0); }, around_0_and_6),
      unary(
          "relu6", [](V x) { return relu6(x); },
          [](double x) { return std::min(std::max(x, 0.0), 6.0); }, around_0_and_6, "clamp"),
      unary(
          "sigmoid", [](V x) { return sigmoid(x); },
          [](double x) { return 1 / (1 + std::exp(-x)); }),
      unary(
          "tanh", [](V x) { return tanh(x); }, [](double x) { return std::tanh(x); }),
      unary(
          "erf", [](V x) { return erf(x); }, [](double x) { return std::erf(x); }),
  };
  for (Row& row : rows) {
    if (row.function != "leaky_relu") continue;
    // A slope of 0 (its mask needs the input) and a negative one (so does its sign).
    for (double slope : {0.0, -0.5}) {
      Case c;
      c.name = str("slope ", slope);
      c.inputs = {away_from_zero({4, 9}, 5)};
      c.run = [slope](const auto& in) { return leaky_relu(in[0], slope); };
      c.reference = [slope](const auto& in) {
        return fill(in[0].shape(), [&](const Index& i) {
          const double x = at(in[0], i);
          return x > 0 ? x : slope * x;
        });
      };
      c.flops = 36;
      row.cases.push_back(c);
    }
  }
  return rows;
}

}  // namespace mtcki::op_table
