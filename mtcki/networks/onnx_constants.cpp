// What a file computes from constants and shapes, done once.
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"
#include "tensor/ops/matmul.h"
#include "tensor/ops/reduce.h"

namespace mtcki::onnx {

namespace {

constexpr size_t kMostListed = 4096;
constexpr int64_t kMostMade = int64_t{1} << 24;  // numbers of a constant that a file makes

Tensor list_of(const Sizes& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())});
}
// Sizes that a file computed for all images, for one.
Sizes of_one(Sizes sizes) {
  for (int64_t& n : sizes)
    if (n != 0 && n % kBatch == 0) n /= kBatch;
  return sizes;
}
Sizes sizes_of(const Tensor& t) { return {t.shape().begin(), t.shape().end()}; }

}  // namespace

Tensor Builder::expanded(const Tensor& t, const Sizes& sizes) const {
  int64_t n = 1;
  for (const int64_t s : sizes)
    if (!data::checked_multiply(n, s, &n) || n > kMostMade) fail("makes a constant of that size");
  if (sizes.size() > static_cast<size_t>(Shape::kMaxRank)) fail("too many dimensions");
  const Shape shape = broadcast_shapes("Expand", t.shape(), Shape(sizes));
  Tensor at = Tensor::empty(t.shape(), DType::f64);
  std::iota(at.data<double>(), at.data<double>() + at.numel(), 0.0);
  at = broadcast_to(at, shape).plain().to(DType::i64).reshape({-1});
  return index_select(t.reshape({-1}), at).reshape(shape);
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
      return types_[node_->outputs.at(0)] = a->type, give(a->tensor), true;
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
    types_[node_->outputs.at(0)] = to;
    if (to == 9)
      return give(computed(1, true, [](const double* v) { return *v != 0 ? 1.0 : 0.0; })), true;
    const bool same = real == (constant(0).dtype() != DType::i64);
    return give(same ? constant(0) : constant(0).to(real ? DType::f64 : DType::i64)), true;
  }
  if (op == "ConstantOfShape") {
    const auto* value = find_attribute("value");
    const bool given = value && value->tensor.defined();
    return give(expanded(given ? value->tensor : Tensor::full({}, 0.0),
                         of_one(integers("", 0, {})))),
           true;
  }
  if (op == "Expand") return give(expanded(constant(0), of_one(integers("", 1, {})))), true;
  return fold_shape() || fold_list() || fold_statistics() || fold_arithmetic();
}

