// Functions of values: activation functions, arithmetic, reductions and what is composed of them.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::onnx {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Sizes dims_from(int64_t first, size_t rank) {
  Sizes out;
  for (; first < static_cast<int64_t>(rank); ++first) out.push_back(first);
  return out;
}

}  // namespace

int64_t Builder::unary(const char* op, int64_t x, std::vector<double> reals) {
  return add(op, {x}, {}, std::move(reals), shape(x));
}

int64_t Builder::scaled(int64_t x, double a, double b) {
  return a == 1 && b == 0 ? x : unary("scale", x, {a, b});
}

Sizes Builder::broadcast(Sizes a, Sizes b) const {
  if (a.size() < b.size()) std::swap(a, b);
  b.insert(b.begin(), a.size() - b.size(), 1);
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && a[i] != 1 && b[i] != 1) fail("sizes that do not fit");
    a[i] = std::max(a[i], b[i]);
  }
  return a;
}

int64_t Builder::binary(const std::string& op, int64_t a, int64_t b) {
  return add(op, {a, b}, {}, {}, broadcast(shape(a), shape(b)));
}

// A constant, which is for one image, for all of them, too.
int64_t Builder::spread(int64_t x, const Sizes& sizes) {
  const int64_t b = batch_dim(sizes);
  Sizes once = sizes;
  if (b >= 0) once[static_cast<size_t>(b)] = 1;
  if (b >= 0 && batch_dim(shape(x)) < 0) {
    const int64_t count = sizes[static_cast<size_t>(b)] / kBatch;
    int64_t zero = 0;  // of every image a number times 0
    for (int64_t d = 1; d < 4; ++d) zero = joined(zero, d, {{0, 1}});
    zero = scaled(zero, 0);
    if (count > 1)
      zero = binary("add", reshaped(zero, {kBatch, 1}), literal(Tensor::zeros({1, count})));
    Sizes line(sizes.size(), 1);
    line[static_cast<size_t>(b)] = sizes[static_cast<size_t>(b)];
    x = binary("add", x, reshaped(zero, line));
  }
  return shape(x) == sizes ? x : binary("add", x, literal(expanded(Tensor::full({}, 0.0), once)));
}

int64_t Builder::reduced(const char* op, int64_t x, const Sizes& axes, bool keep) {
  Sizes out, ints{keep ? 1 : 0};
  for (size_t d = 0; d < shape(x).size(); ++d) {
    const bool gone = std::count(axes.begin(), axes.end(), static_cast<int64_t>(d)) > 0;
    if (!gone || keep) out.push_back(gone ? 1 : shape(x)[d]);
  }
  ints.insert(ints.end(), axes.begin(), axes.end());
  return add(op, {x}, ints, {}, out);
}

// min(x, 0), with the gradient 1 at 0.
int64_t Builder::negative_part(int64_t x) { return binary("sub", x, unary("relu", x)); }

// alpha (exp(x / scale) - 1) below 0.
int64_t Builder::elu(int64_t x, double alpha, double scale) {
  if (scale == 0) fail("alpha is 0");
  const int64_t below = unary("exp", scaled(negative_part(x), 1 / scale));
  return binary("add", unary("relu", x), scaled(below, alpha, -alpha));
}

// log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), with the gradient 1/2 at 0.
int64_t Builder::softplus(int64_t x) {
  const int64_t size = unary("leaky_relu", x, {-1.0});
  return binary("add", unary("relu", x),
                unary("log", scaled(unary("exp", scaled(size, -1)), 1, 1)));
}

int64_t Builder::gelu(int64_t x) {
  const std::string how = attribute("approximate", "none");
  if (how != "none" && how != "tanh") fail("approximate \"" + how.substr(0, 40) + "\"");
  constexpr double c = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;  // sqrt(2 / pi)
  const int64_t phi =
      how == "none" ? unary("erf", scaled(x, std::numbers::sqrt2 / 2))
                    : unary("tanh", binary("mul", x, scaled(binary("mul", x, x), c * 0.044715, c)));
  return binary("mul", x, scaled(phi, 0.5, 0.5));
}

int64_t Builder::power(int64_t x, double p) {
  if (p < 0) return binary("div", literal(Tensor::full({1}, 1.0)), power(x, -p));
  if (p == 0.5) return unary("sqrt", x);
  if (p != std::floor(p)) return unary("exp", scaled(unary("log", x), p));
  if (!(p >= 1 && p <= 8)) fail(str("a power of ", p, " is not taken"));
  int64_t y = x;
  for (int i = 1; i < p; ++i) y = binary("mul", y, x);
  return y;
}

