#include "nn/models/graph.h"

#include <algorithm>
#include <map>
#include <utility>

#include "autograd/functions.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"

namespace mtcki::nn {

namespace {

constexpr int64_t kMostSize = int64_t{1} << 40;  // of any number of a node

Conv2dOptions conv_options(const GraphNode& n) {
  Conv2dOptions o;
  o.stride = {n.ints[4], n.ints[5]};
  o.padding = {n.ints[6], n.ints[7]};
  o.dilation = {n.ints[8], n.ints[9]};
  o.groups = n.ints[10];
  return o;
}

Pool2dOptions pool_options(const GraphNode& n) {
  Pool2dOptions o;
  o.kernel = {n.ints[0], n.ints[1]};
  o.stride = {n.ints[2], n.ints[3]};
  o.padding = {n.ints[4], n.ints[5]};
  o.ceil_mode = n.ints[6] != 0;
  if (n.ints.size() > 7) o.count_include_pad = n.ints[7] != 0;
  return o;
}

int dim_of(const GraphNode& n) { return static_cast<int>(n.ints[0]); }

// A tensor that is part of the network and not trained.
class Constant : public Module {
 public:
  explicit Constant(const Shape& shape) : value(register_buffer("value", Tensor::zeros(shape))) {}
  std::string kind() const override { return "Constant"; }
  const Tensor& value;