// Constants in other shapes.
bool Builder::fold_shape() {
  const std::string& op = node_->op;
  if (op == "Reshape" || op == "Squeeze" || op == "Unsqueeze" || op == "Flatten") {
    const Tensor& t = constant(0);
    Sizes sizes = sizes_of(t);
    if (op == "Reshape") {
      const Sizes in = std::exchange(sizes, of_one(integers("", 1, {})));
      attribute("allowzero", int64_t{0});
      for (size_t d = 0; d < sizes.size(); ++d)
        if (sizes[d] == 0 && d < in.size()) sizes[d] = in[d];
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
      const int64_t d = attribute("axis", int64_t{1});
      const auto middle =
          sizes.begin() + (d < 0 ? d + std::ssize(sizes) : std::min(d, std::ssize(sizes)));
      sizes = {std::accumulate(sizes.begin(), middle, int64_t{1}, std::multiplies<>()), -1};
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

Tensor Builder::picked(const Tensor& t, int64_t d, const Sizes& at) {
  std::vector<int> order(static_cast<size_t>(t.rank()));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[0], order[static_cast<size_t>(d)]);
  return permute(index_select(permute(t, order), list_of(at)), order);
}

// Of GatherND: positions in the leading dimensions, as one.
Sizes Builder::leading_places(const Tensor& index, const Sizes& sizes) const {
  const int64_t depth = index.rank() > 0 ? index.size(-1) : 0;
  if (index.dtype() != DType::i64 || attribute("batch_dims", int64_t{0}) != 0 || depth < 1 ||
      depth > std::ssize(sizes))
    fail("positions that are not taken");
  const Sizes places = index.to_vector<int64_t>();
  Sizes at;
  for (size_t i = 0; i < places.size(); ++i) {
    const size_t d = i % static_cast<size_t>(depth);
    if (d == 0) at.push_back(0);
    at.back() = at.back() * sizes[d] + axis(places[i], static_cast<size_t>(sizes[d]));
  }
  return at;
}

// Parts of constants: of lists that files compute sizes with, and of tables.
bool Builder::fold_list() {
  const std::string& op = node_->op;
  if (op == "Gather") {
    const Tensor &all = constant(0), index = constant(1);
    Sizes sizes = sizes_of(all), at;
    const int64_t d = axis(attribute("axis", int64_t{0}), sizes.size());
    if (index.dtype() != DType::i64) fail("positions that are no integers");
    for (const int64_t i : index.to_vector<int64_t>())
      at.push_back(axis(i, static_cast<size_t>(all.size(static_cast<int>(d)))));
    if (all.numel() / std::max<int64_t>(1, all.size(static_cast<int>(d))) * index.numel() >
        kMostMade)
      fail("makes a constant of that size");
    sizes.erase(sizes.begin() + d);
    sizes.insert(sizes.begin() + d, index.shape().begin(), index.shape().end());
    return give(picked(all, d, at).reshape(Shape(sizes))), true;
  }
  if (op == "GatherND") {  // of the leading dimensions, as one
    const Tensor &all = constant(0), index = constant(1);
    const Sizes at = leading_places(index, sizes_of(all));
    Sizes sizes(index.shape().begin(), index.shape().end() - 1);
    int64_t rows = 1;
    for (int d = 0; d < index.size(-1); ++d) rows *= all.size(d);
    sizes.insert(sizes.end(), all.shape().begin() + index.size(-1), all.shape().end());
    if (all.numel() / std::max<int64_t>(1, rows) * std::ssize(at) > kMostMade)
      fail("makes a constant of that size");
    return give(picked(all.reshape({rows, -1}), 0, at).reshape(Shape(sizes))), true;
  }
  if (op == "Range") {
    const bool real = constant(0).dtype() != DType::i64;
    const double from = number(0), to = number(1), step = number(2);
    std::vector<double> out;
    if (!(step != 0 && (to - from) / step <= kMostListed)) fail("makes a list of that length");
    for (int64_t i = 0; i < std::ceil((to - from) / step); ++i)
      out.push_back(from + static_cast<double>(i) * step);
    return give(Tensor::from(out, {std::ssize(out)}).to(real ? DType::f64 : DType::i64)), true;
  }
  if (op == "Concat") {
    std::vector<Tensor> parts;
    const int64_t d = axis(attribute("axis", int64_t{0}), static_cast<size_t>(constant(0).rank()));
    for (size_t i = 0; i < node_->inputs.size(); ++i) {
      parts.push_back(constant(i).dtype() == DType::i64 ? constant(i) : constant(i).to(DType::f64));
      if (parts.back().dtype() != parts[0].dtype()) fail("mixes integers and reals");
      if (static_cast<int64_t>(i + 1) * parts[0].numel() > kMostMade)
        fail("makes a constant of that size");
    }
    return give(cat(parts, static_cast<int>(d))), true;
  }
  if (op != "Slice") return false;
  Tensor t = constant(0);
  const Sizes starts = integers("starts", 1, {}), ends = integers("ends", 2, {});
  Sizes axes(starts.size());
  std::iota(axes.begin(), axes.end(), 0);
  axes = integers("axes", 3, axes);
  const Sizes steps = integers("steps", 4, Sizes(starts.size(), 1));
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    fail("lists of different lengths");
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t d = axis(axes[i], static_cast<size_t>(t.rank())), n = t.size(static_cast<int>(d)),
                  step = std::clamp(steps[i], -n - 1, n + 1), low = step < 0 ? -1 : 0;
    const auto place = [&](int64_t at) {
      return std::clamp(at < 0 ? std::max(at, -n - 1) + n : at, low, n + low);
    };
    Sizes at;
    if (step == 0) fail("a step of 0");
    for (int64_t k = place(starts[i]); (place(ends[i]) - k) * step > 0; k += step) at.push_back(k);
    t = picked(t, d, at);
  }
  return give(t), true;
}

Tensor Builder::summing(int64_t n) const {
  const bool reverse = attribute("reverse", int64_t{0}) != 0;
  const int64_t least = attribute("exclusive", int64_t{0}) != 0 ? 1 : 0;
  if (n > static_cast<int64_t>(kMostListed)) fail("of that many numbers");
  Tensor t = Tensor::zeros({n, n}, DType::f64);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j)
      if ((reverse ? i - j : j - i) >= least) t.data<double>()[i * n + j] = 1;
  return t;
}