// (x - mean) / sqrt(variance + eps) over these dimensions.
int64_t Builder::normalised(int64_t x, const Sizes& axes, double eps) {
  if (axes.empty() || std::count(axes.begin(), axes.end(), batch_dim(shape(x))) > 0)
    fail("would normalise over the images");
  const int64_t centred = binary("sub", x, reduced("mean", x, axes)),
                variance = reduced("mean", binary("mul", centred, centred), axes);
  return binary("div", centred, unary("sqrt", scaled(variance, 1, eps)));
}

std::pair<double, double> Builder::limits() const {
  const auto limit = [&](size_t i, const char* name, double otherwise) {
    return has(i) ? number(i) : attribute(name, otherwise);
  };
  const double low = limit(1, "min", -kInfinity), high = limit(2, "max", kInfinity);
  if (!(low <= high)) fail("limits that cross");
  return {low, high};
}

bool Builder::function(const std::string& op) {
  static const std::map<std::string, const char*> same = {
      {"Relu", "relu"}, {"Sigmoid", "sigmoid"}, {"Tanh", "tanh"}, {"Erf", "erf"},
      {"Exp", "exp"},   {"Log", "log"},         {"Sqrt", "sqrt"}, {"Abs", "abs"}};
  using B = Builder&;
  static const std::map<std::string, int64_t (*)(B, int64_t)> composed = {
      {"Neg", [](B b, int64_t x) { return b.scaled(x, -1); }},
      {"Reciprocal", [](B b, int64_t x) { return b.power(x, -1); }},
      {"Pow", [](B b, int64_t x) { return b.power(x, b.number(1)); }},
      {"Gelu", [](B b, int64_t x) { return b.gelu(x); }},
      {"Softplus", [](B b, int64_t x) { return b.softplus(x); }},
      {"Mish", [](B b, int64_t x) { return b.binary("mul", x, b.unary("tanh", b.softplus(x))); }},
      {"Softsign",
       [](B b, int64_t x) { return b.binary("div", x, b.scaled(b.unary("abs", x), 1, 1)); }},
      {"Swish",
       [](B b, int64_t x) {
         return b.binary("mul", x, b.unary("sigmoid", b.scaled(x, b.attribute("alpha", 1.0))));
       }},
      {"Elu", [](B b, int64_t x) { return b.elu(x, b.attribute("alpha", 1.0), 1); }},
      {"Celu",
       [](B b, int64_t x) {
         const double alpha = b.attribute("alpha", 1.0);
         return b.elu(x, alpha, alpha);
       }},
      {"Selu",
       [](B b, int64_t x) {
         const double alpha = b.attribute("alpha", 1.67326319217681884765625);
         return b.scaled(b.elu(x, alpha, 1), b.attribute("gamma", 1.05070102214813232421875));
       }},
      {"LeakyRelu",
       [](B b, int64_t x) { return b.unary("leaky_relu", x, {b.attribute("alpha", 0.01)}); }},
      {"PRelu",
       [](B b, int64_t x) {
         const Tensor& slope = b.constant(1);
         if (slope.numel() == 1) return b.unary("leaky_relu", x, {slope.item()});
         return b.binary("add", b.unary("relu", x),
                         b.binary("mul", b.negative_part(x), b.activation(1)));
       }},
      {"ThresholdedRelu",
       [](B b, int64_t x) {
         const Tensor alpha = Tensor::full({1}, b.attribute("alpha", 1.0));
         return b.binary("mul", x, b.binary("greater", x, b.literal(alpha)));
       }},
      {"Clip",
       [](B b, int64_t x) {
         const auto [low, high] = b.limits();
         return b.unary("clamp", x, {low, high});
       }},
      {"HardSigmoid",
       [](B b, int64_t x) {
         const double alpha = b.attribute("alpha", 0.2), beta = b.attribute("beta", 0.5);
         return b.unary("clamp", b.scaled(x, alpha, beta), {0.0, 1.0});
       }},
      {"HardSwish", [](B b, int64_t x) {
         return b.binary("mul", x, b.unary("clamp", b.scaled(x, 1.0 / 6, 0.5), {0.0, 1.0}));
       }}};
  if (const auto it = same.find(op); it != same.end()) {
    give(unary(it->second, activation(0)));
  } else if (const auto made = composed.find(op); made != composed.end()) {
    give(made->second(*this, activation(0)));
  } else {
    return false;
  }
  return true;
}

