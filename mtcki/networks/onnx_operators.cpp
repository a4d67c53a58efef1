// Operators with weights, activation functions, arithmetic and pooling.
#include <algorithm>
#include <cmath>
#include <limits>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki::onnx {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What both become when they are broadcast as NumPy does; empty: they do not fit.
Sizes broadcast(Sizes a, Sizes b) {
  if (a.size() < b.size()) std::swap(a, b);
  b.insert(b.begin(), a.size() - b.size(), 1);
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && a[i] != 1 && b[i] != 1) return {};
    a[i] = std::max(a[i], b[i]);
  }
  return a;
}

bool is_zero(const Tensor& t) {
  const auto v = t.to_vector<float>();
  return std::all_of(v.begin(), v.end(), [](float x) { return x == 0; });
}

}  // namespace

Sizes Builder::pads_of(const Sizes& in, const Sizes& kernel, const Sizes& stride,
                       const Sizes& dilation) const {
  const std::string how = attribute("auto_pad", "NOTSET");
  const Sizes pads = integers("pads", 99, {0, 0, 0, 0});
  if (how == "NOTSET" || how.empty()) {
    if (pads.size() != 4 || *std::min_element(pads.begin(), pads.end()) < 0)
      fail("pads must be four numbers that are not negative");
    return pads;
  }
  if (how == "VALID") return {0, 0, 0, 0};
  if (how != "SAME_UPPER" && how != "SAME_LOWER") fail("auto_pad " + how.substr(0, 40));
  Sizes same(4);
  for (size_t d = 0; d < 2; ++d) {
    const int64_t out = (in[2 + d] + stride[d] - 1) / stride[d];
    const int64_t all =
        std::max<int64_t>(0, (out - 1) * stride[d] + dilation[d] * (kernel[d] - 1) + 1 - in[2 + d]);
    same[d] = how == "SAME_UPPER" ? all / 2 : all - all / 2;
    same[2 + d] = all - same[d];
  }
  return same;
}

// With zeros at whichever borders do not get the same on both sides from the operator itself;
// pads becomes what that has still to do.
int64_t Builder::padded(int64_t x, const Sizes& pads) {
  for (const int d : {0, 1}) {
    const auto u = static_cast<size_t>(d);
    if (pads[u] == 0 && pads[2 + u] == 0) continue;
    Sizes out = shape(x);
    out[2 + u] += pads[u] + pads[2 + u];
    x = add("pad", {x}, {2 + d, pads[u], pads[2 + u]}, {}, out);
  }
  return x;
}

void Builder::convolution() {
  int64_t x = activation(0);
  const Tensor w = constant(1).to(DType::f32);
  Tensor bias = has(2) ? constant(2).to(DType::f32) : Tensor();
  if (w.rank() != 4 || shape(x).size() != 4) fail("only 2-d convolutions are taken");
  const Sizes kernel{w.size(2), w.size(3)}, stride = integers("strides", 99, {1, 1}),
                                            dilation = integers("dilations", 99, {1, 1});
  const int64_t groups = attribute("group", int64_t{1});
  if (integers("kernel_shape", 99, kernel) != kernel)
    fail("kernel_shape is not that of its weight");
  if (stride.size() != 2 || dilation.size() != 2 || stride[0] < 1 || stride[1] < 1 ||
      dilation[0] < 1 || dilation[1] < 1 || groups < 1 || w.numel() == 0)
    fail("strides, dilations and groups must be positive");
  Sizes pads = pads_of(shape(x), kernel, stride, dilation);
  if (pads[0] != pads[2] || pads[1] != pads[3]) {
    x = padded(x, pads);
    pads = {0, 0, 0, 0};
  }
  const Sizes& in = shape(x);
  if (in[1] != w.size(1) * groups || w.size(0) % groups != 0)
    fail(str("a weight of ", w.size(1) * groups, " input channels meets ", in[1]));
  if (bias.defined() && (bias.rank() != 1 || bias.size(0) != w.size(0)))
    fail("a bias that does not fit");
  if (bias.defined() && is_zero(bias)) bias = {};
  Sizes out{in[0], w.size(0), 0, 0};
  for (size_t d = 0; d < 2; ++d) {
    const int64_t room = in[2 + d] + 2 * pads[d] - dilation[d] * (kernel[d] - 1) - 1;
    out[2 + d] = room < 0 ? 0 : room / stride[d] + 1;
  }
  give(add_layer("conv", {x},
                 {in[1], w.size(0), kernel[0], kernel[1], stride[0], stride[1], pads[0], pads[1],
                  dilation[0], dilation[1], groups, bias.defined() ? 1 : 0},
                 {}, out, node_->inputs[1], {{"weight", w}, {"bias", bias}}));
}

