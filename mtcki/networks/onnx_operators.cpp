// Operators with weights, and pooling.
#include <algorithm>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/index.h"

namespace mtcki::onnx {

namespace {

bool is_zero(const Tensor& t) {
  const auto v = t.to_vector<float>();
  return std::all_of(v.begin(), v.end(), [](float x) { return x == 0; });
}

}  // namespace

int64_t Builder::image(size_t i) {
  const int64_t x = activation(i);
  Sizes in = shape(x);
  if (in.size() == 3) in.insert(in.begin() + 2, 1);
  if (in.size() != 4) fail("only lines and images, [N,C,W] and [N,C,H,W], are taken");
  return reshaped(x, in);
}

void Builder::give_image(int64_t x) {
  Sizes out = shape(x);
  if (shape(activation(0)).size() == 3) out.erase(out.begin() + 2);
  give(reshaped(x, out));
}

Sizes Builder::sides(const char* name, const Sizes& otherwise) {
  Sizes v = integers(name, 99, otherwise);
  const bool line = shape(activation(0)).size() == 3;
  if (line && v.size() == 1) return {otherwise[0], v[0]};
  if (line && v.size() == 2 && otherwise.size() == 4) return {0, v[0], 0, v[1]};
  return v;
}

Sizes Builder::pads_of(const Sizes& in, const Sizes& kernel, const Sizes& stride,
                       const Sizes& dilation) {
  const std::string how = attribute("auto_pad", "NOTSET");
  const Sizes pads = sides("pads", {0, 0, 0, 0});
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
  int64_t x = image(0);
  Tensor w = constant(1).to(DType::f32);
  Tensor bias = has(2) ? constant(2).to(DType::f32) : Tensor();
  if (w.rank() != static_cast<int>(shape(activation(0)).size()))
    fail("its weight is for another number of dimensions");
  if (w.rank() == 3) w = w.reshape({w.size(0), w.size(1), 1, w.size(2)});
  const Sizes kernel{w.size(2), w.size(3)}, stride = sides("strides", {1, 1}),
                                            dilation = sides("dilations", {1, 1});
  const int64_t groups = attribute("group", int64_t{1});
  if (sides("kernel_shape", kernel) != kernel) fail("kernel_shape is not that of its weight");
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
  give_image(add_layer("conv", {x},
                       {in[1], w.size(0), kernel[0], kernel[1], stride[0], stride[1], pads[0],
                        pads[1], dilation[0], dilation[1], groups, bias.defined() ? 1 : 0},
                       {}, out, node_->inputs[1], {{"weight", w}, {"bias", bias}}));
}

void Builder::batch_norm() {
  const int64_t x = shape(activation(0)).size() == 2 ? activation(0) : image(0);
  const Sizes in = shape(x);
  if (attribute("spatial", int64_t{1}) != 1) fail("statistics of every pixel are not taken");
  const std::string note = "was exported for training: its batch norms are those of evaluation";
  if (attribute("training_mode", int64_t{0}) != 0 &&
      std::find(notes.begin(), notes.end(), note) == notes.end())
    notes.push_back(note);
  std::vector<std::pair<const char*, Tensor>> parts;
  const char* names[] = {"weight", "bias", "running_mean", "running_var"};
  for (size_t i = 0; i < 4; ++i) {
    const Tensor& t = constant(i + 1);
    if (t.rank() != 1 || t.size(0) != in[1]) fail("statistics of another number of channels");
    parts.emplace_back(names[i], t);
  }
  give_image(add_layer("batch_norm", {x}, {in[1]}, {attribute("epsilon", 1e-5)}, in,
                       node_->inputs[1], parts));
}

void Builder::linear(int64_t x, Tensor weight, Tensor bias, const std::string& name) {
  Sizes sizes = shape(x);
  const int64_t in = sizes.back(), out = weight.size(0);
  if (sizes.size() < 2 || sizes[0] != kBatch || in != weight.size(1))
    fail("only products of rows of images with a matrix are taken");
  if (bias.defined()) {
    if (bias.numel() != out || bias.rank() < 1 || bias.size(-1) != out)
      fail("a bias that does not fit");
    bias = bias.reshape({out});
  }
  sizes.back() = out;
  give(add_layer("linear", {x}, {in, out, bias.defined() ? 1 : 0}, {}, sizes, name,
                 {{"weight", weight}, {"bias", bias}}));
}

void Builder::gemm() {
  if (attribute("transA", int64_t{0}) != 0) fail("transA is not taken");
  Tensor w = constant(1).to(DType::f32), bias = has(2) ? constant(2).to(DType::f32) : Tensor();
  if (w.rank() != 2 || shape(activation(0)).size() != 2) fail("of other things than matrices");
  if (attribute("transB", int64_t{0}) == 0) w = transpose(w);
  if (const double alpha = attribute("alpha", 1.0); alpha != 1) w = mtcki::mul(w, alpha);
  if (const double beta = attribute("beta", 1.0); bias.defined() && beta != 1)
    bias = mtcki::mul(bias, beta);
  linear(activation(0), w, bias, node_->inputs[1]);
}

// Of two values with a matrix for every image, where one is a row or a column.
void Builder::product(int64_t a, int64_t b) {
  const size_t rank = shape(a).size();
  if (rank < 3 || shape(b).size() != rank || shape(a)[rank - 1] != shape(b)[rank - 2])
    fail("matrices that do not fit");
  const auto last = static_cast<int64_t>(rank) - 1;
  const auto turned = [&](int64_t x) {
    Sizes order;
    for (int64_t d = 0; d <= last; ++d) order.push_back(d);
    std::swap(order[rank - 2], order[rank - 1]);
    return permuted(x, order);
  };
  if (shape(b)[rank - 1] == 1) {
    give(reduced("sum", binary("mul", a, turned(b)), {last}));
  } else if (shape(a)[rank - 2] == 1) {
    give(reduced("sum", binary("mul", turned(a), b), {last - 1}));
  } else {
    fail("a product of two values, as in attention, is not taken");
  }
}

bool Builder::layer(const std::string& op) {
  if (op == "Conv") {
    convolution();
  } else if (op == "BatchNormalization") {
    batch_norm();
  } else if (op == "Gemm") {
    gemm();
  } else if (op == "MatMul" && !input(0).is_constant() && !input(1).is_constant()) {
    product(activation(0), activation(1));
  } else if (op == "MatMul") {
    const Tensor& w = constant(1);
    if (w.rank() != 2) fail("the weight must be a matrix");
    linear(activation(0), transpose(w.to(DType::f32)), {}, node_->inputs[1]);
  } else {
    return false;
  }
  return true;
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
  give_image(every_nth(x, stride));
}

bool Builder::pool(const std::string& op) {
  const bool max = op == "MaxPool";
  if (!max && op != "AveragePool") return false;
  const int64_t x = image(0);
  const Sizes in = shape(x), stride = sides("strides", {1, 1});
  if (!find_attribute("kernel_shape")) fail("has no kernel_shape");
  const Sizes kernel = sides("kernel_shape", {1, 1});
  if (kernel.size() != 2 || stride.size() != 2 || kernel[0] < 1 || kernel[1] < 1 || stride[0] < 1 ||
      stride[1] < 1)
    fail("kernel_shape and strides must be positive, one for each side");
  if (sides("dilations", {1, 1}) != Sizes{1, 1}) fail("dilated pooling is not taken");
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
  give_image(add(max ? "max_pool" : "avg_pool", {x}, ints, {}, out));
  return true;
}

}  // namespace mtcki::onnx