// x op c, or c op x. One number becomes a scale or shift, the bias of a matrix product its bias.
void Builder::with_constant(const std::string& op, int64_t x, const Tensor& c, bool first) {
  const Tensor real = c.to(DType::f32);
  if (c.numel() == 1 && c.rank() <= static_cast<int>(shape(x).size()) && !(op == "div" && first)) {
    const double v = c.item();
    const double a = op == "mul" ? v : op == "div" ? 1 / v : op == "sub" && first ? -1 : 1;
    const double b = op == "add" || (op == "sub" && first) ? v : op == "sub" ? -v : 0;
    give(add("scale", {x}, {}, {a, b}, shape(x)));
    return;
  }
  nn::GraphNode* made = x > 0 ? &nodes[static_cast<size_t>(x) - 1] : nullptr;  // 0 is the image
  // Only where nobody reads the product without the bias, under any name.
  const auto alias = [x](const auto& entry) { return entry.second.id == x; };
  if (op == "add" && made && made->op == "linear" && made->ints[2] == 0 && c.rank() == 1 &&
      c.numel() == made->ints[1] && readers_[node_->inputs[first ? 1 : 0]] == 1 &&
      std::count_if(values_.begin(), values_.end(), alias) == 1) {
    made->ints[2] = 1;
    weights[made->name + ".bias"] = real;
    give(x);
    return;
  }
  const int64_t other = activation(first ? 0 : 1);
  give(first ? binary(op, other, x) : binary(op, x, other));
}

bool Builder::comparison(const std::string& op) {
  const auto negated = [this](int64_t x) { return scaled(x, -1, 1); };
  const auto greater = [this](size_t a, size_t b) {
    return binary("greater", activation(a), activation(b));
  };
  if (op == "Greater" || op == "Less") {
    give(op == "Less" ? greater(1, 0) : greater(0, 1));
  } else if (op == "GreaterOrEqual" || op == "LessOrEqual") {
    give(negated(op == "LessOrEqual" ? greater(0, 1) : greater(1, 0)));
  } else if (op == "Equal") {
    give(binary("mul", negated(greater(0, 1)), negated(greater(1, 0))));
  } else if (op == "Sign") {
    const int64_t x = activation(0), zero = literal(Tensor::zeros({1}));
    give(binary("sub", binary("greater", x, zero), binary("greater", zero, x)));
  } else if (op == "And") {
    give(binary("mul", activation(0), activation(1)));
  } else if (op == "Or") {
    give(negated(binary("mul", negated(activation(0)), negated(activation(1)))));
  } else if (op == "Not") {
    give(negated(activation(0)));
  } else if (op == "Where") {
    for (const size_t i : {size_t{1}, size_t{2}})
      if (input(i).is_constant() && !all_finite(constant(i).to(DType::f32)))
        fail("puts values that are not finite");
    const int64_t mask = activation(0);
    give(binary("add", binary("mul", mask, activation(1)),
                binary("mul", scaled(mask, -1, 1), activation(2))));
  } else {
    return false;
  }
  return true;
}

bool Builder::arithmetic(const std::string& op) {
  static const std::map<std::string, const char*> names = {
      {"Add", "add"}, {"Sub", "sub"},  {"Mul", "mul"}, {"Div", "div"},
      {"Sum", "add"}, {"Mean", "add"}, {"Max", "max"}, {"Min", "min"}};
  const auto it = names.find(op);
  if (it == names.end()) return false;
  const std::string name = it->second;
  const size_t count = node_->inputs.size();
  if (name == "max" || name == "min" || count != 2 || op == "Mean") {
    // A constant may be as large as no sum with it shows the rest: never the first, and a number
    // is a limit.
    size_t first = 0;
    while (first + 1 < count && input(first).is_constant()) ++first;
    const auto joined = [&](int64_t a, size_t i) {
      const Tensor& c = input(i).constant;
      if (name != "add" && input(i).is_constant() && c.numel() == 1 &&
          c.rank() <= std::ssize(shape(a)))
        return name == "max" ? unary("clamp", a, {c.item(), kInfinity})
                             : unary("clamp", a, {-kInfinity, c.item()});
      const int64_t b = activation(i);
      if (name == "add") return binary(name, a, b);
      return name == "max" ? binary("add", a, unary("relu", binary("sub", b, a)))
                           : binary("sub", a, unary("relu", binary("sub", a, b)));
    };
    int64_t y = activation(first);
    for (size_t i = 0; i < count; ++i)
      if (i != first) y = joined(y, i);
    give(op == "Mean" ? scaled(y, 1 / static_cast<double>(count)) : y);
  } else if (input(0).is_constant()) {
    const Tensor c = constant(0);
    with_constant(name, activation(1), c, true);
  } else if (input(1).is_constant()) {
    const Tensor c = constant(1);
    with_constant(name, activation(0), c, false);
  } else {
    give(binary(name, activation(0), activation(1)));
  }
  return true;
}