// Weights that a network standardises itself, as NFNet and BiT do.
bool Builder::fold_statistics() {
  const std::string& op = node_->op;
  const bool product = op == "ReduceProd";
  if (op != "ReduceMean" && !product && op != "BatchNormalization" && op != "CumSum") return false;
  const Tensor x = constant(0).to(DType::f64);
  const auto rank = static_cast<size_t>(x.rank());
  if (op == "CumSum") {
    const int d = static_cast<int>(axis(static_cast<int64_t>(number(1)), rank));
    std::vector<int> order(rank);
    std::iota(order.begin(), order.end(), 0);
    std::swap(order[static_cast<size_t>(d)], order.back());
    const Tensor rows = permute(x, order);
    const Tensor sums =
        matmul(rows.reshape({-1, x.size(d)}), summing(x.size(d))).reshape(rows.shape());
    return give(permute(sums, order)), true;
  }
  if (product) {  // of sizes
    double all = 1;
    for (const double v : x.to_vector<double>()) all *= v;
    if (x.rank() > 1 || !(std::abs(all) < 9e15)) fail("only of one row of numbers");
    find_attribute("axes");
    const bool keep = attribute("keepdims", int64_t{1}) != 0 && rank == 1;
    return give(Tensor::full(keep ? Shape{1} : Shape{}, all).to(constant(0).dtype())), true;
  }
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
  const auto part = [&](size_t i) { return constant(i).to(DType::f64).reshape(Shape(sizes)); };
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
  const bool whole = constant(select ? 1 : 0).dtype() == DType::i64;
  Shape shape;
  int64_t most = kMostMade;
  for (size_t i = 0; i < inputs; ++i) {
    const Tensor& t = constant(i);
    if (!(select && i == 0) && (t.dtype() == DType::i64) != whole && node_->op != "Pow")
      fail("mixes integers and reals");
    shape = broadcast_shapes(node_->op.c_str(), shape, t.shape());
    most = std::max(most, t.numel());
  }
  if (shape.numel() > most) fail("makes a constant of that size");
  std::vector<std::vector<double>> values;
  for (size_t i = 0; i < inputs; ++i)
    values.push_back(broadcast_to(constant(i).to(DType::f64), shape).to_vector<double>());
  const bool integers = logical || whole;
  const auto exact = [&](double v) {
    if (integers && !(std::abs(v) <= kMostExact)) fail("a number beyond 53 bits");
    return v;
  };
  std::vector<double> out(static_cast<size_t>(shape.numel())), at(inputs);
  for (size_t k = 0; k < out.size(); ++k) {
    for (size_t i = 0; i < inputs; ++i) at[i] = values[i][k];
    if (whole) std::for_each(at.begin(), at.end(), exact);
    out[k] = exact(f(at.data()));
  }
  return Tensor::from(out, shape).to(integers ? DType::i64 : DType::f64);
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
      {"Log", {1, [](V v) { return std::log(v[0]); }}},
      {"Sin", {1, [](V v) { return std::sin(v[0]); }}},
      {"Cos", {1, [](V v) { return std::cos(v[0]); }}},
      {"Tanh", {1, [](V v) { return std::tanh(v[0]); }}},
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
  if (node_->op == "Mod" && attribute("fmod", int64_t{0}) != 0) {
    give(computed(2, false, [](V v) { return std::fmod(v[0], v[1]); }));
    return true;
  }
  const auto it = table.find(node_->op);
  if (it == table.end() || node_->inputs.size() != it->second.inputs) return false;
  give(computed(it->second.inputs, it->second.logical, it->second.f));
  return true;
}

}  // namespace mtcki::onnx