 protected:
  Variable forward(const Variable&) override { return Variable(value); }
};

// y[.., i, ..] = sum_j weights[i,j] x[.., j, ..] along height or width.
Variable resampled(const Variable& x, int64_t dim, const Tensor& weights) {
  const std::vector<int> turned{0, 1, 3, 2};
  Variable h = dim == 2 ? permute(x, turned) : x;
  Shape shape = h.shape();
  shape.set(3, weights.size(0));
  h = reshape(linear(reshape(h, {-1, weights.size(1)}), Variable(weights), {}), shape);
  return dim == 2 ? permute(h, turned) : h;
}

Variable padded(const Variable& x, int dim, int64_t before, int64_t after) {
  std::vector<Variable> parts;
  const auto zeros = [&](int64_t n) {
    Shape shape = x.shape();
    shape.set(dim, n);
    if (n > 0) parts.emplace_back(Tensor::zeros(shape, x.data().dtype(), x.data().device()));
  };
  zeros(before);
  parts.push_back(x);
  zeros(after);
  return parts.size() == 1 ? x : cat(parts, dim);
}

// How many inputs, ints and reals an operation has (inputs and ints -1: any number, at least one),
// and what it computes; null: by its module, or from its buffer (GraphClassifier::apply).
using Node = const GraphNode&;
using In = const std::vector<Variable>&;
struct Operation {
  int inputs, ints, reals;
  Variable (*apply)(Node, In) = nullptr;
};
template <Variable (*function)(const Variable&)>
Variable unary(Node, In in) {
  return function(in[0]);
}
template <Variable (*function)(const Variable&, const Variable&)>
Variable binary(Node, In in) {
  return function(in[0], in[1]);
}
template <Variable (*function)(const Variable&, const std::vector<int>&, bool)>
Variable reduction(Node n, In in) {
  return function(in[0], {n.ints.begin() + 1, n.ints.end()}, n.ints[0] != 0);
}
Variable greater(Node, In in) {
  return Variable(less(in[1].data(), in[0].data()).to(in[0].data().dtype()));
}
Variable scaled(Node n, In in) {
  const Variable y = n.reals[0] == 1 ? in[0] : mul(in[0], n.reals[0]);
  return n.reals[1] == 0 ? y : add(y, n.reals[1]);
}

const std::map<std::string, Operation>& operations() {
  static const std::map<std::string, Operation> table = {
      {"conv", {1, 12, 0}},
      {"batch_norm", {1, 1, 1}},
      {"linear", {1, 3, 0}},
      {"constant", {0, -1, 0}},
      {"resample", {1, 3, 0}},
      {"relu", {1, 0, 0, unary<relu>}},
      {"sigmoid", {1, 0, 0, unary<sigmoid>}},
      {"tanh", {1, 0, 0, unary<tanh>}},
      {"erf", {1, 0, 0, unary<erf>}},
      {"exp", {1, 0, 0, unary<exp>}},
      {"log", {1, 0, 0, unary<log>}},
      {"sqrt", {1, 0, 0, unary<sqrt>}},
      {"abs", {1, 0, 0, unary<abs>}},
      {"softmax", {1, 0, 0, unary<softmax>}},
      {"log_softmax", {1, 0, 0, unary<log_softmax>}},
      {"leaky_relu", {1, 0, 1, [](Node n, In in) { return leaky_relu(in[0], n.reals[0]); }}},
      {"clamp", {1, 0, 2, [](Node n, In in) { return clamp(in[0], n.reals[0], n.reals[1]); }}},
      {"scale", {1, 0, 2, scaled}},
      {"add", {2, 0, 0, binary<mtcki::add>}},
      {"sub", {2, 0, 0, binary<sub>}},
      {"mul", {2, 0, 0, binary<mul>}},
      {"div", {2, 0, 0, binary<div>}},
      {"greater", {2, 0, 0, greater}},
      {"cat", {-1, 1, 0, [](Node n, In in) { return cat(in, dim_of(n)); }}},
      {"narrow",
       {1, 3, 0, [](Node n, In in) { return narrow(in[0], dim_of(n), n.ints[1], n.ints[2]); }}},
      {"pad",
       {1, 3, 0, [](Node n, In in) { return padded(in[0], dim_of(n), n.ints[1], n.ints[2]); }}},
      {"reshape", {1, -1, 0, [](Node n, In in) { return reshape(in[0], Shape(n.ints)); }}},
      {"matmul", {2, 0, 0, [](Node, In in) { return matmul(in[0], in[1]); }}},
      {"permute",
       {1, -1, 0,
        [](Node n, In in) {
          return permute(in[0], {n.ints.begin(), n.ints.end()});
        }}},
      {"mean", {1, -1, 0, reduction<mean>}},
      {"sum", {1, -1, 0, reduction<sum>}},
      {"max_pool", {1, 7, 0, [](Node n, In in) { return max_pool2d(in[0], pool_options(n)); }}},
      {"avg_pool", {1, 8, 0, [](Node n, In in) { return avg_pool2d(in[0], pool_options(n)); }}},
      {"upsample",
       {1, 2, 0, [](Node n, In in) { return upsample_nearest2d(in[0], n.ints[0], n.ints[1]); }}}};
  return table;
}

void check_node(const GraphSpec& graph, int64_t index) {
  const GraphNode& n = graph.nodes[static_cast<size_t>(index)];
  const auto bad = [&](const std::string& what) {
    throw DataError(str("network graph: node ", index, " (", n.op.substr(0, 40), "): ", what));
  };
  const auto it = operations().find(n.op);
  if (it == operations().end()) bad("no such operation");
  const Operation& f = it->second;
  const auto fits = [](int wanted, size_t there) {
    return wanted < 0 ? there > 0 : there == static_cast<size_t>(wanted);
  };
  if (!fits(f.inputs, n.inputs.size()) || !fits(f.ints, n.ints.size()) ||
      !fits(f.reals, n.reals.size()))
    bad("another number of inputs or values than it takes");
  // Behind the feature only it and what comes of it is used.
  const int64_t first = index >= graph.feature ? graph.feature : 0;
  for (const int64_t v : n.inputs)
    if (v < first || v > index) bad(str("uses value ", v, ", which is not there"));
  if (f.ints < 0 && n.ints.size() > static_cast<size_t>(Shape::kMaxRank)) bad("too many sizes");
  for (size_t i = 0; i < n.ints.size(); ++i)
    if (n.ints[i] > kMostSize || n.ints[i] < (n.op == "reshape" ? -1 : 0))
      bad(str("a value of ", n.ints[i]));
  if (n.op == "reshape" && std::count(n.ints.begin(), n.ints.end(), -1) > 1) bad("two sizes of -1");
  if (n.op == "resample" && n.ints[0] != 2 && n.ints[0] != 3) bad("a dimension of no image");
  if (n.op == "conv" && (n.ints[10] < 1 || n.ints[0] % n.ints[10] != 0)) bad("groups");
}

}  // namespace

NamedList<Shape> graph_parameters(const GraphNode& n) {
  const std::vector<int64_t>& i = n.ints;
  if (n.op == "constant") return {{"value", Shape(i)}};
  if (n.op == "resample") return {{"value", {i[2], i[1]}}};
  NamedList<Shape> out;
  if (n.op == "conv") {
    out = {{"weight", {i[1], i[0] / i[10], i[2], i[3]}}};
    if (i[11] != 0) out.emplace_back("bias", Shape{i[1]});
  } else if (n.op == "linear") {
    out = {{"weight", {i[1], i[0]}}};
    if (i[2] != 0) out.emplace_back("bias", Shape{i[1]});
  } else if (n.op == "batch_norm") {
    for (const char* name : {"weight", "bias", "running_mean", "running_var"})
      out.emplace_back(name, Shape{i[0]});
  }
  return out;
}

void check_graph(const GraphSpec& graph) {
  const auto count = std::ssize(graph.nodes);
  if (count == 0 || graph.feature < 0 || graph.feature > count)
    throw DataError("network graph: no nodes, or no feature among them");
  for (int64_t i = 0; i < count; ++i) check_node(graph, i);
  for (const int64_t s : graph.stages)
    if (s < 0 || s >= count || graph_parameters(graph.nodes[static_cast<size_t>(s)]).empty())
      throw DataError(str("network graph: node ", s, " is no layer to take features of"));
  if (graph.feature < count && graph.nodes[static_cast<size_t>(graph.feature)].op != "linear")
    throw DataError("network graph: the feature is not the input of a linear layer");
}

GraphClassifier::GraphClassifier(GraphSpec spec)
    : Classifier(spec.model.num_classes),
      spec_(std::move(spec)),
      feature_dim_(spec_.model.num_classes) {
  check_graph(spec_);
  steps_.resize(spec_.nodes.size());
  for (size_t i = 0; i < spec_.nodes.size(); ++i) build(spec_.nodes[i], &steps_[i]);
  if (spec_.feature < std::ssize(spec_.nodes))
    feature_dim_ = spec_.nodes[static_cast<size_t>(spec_.feature)].ints[0];
  plan();
}

void GraphClassifier::build(const GraphNode& n, Step* step) {
  Init none = Init::none();
  if (n.op == "conv") {
    const std::array<int64_t, 2> kernel{n.ints[2], n.ints[3]};
    auto& conv =
        add<Conv2d>(n.name, n.ints[0], n.ints[1], kernel, conv_options(n), n.ints[11] != 0, none);
    step->module = &conv;
    step->links = {conv};
  }
  if (n.op == "linear") {
    auto& linear = add<Linear>(n.name, n.ints[0], n.ints[1], n.ints[2] != 0, none);
    linear.keep_f32();
    step->module = &linear;
  }
  if (n.op == "batch_norm") {
    auto& norm = add<BatchNorm2d>(n.name, n.ints[0], n.reals[0]);
    step->module = &norm;
    step->links = {norm};
  }
  if (n.op == "constant" || n.op == "resample") {
    auto& constant = add<Constant>(n.name, graph_parameters(n)[0].second);
    step->module = &constant;
    step->constant = &constant.value;
  }
}

// Convolutions, batch norms and ReLUs that stand one behind the other, each the only reader of the
// one before, are a chain; and every value is let go behind its last reader.
void GraphClassifier::plan() {
  const size_t count = spec_.nodes.size();
  std::vector<int64_t> readers(count + 1, 0), last(count + 1, -1);
  for (size_t i = 0; i < count; ++i)
    for (const int64_t v : spec_.nodes[i].inputs) {
      ++readers[static_cast<size_t>(v)];
      last[static_cast<size_t>(v)] = static_cast<int64_t>(i);
    }
  const auto follows = [&](size_t next) {
    return next < count && static_cast<int64_t>(next) != spec_.feature && readers[next] == 1 &&
           spec_.nodes[next].inputs == std::vector<int64_t>{static_cast<int64_t>(next)} &&
           (spec_.nodes[next].op == "relu" || !steps_[next].links.empty());
  };
  for (size_t i = 0; i < count; ++i) {
    Step& step = steps_[i];
    for (; !step.links.empty() && follows(i + 1); ++i) {
      const Step& next = steps_[i + 1];
      step.links.push_back(next.links.empty() ? Link(static_cast<Link::Function>(relu))
                                              : next.links.front());
      step.fused_until = static_cast<int64_t>(i) + 1;
    }
  }
  for (size_t v = 0; v <= count; ++v)
    if (last[v] >= 0 && static_cast<int64_t>(v) != spec_.feature)
      steps_[static_cast<size_t>(last[v])].frees.push_back(static_cast<int64_t>(v));
}

std::vector<Module*> GraphClassifier::stages() {
  std::vector<Module*> out;
  for (const int64_t s : spec_.stages) out.push_back(steps_[static_cast<size_t>(s)].module);
  return out;
}

Variable GraphClassifier::apply(const GraphNode& n, const Step& step, std::vector<Variable> in) {
  const auto& i = n.ints;
  if (!step.links.empty()) {
    Chain chain(std::move(in[0]));
    for (const Link& link : step.links) chain |= link;
    return chain;
  }
  if (n.op == "resample") return resampled(in[0], i[0], *step.constant);
  if (step.constant) return Variable(*step.constant);
  if (step.module && in[0].shape().rank() > 2) {  // a linear layer of the last dimension
    Shape out = in[0].shape();
    out.set(-1, i[1]);
    return reshape((*step.module)(reshape(in[0], {-1, i[0]})), out);
  }
  if (step.module) return (*step.module)(in[0]);
  const auto is_f32 = [](const Variable& v) { return v.data().dtype() == DType::f32; };
  if (in.size() > 1 && std::any_of(in.begin(), in.end(), is_f32))  // beside bf16 of convolutions
    for (Variable& v : in) v = is_f32(v) ? v : cast(v, DType::f32);
  return operations().at(n.op).apply(n, in);
}

// Nodes [begin, end); returns the result of the last one.
Variable GraphClassifier::run(std::vector<Variable>* values, int64_t begin, int64_t end) {
  Variable out = (*values)[static_cast<size_t>(begin)];
  for (int64_t at = begin; at < end; ++at) {
    const GraphNode& node = spec_.nodes[static_cast<size_t>(at)];
    const Step& step = steps_[static_cast<size_t>(at)];
    std::vector<Variable> in;
    for (const int64_t v : node.inputs) in.push_back((*values)[static_cast<size_t>(v)]);
    const auto let_go = [&](int64_t i) {
      for (const int64_t v : steps_[static_cast<size_t>(i)].frees)
        (*values)[static_cast<size_t>(v)] = {};
    };
    let_go(at);
    out = apply(node, step, std::move(in));
    if (!out.defined()) return out;  // a hook has ended the pass
    for (; at < step.fused_until; ++at) let_go(at + 1);
    (*values)[static_cast<size_t>(at + 1)] = out;
  }
  return out;
}

Variable GraphClassifier::trunk(const Variable& x) {
  std::vector<Variable> values(spec_.nodes.size() + 1);
  values[0] = x;
  return run(&values, 0, spec_.feature);
}

Variable GraphClassifier::head(const Variable& feature) {
  std::vector<Variable> values(spec_.nodes.size() + 1);
  values[static_cast<size_t>(spec_.feature)] = feature;
  return run(&values, spec_.feature, std::ssize(spec_.nodes));
}

}  // namespace mtcki::nn