// The largest value: a pool of these dimensions, behind the others and in one row.
int64_t Builder::largest(int64_t x, const Sizes& axes, bool keep) {
  const Sizes in = shape(x);
  Sizes order, rows{1, 1, 1, 1}, out;
  for (size_t d = 0; d < in.size(); ++d) {
    const bool gone = std::count(axes.begin(), axes.end(), static_cast<int64_t>(d)) > 0;
    if (!gone) order.push_back(static_cast<int64_t>(d));
    rows[gone ? 3 : d > 0 && batch_dim(in) == 0 ? 1 : 0] *= in[d];
    if (!gone || keep) out.push_back(gone ? 1 : in[d]);
  }
  order.insert(order.end(), axes.begin(), axes.end());
  const int64_t y = reshaped(permuted(x, order), rows), n = rows[3];
  return reshaped(add("max_pool", {y}, {1, n, 1, n, 0, 0, 0}, {}, {rows[0], rows[1], 1, 1}), out);
}

bool Builder::reduction(const std::string& op) {
  const bool global = op == "GlobalAveragePool" || op == "GlobalMaxPool";
  if (!global && op.rfind("Reduce", 0) != 0) return false;
  const int64_t x = activation(0);
  const size_t rank = shape(x).size();
  const bool keep = global || attribute("keepdims", int64_t{1}) != 0;
  attribute("noop_with_empty_axes", int64_t{0});  // no axes are refused with it and without
  Sizes axes = global ? dims_from(2, rank) : integers("axes", 1, {});
  for (int64_t& a : axes) a = axis(a, rank);
  std::sort(axes.begin(), axes.end());
  if (axes.empty() || std::count(axes.begin(), axes.end(), batch_dim(shape(x))) > 0 ||
      std::adjacent_find(axes.begin(), axes.end()) != axes.end())
    fail("only dimensions other than the images are reduced");
  const auto sum = [&](int64_t v) { return reduced("sum", v, axes, keep); };
  if (op == "ReduceMean" || op == "GlobalAveragePool") {
    give(reduced("mean", x, axes, keep));
  } else if (op == "ReduceMax" || op == "GlobalMaxPool") {
    give(largest(x, axes, keep));
  } else if (op == "ReduceMin") {
    give(scaled(largest(scaled(x, -1), axes, keep), -1));
  } else if (op == "ReduceSum") {
    give(sum(x));
  } else if (op == "ReduceLogSumExp") {
    const int64_t most = largest(x, axes, true), y = unary("exp", binary("sub", x, most));
    const int64_t out = binary("add", unary("log", reduced("sum", y, axes)), most);
    give(keep ? out : reshaped(out, shape(sum(x))));
  } else if (op == "ReduceL1") {
    give(sum(unary("abs", x)));
  } else if (op == "ReduceSumSquare") {
    give(sum(binary("mul", x, x)));
  } else if (op == "ReduceL2") {  // so much that the gradient at 0 is 0
    give(unary("sqrt", scaled(sum(binary("mul", x, x)), 1, 1e-30)));
  } else {
    return false;
  }
  return true;
}

// Before opset 13 over this dimension and those behind it, as one.
int64_t Builder::softmax(const char* op, int64_t x) {
  const Sizes in = shape(x);
  const bool old = model_.opset < 13;
  const int64_t d = axis(attribute("axis", int64_t{old ? 1 : -1}), in.size());
  if (d == batch_dim(in) || (old && d < batch_dim(in))) fail("would normalise over the images");
  const auto last = static_cast<int64_t>(in.size()) - 1;
  if (d == last) return unary(op, x);
  if (old) {
    Sizes flat(in.begin(), in.begin() + d);
    flat.push_back(1);
    for (int64_t i = d; i <= last; ++i) flat.back() *= in[static_cast<size_t>(i)];
    return reshaped(unary(op, reshaped(x, flat)), in);
  }
  Sizes order = dims_from(0, in.size());
  std::swap(order[static_cast<size_t>(d)], order.back());
  return permuted(unary(op, permuted(x, order)), order);
}