void Builder::batch_norm() {
  const int64_t x = activation(0);
  const Sizes in = shape(x);
  if (in.size() != 4 && in.size() != 2) fail(str("of ", in.size(), " dimensions"));
  std::vector<std::pair<const char*, Tensor>> parts;
  const char* names[] = {"weight", "bias", "running_mean", "running_var"};
  for (size_t i = 0; i < 4; ++i) {
    const Tensor& t = constant(i + 1);
    if (t.rank() != 1 || t.size(0) != in[1]) fail("statistics of another number of channels");
    parts.emplace_back(names[i], t);
  }
  give(add_layer("batch_norm", {x}, {in[1]}, {attribute("epsilon", 1e-5)}, in, node_->inputs[1],
                 parts));
}

void Builder::linear(int64_t x, Tensor weight, Tensor bias, const std::string& name) {
  const Sizes in = shape(x);
  if (in.size() != 2 || in[0] != kBatch || weight.rank() != 2 || in[1] != weight.size(1))
    fail("only products of rows of images with a matrix are taken");
  const int64_t out = weight.size(0);
  if (bias.defined()) {
    if (bias.numel() != out) fail("a bias that does not fit");
    bias = bias.reshape({out});
  }
  give(add_layer("linear", {x}, {in[1], out, bias.defined() ? 1 : 0}, {}, {kBatch, out}, name,
                 {{"weight", weight}, {"bias", bias}}));
}

void Builder::gemm() {
  if (attribute("transA", int64_t{0}) != 0) fail("transA is not taken");
  Tensor w = constant(1).to(DType::f32), bias = has(2) ? constant(2).to(DType::f32) : Tensor();
  if (w.rank() != 2) fail("the weight must be a matrix");
  if (attribute("transB", int64_t{0}) == 0) w = transpose(w);
  if (const double alpha = attribute("alpha", 1.0); alpha != 1) w = mtcki::mul(w, alpha);
  if (const double beta = attribute("beta", 1.0); bias.defined() && beta != 1)
    bias = mtcki::mul(bias, beta);
  linear(activation(0), w, bias, node_->inputs[1]);
}

bool Builder::layer(const std::string& op) {
  if (op == "Conv") {
    convolution();
  } else if (op == "BatchNormalization") {
    batch_norm();
  } else if (op == "Gemm") {
    gemm();
  } else if (op == "MatMul") {
    const Tensor& w = constant(1);
    if (w.rank() != 2) fail("the weight must be a matrix");
    linear(activation(0), transpose(w.to(DType::f32)), {}, node_->inputs[1]);
  } else {
    return false;
  }
  return true;
}

