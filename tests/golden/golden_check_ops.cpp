// The ops that golden files may name, and how a case is run.
#include "tests/golden/golden_check_functions.h"

namespace mtcki::golden {

namespace {

// ---------------------------------------------------------------------------------------- shapes
Outputs run_pad(const Inputs& in, const Options& o, const Case& c) {
  if (const std::string mode = o.text("mode", "constant"); mode != "constant")
    unsupported(c, "mode '" + mode + "' (known: constant)");
  const std::vector<int64_t> pad = o.integers("pad", {});
  const double value = o.number("value", 0.0);
  Variable y = in[0];
  if (pad.size() % 2 || static_cast<int>(pad.size()) > 2 * y.shape().rank())
    throw DataError(str(c.name, ": pad needs two numbers per dimension, last dimension first"));
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    const int dim = y.shape().rank() - 1 - static_cast<int>(i);
    const int64_t before = pad[2 * i], after = pad[2 * i + 1];
    y = narrow(y, dim, std::max<int64_t>(0, -before), y.size(dim) - std::max<int64_t>(0, -after));
    const auto border = [&](int64_t width) {
      Shape s = y.shape();
      s.set(dim, width);
      return constant(s, value, y.data().dtype());
    };
    std::vector<Variable> parts;
    if (before > 0) parts.push_back(border(before));
    parts.push_back(y);
    if (after > 0) parts.push_back(border(after));
    if (parts.size() > 1) y = cat(parts, dim);
  }
  return {y, {}, ""};
}

Outputs run_flatten(const Inputs& in, const Options& o, const Case&) {
  const Variable& x = in[0];
  const int begin = positive_dim(o.integer("start_dim", 0), x);
  const int end = positive_dim(o.integer("end_dim", -1), x);
  if (begin == 1 && end == x.shape().rank() - 1) return {flatten(x), {}, ""};
  Shape shape;
  for (int d = 0; d < begin; ++d) shape.push_back(x.size(d));
  int64_t joined = 1;
  for (int d = begin; d <= end; ++d) joined *= x.size(d);
  shape.push_back(joined);
  for (int d = end + 1; d < x.shape().rank(); ++d) shape.push_back(x.size(d));
  return {reshape(x, shape), {}, ""};
}

Outputs run_linear(const Inputs& in, const Options&, const Case&) {
  const Variable& x = in[0];
  const int last = x.shape().rank() - 1;
  Variable y = linear(last == 1 ? x : reshape(x, {-1, x.size(last)}), in[1], in.or_none(2));
  if (last != 1) {
    Shape shape = x.shape();
    shape.set(last, in[1].size(0));
    y = reshape(y, shape);
  }
  return {y, {}, ""};
}

Variable reduced(Variable (*f)(const Variable&, const std::vector<int>&, bool), const Inputs& in,
                 const Options& o) {
  std::vector<int> dims;
  for (int64_t d : o.integers("dim", {})) dims.push_back(positive_dim(d, in[0]));
  return f(in[0], dims, o.boolean("keepdim", false));
}

// The second operand of a binary op: in1, or the option `other`.
Variable other(const Inputs& in, const Options& o) {
  if (in.has(1)) return in[1];
  if (o.has("other")) return constant({}, o.number("other", 0.0), in[0].data().dtype());
  return in[1];  // throws
}

template <class F>
Op unary(F f) {
  return [f](const Inputs& in, const Options&, const Case&) -> Outputs {
    return {f(in[0]), {}, ""};
  };
}

const std::map<std::string, Op>& table() {
  static const std::map<std::string, Op> ops = {
      {"conv2d", run_conv2d},
      {"conv_transpose2d", run_conv_transpose2d},
      {"batch_norm", run_batch_norm},
      {"normalize", run_normalize},
      {"linear", run_linear},
      {"max_pool2d", run_max_pool2d},
      {"avg_pool2d", run_avg_pool2d},
      {"adaptive_avg_pool2d", run_adaptive_avg_pool2d},
      {"interpolate", run_interpolate},
      {"softmax", run_softmax},
      {"log_softmax", run_log_softmax},
      {"cross_entropy", run_cross_entropy},
      {"nll_loss", run_nll_loss},
      {"kl_div", run_kl_div},
      {"pad", run_pad},
      {"flatten", run_flatten},
      {"relu", unary([](const Variable& x) { return relu(x); })},
      {"leaky_relu",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {leaky_relu(in[0], o.number("negative_slope", 0.01)), {}, ""};
       }},
      {"sigmoid", unary([](const Variable& x) { return sigmoid(x); })},
      {"tanh", unary([](const Variable& x) { return tanh(x); })},
      {"erf", unary([](const Variable& x) { return erf(x); })},
      {"exp", unary([](const Variable& x) { return exp(x); })},
      {"log", unary([](const Variable& x) { return log(x); })},
      {"sqrt", unary([](const Variable& x) { return sqrt(x); })},
      {"square", unary([](const Variable& x) { return square(x); })},
      {"abs", unary([](const Variable& x) { return abs(x); })},
      {"neg", unary([](const Variable& x) { return neg(x); })},
      {"transpose", unary([](const Variable& x) { return transpose(x); })},
      {"add",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {add(in[0], mul(other(in, o), o.number("alpha", 1.0))), {}, ""};
       }},
      {"sub",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {sub(in[0], mul(other(in, o), o.number("alpha", 1.0))), {}, ""};
       }},
      {"mul",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {mul(in[0], other(in, o)), {}, ""};
       }},
      {"div",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {div(in[0], other(in, o)), {}, ""};
       }},
      {"matmul",
       [](const Inputs& in, const Options&, const Case&) -> Outputs {
         return {matmul(in[0], in[1]), {}, ""};
       }},
      {"mse_loss",
       [](const Inputs& in, const Options& o, const Case& c) -> Outputs {
         return {reduce(square(sub(in[0], in[1])), o.text("reduction", "mean"), c), {}, ""};
       }},
      {"l1_loss",
       [](const Inputs& in, const Options& o, const Case& c) -> Outputs {
         return {reduce(abs(sub(in[0], in[1])), o.text("reduction", "mean"), c), {}, ""};
       }},
      {"sum",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {reduced(&sum, in, o), {}, ""};
       }},
      {"mean",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {reduced(&mean, in, o), {}, ""};
       }},
      {"norm", unary([](const Variable& x) { return norm(x); })},
      {"cat",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {cat(in.all(), positive_dim(o.integer("dim", 0), in[0])), {}, ""};
       }},
      {"reshape",
       [](const Inputs& in, const Options& o, const Case&) -> Outputs {
         return {reshape(in[0], Shape(o.integers("shape", {-1}))), {}, ""};
       }},
  };
  return ops;
}