// Weight and bias behind a normalisation, of the sizes that broadcasting needs.
int64_t Builder::affine(int64_t x, const Sizes& sizes) {
  const auto part = [&](size_t i) {
    if (constant(i).numel() != Shape(sizes).numel()) fail("a weight or bias that does not fit");
    return literal(constant(i).reshape(Shape(sizes)), node_->inputs[i]);
  };
  x = binary("mul", x, part(1));
  return has(2) ? binary("add", x, part(2)) : x;
}

bool Builder::normalisation(const std::string& op) {
  if (op == "Softmax") return give(softmax("softmax", activation(0))), true;
  if (op == "LogSoftmax") return give(softmax("log_softmax", activation(0))), true;
  if (op == "LpNormalization") {
    const int64_t x = activation(0), d = axis(attribute("axis", int64_t{-1}), shape(x).size());
    const bool absolute = attribute("p", int64_t{2}) == 1;
    if (d == batch_dim(shape(x))) fail("would normalise over the images");
    const int64_t size = reduced("sum", absolute ? unary("abs", x) : binary("mul", x, x), {d});
    give(binary("div", x, absolute ? size : unary("sqrt", scaled(size, 1, 1e-30))));
    return true;
  }
  if (op == "RMSNormalization") {
    const int64_t x = activation(0);
    const Sizes in = shape(x),
                axes = dims_from(axis(attribute("axis", int64_t{-1}), in.size()), in.size());
    attribute("stash_type", int64_t{1});
    if (batch_dim(in) >= axes[0]) fail("would normalise over the images");
    const int64_t square = reduced("mean", binary("mul", x, x), axes);
    give(binary("mul",
                binary("div", x, unary("sqrt", scaled(square, 1, attribute("epsilon", 1e-5)))),
                activation(1)));
    return true;
  }
  if (op == "LayerNormalization") {
    const int64_t x = activation(0);
    const Sizes in = shape(x),
                axes = dims_from(axis(attribute("axis", int64_t{-1}), in.size()), in.size());
    attribute("stash_type", int64_t{1});  // f32, or f64 for less
    Sizes sizes;
    for (const int64_t a : axes) sizes.push_back(in[static_cast<size_t>(a)]);
    give(affine(normalised(x, axes, attribute("epsilon", 1e-5)), sizes));
    return true;
  }
  if (op != "InstanceNormalization" && op != "GroupNormalization" && op != "LRN") return false;
  const int64_t x = activation(0);
  const Sizes in = shape(x);
  if (in.size() < 3) fail(str("of ", in.size(), " dimensions"));
  int64_t pixels = 1;
  for (size_t d = 2; d < in.size(); ++d) pixels *= in[d];
  Sizes channels(in.size() - 1, 1);
  channels[0] = in[1];
  if (op == "InstanceNormalization") {
    const double eps = attribute("epsilon", 1e-5);
    give(affine(normalised(x, dims_from(2, in.size()), eps), channels));
  } else if (op == "GroupNormalization") {
    const int64_t groups = attribute("num_groups", int64_t{0});
    attribute("stash_type", int64_t{1});
    if (groups < 1 || in[1] % groups != 0) fail(str(groups, " groups of ", in[1], " channels"));
    const int64_t rows = reshaped(x, {in[0], groups, in[1] / groups * pixels}),
                  y = normalised(rows, {2}, attribute("epsilon", 1e-5));
    if (model_.opset >= 21) return give(affine(reshaped(y, in), channels)), true;
    give(reshaped(affine(y, {groups, 1}), in));  // weights of a group before
  } else {
    // x / (bias + alpha / size * sum of the squares of neighbouring channels)^beta
    const int64_t size = attribute("size", int64_t{0});
    if (size < 1 || size % 2 == 0 || size > 2 * in[1])
      fail(str("a size of ", size, " is not taken"));
    const int64_t rows = reshaped(binary("mul", x, x), {in[0], 1, in[1], pixels}),
                  means =
                      add("avg_pool", {rows}, {size, 1, 1, 1, size / 2, 0, 0, 1}, {}, shape(rows));
    const int64_t divisor =
        scaled(reshaped(means, in), attribute("alpha", 1e-4), attribute("bias", 1.0));
    give(binary("mul", x, power(divisor, -attribute("beta", 0.75))));
  }
  return true;
}

}  // namespace mtcki::onnx