bool Builder::activation_function(const std::string& op) {
  const auto unary = [&](const char* name, std::vector<double> reals = {}) {
    const int64_t x = activation(0);
    give(add(name, {x}, {}, std::move(reals), shape(x)));
  };
  if (op == "Relu") {
    unary("relu");
  } else if (op == "Sigmoid") {
    unary("sigmoid");
  } else if (op == "Tanh") {
    unary("tanh");
  } else if (op == "LeakyRelu") {
    unary("leaky_relu", {attribute("alpha", 0.01)});
  } else if (op == "PRelu") {
    if (constant(1).numel() == 1) return unary("leaky_relu", {constant(1).item()}), true;
    const int64_t x = activation(0), slope = activation(1);
    if (broadcast(shape(x), shape(slope)) != shape(x)) fail("slopes that do not fit");
    const int64_t low = add("clamp", {x}, {}, {-kInfinity, 0.0}, shape(x)),
                  high = add("relu", {x}, {}, {}, shape(x));
    give(add("add", {high, add("mul", {low, slope}, {}, {}, shape(x))}, {}, {}, shape(x)));
  } else if (op == "Clip") {
    const auto limit = [&](size_t i, const char* name, double otherwise) {
      return has(i) ? constant(i).item() : attribute(name, otherwise);
    };
    const double low = limit(1, "min", -kInfinity), high = limit(2, "max", kInfinity);
    if (!(low <= high)) fail("limits that cross");
    unary("clamp", {low, high});
  } else if (op == "HardSigmoid" || op == "HardSwish") {
    const bool swish = op == "HardSwish";
    const double alpha = swish ? 1.0 / 6 : attribute("alpha", 0.2);
    const int64_t x = activation(0);
    int64_t y = add("scale", {x}, {}, {alpha, swish ? 0.5 : attribute("beta", 0.5)}, shape(x));
    y = add("clamp", {y}, {}, {0.0, 1.0}, shape(x));
    give(swish ? add("mul", {x, y}, {}, {}, shape(x)) : y);
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
  const Sizes out = broadcast(shape(x), shape(other));
  if (out.empty()) fail("sizes that do not fit");
  give(add(op, first ? Sizes{other, x} : Sizes{x, other}, {}, {}, out));
}

bool Builder::arithmetic(const std::string& op) {
  const std::string name = op == "Add"   ? "add"
                           : op == "Sub" ? "sub"
                           : op == "Mul" ? "mul"
                           : op == "Div" ? "div"
                                         : "";
  if (name.empty()) return false;
  if (input(0).is_constant()) {
    const Tensor c = constant(0);
    with_constant(name, activation(1), c, true);
  } else if (input(1).is_constant()) {
    const Tensor c = constant(1);
    with_constant(name, activation(0), c, false);
  } else {
    const int64_t a = activation(0), b = activation(1);
    const Sizes out = broadcast(shape(a), shape(b));
    if (out.empty()) fail("sizes that do not fit");
    give(add(name, {a, b}, {}, {}, out));
  }
  return true;
}

void Builder::mean() {
  const int64_t x = activation(0), keep = attribute("keepdims", int64_t{1});
  attribute("noop_with_empty_axes", int64_t{0});  // they are refused when empty
  const Sizes in = shape(x);
  Sizes axes = integers("axes", 1, {});
  for (int64_t& a : axes)
    if ((a = axis(a, in.size())) == 0) fail("a mean over the images");
  if (axes.empty()) fail("a mean over the images");
  std::sort(axes.begin(), axes.end());
  Sizes out, ints{keep != 0 ? 1 : 0};
  for (size_t d = 0; d < in.size(); ++d) {
    const bool gone = std::count(axes.begin(), axes.end(), static_cast<int64_t>(d)) > 0;
    if (!gone || keep != 0) out.push_back(gone ? 1 : in[d]);
  }
  ints.insert(ints.end(), axes.begin(), axes.end());
  give(add("mean", {x}, ints, {}, out));
}

int64_t Builder::every_nth(int64_t x, const Sizes& steps) {
  Sizes out = shape(x);
  for (size_t d = 0; d < 2; ++d) out[2 + d] = (out[2 + d] + steps[d] - 1) / steps[d];
  return add("max_pool", {x}, {1, 1, steps[0], steps[1], 0, 0, 0}, {}, out);
}

// TensorFlow's SAME has a pixel more at one side: the pool at every pixel with the larger border at
// both, and of its results those that are meant.
void Builder::uneven_pool(const std::string& op, int64_t x, const Sizes& kernel,
                          const Sizes& stride, const Sizes& pads) {
  Sizes ints{kernel[0], kernel[1], 1, 1}, all = shape(x);
  for (size_t d = 0; d < 2; ++d) {
    const int64_t pad = std::max(pads[d], pads[2 + d]);
    if (2 * pad > kernel[d]) fail("padding of more than half of a pool's window is not taken");
    ints.push_back(pad);
    all[2 + d] += 2 * pad - kernel[d] + 1;
  }
  ints.push_back(0);  // ceil_mode
  if (op == "avg_pool") ints.push_back(attribute("count_include_pad", int64_t{0}));
  const Sizes in = shape(x);
  x = add(op, {x}, ints, {}, all);
  for (size_t d = 0; d < 2; ++d) {
    const int64_t begin = std::max(pads[d], pads[2 + d]) - pads[d],
                  count = in[2 + d] + pads[d] + pads[2 + d] - kernel[d] + 1;
    all[2 + d] = count;
    x = add("narrow", {x}, {2 + static_cast<int64_t>(d), begin, begin + count}, {}, all);
  }
  give(every_nth(x, stride));
}

bool Builder::pool(const std::string& op) {
  if (op == "ReduceMean") return mean(), true;
  if (op == "GlobalMaxPool" || op == "ReduceMax") {
    const int64_t x = activation(0), keep = attribute("keepdims", int64_t{1});
    const Sizes in = shape(x);
    Sizes axes = op == "ReduceMax" ? integers("axes", 1, {}) : Sizes{2, 3};
    for (int64_t& a : axes) a = axis(a, in.size());
    std::sort(axes.begin(), axes.end());
    if (in.size() != 4 || axes != Sizes{2, 3}) fail("only over height and width of images");
    attribute("noop_with_empty_axes", int64_t{0});
    const int64_t y =
        add("max_pool", {x}, {in[2], in[3], in[2], in[3], 0, 0, 0}, {}, {in[0], in[1], 1, 1});
    return keep != 0 ? give(y) : reshape(y, {in[0], in[1]}), true;
  }
  if (op == "GlobalAveragePool") {
    const int64_t x = activation(0);
    if (shape(x).size() != 4) fail("only of images");
    give(add("mean", {x}, {1, 2, 3}, {}, {shape(x)[0], shape(x)[1], 1, 1}));
    return true;
  }
  const bool max = op == "MaxPool";
  if (!max && op != "AveragePool") return false;
  const int64_t x = activation(0);
  const Sizes in = shape(x), kernel = integers("kernel_shape", 99, {}),
              stride = integers("strides", 99, {1, 1});
  if (in.size() != 4 || kernel.size() != 2 || stride.size() != 2 || kernel[0] < 1 ||
      kernel[1] < 1 || stride[0] < 1 || stride[1] < 1)
    fail("only 2-d pooling is taken");
  if (integers("dilations", 99, {1, 1}) != Sizes{1, 1}) fail("dilated pooling is not taken");
  const Sizes pads = pads_of(in, kernel, stride, {1, 1});
  const int64_t ceil_mode = attribute("ceil_mode", int64_t{0});
  if (pads[0] != pads[2] || pads[1] != pads[3]) {
    if (ceil_mode != 0) fail("uneven padding of a pool with ceil_mode is not taken");
    return uneven_pool(max ? "max_pool" : "avg_pool", x, kernel, stride, pads), true;
  }
  Sizes out = in;
  for (size_t d = 0; d < 2; ++d) {
    const int64_t room = in[2 + d] + 2 * pads[d] - kernel[d] + (ceil_mode ? stride[d] - 1 : 0);
    out[2 + d] = room < 0 ? 0 : room / stride[d] + 1;
    // PyTorch's rule: the last window begins inside the image or its padding before.
    if (ceil_mode && (out[2 + d] - 1) * stride[d] >= in[2 + d] + pads[d]) --out[2 + d];
  }
  Sizes ints{kernel[0], kernel[1], stride[0], stride[1], pads[0], pads[1], ceil_mode};
  if (!max) ints.push_back(attribute("count_include_pad", int64_t{0}));
  give(add(max ? "max_pool" : "avg_pool", {x}, ints, {}, out));
  return true;
}

}  // namespace mtcki::onnx