const std::map<std::string, std::string>& aliases() {
  static const std::map<std::string, std::string> names = {
      {"mm", "matmul"},       {"bmm", "matmul"},          {"concat", "cat"}, {"t", "transpose"},
      {"multiply", "mul"},    {"subtract", "sub"},        {"divide", "div"}, {"view", "reshape"},
      {"true_divide", "div"}, {"upsample", "interpolate"}};
  return names;
}

}  // namespace

std::vector<std::string> op_names() {
  std::vector<std::string> names;
  for (const auto& [name, op] : table()) names.push_back(name);
  return names;
}

Outcome run_op(const Case& c) {
  const auto alias = aliases().find(c.op);
  const auto it = table().find(alias == aliases().end() ? c.op : alias->second);
  if (it == table().end()) {
    std::string known;
    for (const std::string& name : op_names()) known += " " + name;
    throw UnsupportedError(str(c.name, ": unknown op '", c.op, "'. Known:", known));
  }
  const Inputs in(c);
  const Outputs out = it->second(in, c.options, c);
  Outcome outcome;
  outcome.note = out.note;

  bool gradients = false;
  for (const auto& [key, tensor] : c.tensors) gradients = gradients || key.rfind("grad_in", 0) == 0;
  if (gradients) {
    const Tensor* seed = c.find("grad_out");
    if (!seed) seed = c.find("grad_out0");
    if (!seed && out.y.numel() != 1)
      throw DataError(
          str(c.name, ": has grad_in, but no grad_out for an output ", out.y.shape().to_string()));
    if (seed && seed->numel() != out.y.numel())
      throw DataError(str(c.name, ": grad_out ", seed->shape().to_string(), ", but the output is ",
                          out.y.shape().to_string()));
    if (seed) {
      out.y.backward(seed->to(out.y.data().dtype()).reshape(out.y.shape()));
    } else {
      out.y.backward();
    }
  }
  for (const auto& [key, expected] : c.tensors) {
    if (key.rfind("out", 0) == 0 && key.find('/') == std::string::npos) {
      const size_t i = static_cast<size_t>(std::stoul(key.substr(3)));
      if (i > out.others.size())
        throw DataError(str(c.name, ": ", c.op, " has no output '", key, "'"));
      outcome.checks.push_back({key, i == 0 ? out.y.data() : out.others[i - 1], expected});
    } else if (key.rfind("grad_in", 0) == 0) {
      const size_t i = static_cast<size_t>(std::stoul(key.substr(7)));
      outcome.checks.push_back({key, in[i].grad(), expected});
    }
  }
  return outcome;
}

}  // namespace mtcki::golden
