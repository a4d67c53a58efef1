// What a file computes from constants and shapes, done once.
#include <algorithm>
#include <cmath>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/reduce.h"

namespace mtcki::onnx {

namespace {

constexpr size_t kMostListed = 4096;
constexpr int64_t kMostMade = int64_t{1} << 24;  // numbers of a constant that a file makes

Tensor list_of(const Sizes& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}
Sizes sizes_of(const Tensor& t) { return {t.shape().begin(), t.shape().end()}; }

}  // namespace

Tensor Builder::expanded(const Tensor& t, const Sizes& sizes) const {
  int64_t n = 1;
  for (const int64_t s : sizes)
    if (!data::checked_multiply(n, s, &n) || n > kMostMade) fail("makes a constant of that size");
  if (sizes.size() > static_cast<size_t>(Shape::kMaxRank)) fail("too many dimensions");
  if (t.dtype() == DType::f32) return mtcki::add(Tensor::zeros(Shape(sizes)), t);
  if (t.numel() == 1)
    return Tensor::from(Sizes(static_cast<size_t>(n), t.to_vector<int64_t>()[0]), Shape(sizes));
  if (sizes_of(t) != sizes) fail("this expansion is not taken");
  return t;
}

bool Builder::fold() {
  const std::string& op = node_->op;
  const auto all_constant = [&] {
    for (size_t i = 0; i < node_->inputs.size(); ++i)
      if (has(i) && !input(i).is_constant()) return false;
    return !node_->inputs.empty();
  };
  if (op == "Constant") {
    if (const auto* a = find_attribute("value"); a && a->tensor.defined())
      return give(a->tensor), true;
    if (const auto* a = find_attribute("value_int"))
      return give(Tensor::from(Sizes{a->integer}, Shape{})), true;
    if (const auto* a = find_attribute("value_ints")) return give(list_of(a->integers)), true;
    if (const auto* a = find_attribute("value_float"))
      return give(Tensor::full({}, double{a->real})), true;
    if (const auto* a = find_attribute("value_floats"))
      return give(Tensor::from(a->reals, {static_cast<int64_t>(a->reals.size())})), true;
    fail("no value that is taken");
  }
  if (op == "Shape") {
    const Value& v = input(0);
    const Sizes all = v.is_constant() ? sizes_of(v.constant) : shape(activation(0));
    const auto rank = static_cast<int64_t>(all.size());
    const auto place = [&](int64_t at) {
      return std::clamp(at < 0 ? at + rank : at, int64_t{0}, rank);
    };
    const int64_t begin = place(attribute("start", int64_t{0})),
                  end = place(attribute("end", rank));
    return give(list_of(begin < end ? Sizes(all.begin() + begin, all.begin() + end) : Sizes{})),
           true;
  }
  if (op == "CastLike" && input(0).is_constant()) {
    const Value& like = input(1);
    return give(constant(0).to(like.is_constant() ? like.constant.dtype() : DType::f32)), true;
  }
  if (!all_constant()) return false;
  if (op == "Identity" || op == "Dropout") return give(constant(0)), true;
  if (op == "Cast") {
    const int64_t to = attribute("to", int64_t{1});
    const bool real = to == 1 || to == 10 || to == 11 || to == 16;
    if (to == 9)
      return give(computed(1, true, [](const double* v) { return *v != 0 ? 1.0 : 0.0; })), true;
    return give(constant(0).to(real ? DType::f32 : DType::i64)), true;
  }
  if (op == "ConstantOfShape") {
    const auto* value = find_attribute("value");
    const bool given = value && value->tensor.defined();
    return give(expanded(given ? value->tensor : Tensor::full({}, 0.0), integers("", 0, {}))), true;
  }
  if (op == "Expand") return give(expanded(constant(0), integers("", 1, {}))), true;
  return fold_shape() || fold_list() || fold_statistics() || fold_arithmetic();
}

// Constants in other shapes.
bool Builder::fold_shape() {
  const std::string& op = node_->op;
  if (op == "Reshape" || op == "Squeeze" || op == "Unsqueeze" || op == "Flatten") {
    const Tensor& t = constant(0);
    Sizes sizes = sizes_of(t);
    if (op == "Reshape") {
      sizes = integers("", 1, {});
      attribute("allowzero", int64_t{0});  // a 0 is refused with it and without
      if (std::count(sizes.begin(), sizes.end(), 0) > 0) fail("a size of 0");
    } else if (op == "Unsqueeze") {
      Sizes axes = integers("axes", 1, {});
      for (int64_t& a : axes) a = axis(a, sizes.size() + axes.size());
      std::sort(axes.begin(), axes.end());
      for (const int64_t a : axes)
        sizes.insert(sizes.begin() + std::min<int64_t>(a, static_cast<int64_t>(sizes.size())), 1);
    } else if (op == "Squeeze") {
      Sizes axes = integers("axes", 1, {});
      for (int64_t& a : axes) a = axis(a, sizes.size());
      for (size_t i = sizes.size(); i-- > 0;)
        if (axes.empty() ? sizes[i] == 1
                         : std::count(axes.begin(), axes.end(), static_cast<int64_t>(i)) > 0) {
          if (sizes[i] != 1) fail("a dimension that is not 1");
          sizes.erase(sizes.begin() + static_cast<int64_t>(i));
        }
    } else {
      if (attribute("axis", int64_t{1}) != 1) fail("only axis 1 is taken");
      sizes = {sizes.empty() ? 1 : sizes[0], -1};
    }
    return give(t.reshape(Shape(sizes))), true;
  }
  if (op == "Transpose") {
    const Sizes perm = integers("perm", 99, {});
    std::vector<int> order;
    const auto rank = static_cast<size_t>(constant(0).rank());
    for (size_t i = 0; i < rank; ++i)
      order.push_back(static_cast<int>(perm.size() != rank ? static_cast<int64_t>(rank - 1 - i)
                                                           : axis(perm[i], rank)));
    return give(permute(constant(0), order)), true;
  }
  return false;
}

// Parts of lists of integers, which is what files compute sizes with.
bool Builder::fold_list() {
  const std::string& op = node_->op;
  if (op == "Gather") {
    const Sizes from =
        constant(0).dtype() == DType::i64 ? constant(0).to_vector<int64_t>() : Sizes{};
    const Tensor& index = constant(1);
    Sizes out;
    axis(attribute("axis", int64_t{0}), 1);
    if (constant(0).rank() != 1 || index.dtype() != DType::i64 || index.rank() > 1)
      fail("only picks from lists of integers are taken");
    for (const int64_t i : index.to_vector<int64_t>())
      out.push_back(from[static_cast<size_t>(axis(i, from.size()))]);
    return give(list_of(out).reshape(index.shape())), true;
  }
  if (op == "Range") {
    const Sizes from = integers("", 0, {}), to = integers("", 1, {}), step = integers("", 2, {});
    if (from.size() != 1 || to.size() != 1 || step != Sizes{1}) fail("only steps of 1 are taken");
    Sizes out;
    for (int64_t i = from[0]; i < to[0]; ++i) {
      if (out.size() > kMostListed) fail("makes a list of that length");
      out.push_back(i);
    }
    return give(list_of(out)), true;
  }
  if (op == "Concat") {
    std::vector<Tensor> parts;
    axis(attribute("axis", int64_t{0}), 1);
    for (size_t i = 0; i < node_->inputs.size(); ++i) {
      if (constant(i).rank() != 1 || constant(i).dtype() != constant(0).dtype())
        fail("of constants, only lists of numbers of one kind are taken");
      parts.push_back(constant(i));
    }
    return give(cat(parts, 0)), true;
  }
  if (op != "Slice") return false;
  // Rows of a list or table of integers, forward or backward.
  const Tensor& all = constant(0);
  const Sizes starts = integers("starts", 1, {0}), ends = integers("ends", 2, {INT64_MAX}),
              axes = integers("axes", 3, {0}), steps = integers("steps", 4, {1});
  if (all.rank() < 1 || all.dtype() != DType::i64 || starts.size() != 1 || ends.size() != 1 ||
      axes != Sizes{0} || steps.size() != 1 || (steps[0] != 1 && steps[0] != -1))
    fail("of constants, only rows of integers one after the other are taken");
  const int64_t n = all.size(0), low = steps[0] < 0 ? -1 : 0;
  const auto place = [&](int64_t at) {
    return std::clamp(at < 0 ? std::max(at, -n - 1) + n : at, low, n + low);
  };
  const Sizes values = all.to_vector<int64_t>();
  const auto row = static_cast<int64_t>(values.size()) / std::max<int64_t>(1, n);
  Sizes out, sizes = sizes_of(all);
  sizes[0] = 0;
  for (int64_t i = place(starts[0]), end = place(ends[0]); (end - i) * steps[0] > 0;
       i += steps[0]) {
    out.insert(out.end(), values.begin() + i * row, values.begin() + (i + 1) * row);
    ++sizes[0];
  }
  return give(Tensor::from(out, Shape(sizes))), true;
}

// Weights that a network standardises itself, as NFNet and BiT do.
bool Builder::fold_statistics() {
  const std::string& op = node_->op;
  if (op != "ReduceMean" && op != "BatchNormalization") return false;
  const Tensor x = constant(0).to(DType::f32);
  const auto rank = static_cast<size_t>(x.rank());
  if (op == "ReduceMean") {
    std::vector<int> dims;
    for (const int64_t a : integers("axes", 1, {})) dims.push_back(static_cast<int>(axis(a, rank)));
    attribute("noop_with_empty_axes", int64_t{0});
    if (dims.empty()) fail("no axes");
    return give(mtcki::mean(x, dims, attribute("keepdims", int64_t{1}) != 0)), true;
  }
  Sizes sizes(rank, 1);
  if (rank < 2) fail("of less than two dimensions");
  sizes[1] = x.size(1);
  const auto part = [&](size_t i) { return constant(i).reshape(Shape(sizes)); };
  const Tensor root = mtcki::sqrt(mtcki::add(part(4), attribute("epsilon", 1e-5)));
  const Tensor standard = mtcki::div(mtcki::sub(x, part(3)), root);
  return give(mtcki::add(mtcki::mul(standard, part(1)), part(2))), true;
}

// f of constants, element by element, broadcast as NumPy does. Integers stay integers (Div rounds
// toward zero); what is logical gives 0 or 1.
Tensor Builder::computed(size_t inputs, bool logical,
                         const std::function<double(const double*)>& f) const {
  constexpr double kMostExact = 9007199254740992.0;  // 2^53
  const bool select = node_->op == "Where";
  const DType dtype = constant(select ? 1 : 0).dtype();
  Shape shape;
  int64_t most = kMostMade;
  for (size_t i = 0; i < inputs; ++i) {
    const Tensor& t = constant(i);
    if (!(select && i == 0) && t.dtype() != dtype && node_->op != "Pow")
      fail("mixes integers and reals");
    shape = broadcast_shapes(node_->op.c_str(), shape, t.shape());
    most = std::max(most, t.numel());
  }
  if (shape.numel() > most) fail("makes a constant of that size");
  std::vector<std::vector<double>> values;
  for (size_t i = 0; i < inputs; ++i)
    values.push_back(broadcast_to(constant(i).to(DType::f64), shape).to_vector<double>());
  const bool integers = logical || dtype == DType::i64;
  const auto exact = [&](double v) {
    if (integers && !(std::abs(v) <= kMostExact)) fail("a number beyond 53 bits");
    return v;
  };
  std::vector<double> out(static_cast<size_t>(shape.numel())), at(inputs);
  for (size_t k = 0; k < out.size(); ++k) {
    for (size_t i = 0; i < inputs; ++i) at[i] = values[i][k];
    if (dtype == DType::i64) std::for_each(at.begin(), at.end(), exact);
    out[k] = exact(f(at.data()));
  }
  return Tensor::from(out, shape).to(integers ? DType::i64 : DType::f32);
}

bool Builder::fold_arithmetic() {
  struct Function {
    size_t inputs;
    double (*f)(const double* v);
    bool logical = false;
  };
  using V = const double*;
  static const std::map<std::string, Function> table = {
      {"Add", {2, [](V v) { return v[0] + v[1]; }}},
      {"Sub", {2, [](V v) { return v[0] - v[1]; }}},
      {"Mul", {2, [](V v) { return v[0] * v[1]; }}},
      {"Div", {2, [](V v) { return v[0] / v[1]; }}},
      {"Mod", {2, [](V v) { return v[0] - v[1] * std::floor(v[0] / v[1]); }}},
      {"Pow", {2, [](V v) { return std::pow(v[0], v[1]); }}},
      {"Max", {2, [](V v) { return std::max(v[0], v[1]); }}},
      {"Min", {2, [](V v) { return std::min(v[0], v[1]); }}},
      {"Neg", {1, [](V v) { return -v[0]; }}},
      {"Abs", {1, [](V v) { return std::abs(v[0]); }}},
      {"Ceil", {1, [](V v) { return std::ceil(v[0]); }}},
      {"Floor", {1, [](V v) { return std::floor(v[0]); }}},
      {"Round", {1, [](V v) { return std::nearbyint(v[0]); }}},
      {"Sqrt", {1, [](V v) { return std::sqrt(v[0]); }}},
      {"Exp", {1, [](V v) { return std::exp(v[0]); }}},
      {"Reciprocal", {1, [](V v) { return 1 / v[0]; }}},
      {"Sigmoid", {1, [](V v) { return 1 / (1 + std::exp(-v[0])); }}},
      {"Where", {3, [](V v) { return v[0] != 0 ? v[1] : v[2]; }}},
      {"Not", {1, [](V v) { return v[0] == 0 ? 1.0 : 0.0; }, true}},
      {"And", {2, [](V v) { return v[0] != 0 && v[1] != 0 ? 1.0 : 0.0; }, true}},
      {"Or", {2, [](V v) { return v[0] != 0 || v[1] != 0 ? 1.0 : 0.0; }, true}},
      {"Equal", {2, [](V v) { return v[0] == v[1] ? 1.0 : 0.0; }, true}},
      {"Less", {2, [](V v) { return v[0] < v[1] ? 1.0 : 0.0; }, true}},
      {"LessOrEqual", {2, [](V v) { return v[0] <= v[1] ? 1.0 : 0.0; }, true}},
      {"Greater", {2, [](V v) { return v[0] > v[1] ? 1.0 : 0.0; }, true}},
      {"GreaterOrEqual", {2, [](V v) { return v[0] >= v[1] ? 1.0 : 0.0; }, true}}};
  if (node_->op == "Clip") {
    const auto [low, high] = limits();
    give(computed(1, false, [&](V v) { return std::clamp(v[0], low, high); }));
    return true;
  }
  const auto it = table.find(node_->op);
  if (it == table.end() || node_->inputs.size() != it->second.inputs) return false;
  give(computed(it->second.inputs, it->second.logical, it->second.f));
  return true;
}

}  // namespace mtcki::onnx
