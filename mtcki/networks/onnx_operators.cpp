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
  if (in.size() == 5) in = {in[0], in[1], in[2], in[3] * in[4]};  // see sides()
  if (in.size() != 4 || batch_dim(in) > 0)
    fail("only lines and images, [N,C,W] and [N,C,H,W], are taken");
  return reshaped(x, in);
}

void Builder::give_image(int64_t x) {
  Sizes out = shape(x), in = shape(activation(0));
  if (in.size() == 3) out.erase(out.begin() + 2);
  if (in.size() == 5) out = {out[0], out[1], out[2], in[3], in[4]};
  give(reshaped(x, out));
}

Sizes Builder::sides(const char* name, const Sizes& otherwise) {
  Sizes v = integers(name, 99, otherwise);
  if (std::any_of(v.begin(), v.end(), [](int64_t n) { return n > 1 << 20; }))
    fail(str(name, " of that size"));
  const bool line = shape(activation(0)).size() == 3;
  if (shape(activation(0)).size() == 5) {  // along the first alone: PyTorch's LRN
    Sizes one = otherwise;
    if (v == otherwise) return one;
    if (v.size() * 2 != one.size() * 3) fail(str(name, " of another number of sides"));
    for (size_t i = 0; i < v.size(); ++i)
      if (i % 3 == 0)
        one[i / 3 * 2] = v[i];
      else if (v[i] != otherwise[0])
        fail("of volumes, only the first side is taken");
    return one;
  }
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
  if (w.rank() > 4) fail("convolutions of volumes are not taken");
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
  if (sizes.size() < 2 || in != weight.size(1))
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

// Of two values; a matrix is the last two dimensions, and those before are broadcast.
int64_t Builder::product(int64_t a, int64_t b) {
  Sizes left = shape(a), right = shape(b);
  if (left.size() < 2 || right.size() < 2 || left.back() != right[right.size() - 2])
    fail("matrices that do not fit");
  const int64_t rows = left[left.size() - 2], inner = left.back(), columns = right.back();
  left.resize(left.size() - 2), right.resize(right.size() - 2);
  Sizes lead = broadcast(left, right);
  int64_t count = 1, each = rows;
  for (const int64_t n : lead) count *= n;
  const auto matrices = [&](int64_t x, int64_t m, int64_t n) {
    Sizes whole = lead;
    whole.insert(whole.end(), {m, n});
    return count == 1 ? x : spread(x, whole);
  };
  if (Shape(right).numel() == 1 && left == lead) {  // one for all rows
    each = std::exchange(count, 1) * rows;
  } else {
    a = matrices(a, rows, inner), b = matrices(b, inner, columns);
  }
  const int64_t y =
      add("matmul", {reshaped(a, {count, each, inner}), reshaped(b, {count, inner, columns})}, {},
          {}, {count, each, columns});
  lead.insert(lead.end(), {rows, columns});
  return reshaped(y, lead);
}

// "ab,bc->ac" of two values, without dots and without a letter twice in one of them.
void Builder::einsum() {
  std::string text = attribute("equation", "");
  std::erase(text, ' ');
  const size_t comma = text.find(','), arrow = text.find("->");
  if (comma > arrow || arrow == std::string::npos || node_->inputs.size() != 2)
    fail("only equations of two values are taken, with what comes out");
  const std::string in[2] = {text.substr(0, comma), text.substr(comma + 1, arrow - comma - 1)},
                    out = text.substr(arrow + 2);
  const auto all_in = [](const std::string& part, const std::string& whole) {
    return part.find_first_not_of(whole) == std::string::npos;
  };
  std::map<char, int64_t> size;
  for (const size_t i : {size_t{0}, size_t{1}}) {
    const Sizes& sizes = shape(activation(i));
    bool fits =
        sizes.size() == in[i].size() && std::set(in[i].begin(), in[i].end()).size() == sizes.size();
    for (size_t d = 0; fits && d < sizes.size(); ++d)
      fits =
          std::isalpha(in[i][d]) != 0 && size.emplace(in[i][d], sizes[d]).first->second == sizes[d];
    if (!fits) fail("equation \"" + text.substr(0, 40) + "\" does not fit, or is not taken");
  }
  std::string lead, kept[2], inner;
  for (const char c : out)
    (all_in({c}, in[0]) ? all_in({c}, in[1]) ? lead : kept[0] : kept[1]) += c;
  for (const char c : in[0])
    if (!all_in({c}, out)) inner += c;
  const std::string made = lead + kept[0] + kept[1], letters = in[0] + in[1];
  if (!all_in(out, letters) || !all_in(inner, in[1]) || !all_in(in[1], lead + kept[1] + inner) ||
      made.size() != out.size() || inner.empty())
    fail("equation \"" + text.substr(0, 40) + "\" is not taken");
  const auto number = [&](const std::string& of) {
    int64_t n = 1;
    for (const char c : of) n *= size.at(c);
    return n;
  };
  const auto ordered = [&](int64_t x, const std::string& from, const std::string& to) {
    Sizes order;
    for (const char c : to) order.push_back(static_cast<int64_t>(from.find(c)));
    return permuted(x, order);
  };
  const int64_t a = reshaped(ordered(activation(0), in[0], lead + kept[0] + inner),
                             {number(lead), number(kept[0]), number(inner)}),
                b = reshaped(ordered(activation(1), in[1], lead + inner + kept[1]),
                             {number(lead), number(inner), number(kept[1])});
  Sizes sizes;
  for (const char c : made) sizes.push_back(size.at(c));
  give(ordered(reshaped(product(a, b), sizes), made, out));
}

bool Builder::layer(const std::string& op) {
  if (op == "Conv") {
    convolution();
  } else if (op == "BatchNormalization") {
    batch_norm();
  } else if (op == "Gemm") {
    gemm();
  } else if (op == "MatMul" && input(1).is_constant() && constant(1).rank() == 2) {
    linear(activation(0), transpose(constant(1).to(DType::f32)), {}, node_->inputs[1]);
  } else if (op == "MatMul") {
    give(product(activation(0), activation(1)));
  } else if (op == "Einsum") {
    einsum();
  } else {
    return false;
  }
  return true;
}

int64_t Builder::every_nth(int64_t x, const Sizes& steps) {
  if (steps == Sizes{1, 1}) return x;
  Sizes out = shape(x);
  for (size_t d = 0; d < 2; ++d) out[2 + d] = (out[2 + d] + steps[d] - 1) / steps[d];
  return add("max_pool", {x}, {1, 1, steps[0], steps[1], 0, 0, 0}, {}, out);
}

// What no kernel does, such as TensorFlow's SAME with a pixel more at one side: along height and
// then width, the place of every window's first number, of every second, ..., and of these the
// largest or the mean of those that count.
int64_t Builder::composed_pool(bool max, int64_t x, const Sizes& kernel, const Sizes& stride,
                               const Sizes& dilation, const Sizes& pads, const Sizes& out) {
  const bool borders_count = !max && attribute("count_include_pad", int64_t{0}) != 0;
  for (size_t d = 0; d < 2; ++d) {
    const int64_t n = shape(x)[2 + d], count = out[2 + d], before = pads[d],
                  dim = 2 + static_cast<int64_t>(d),
                  whole = (count - 1) * stride[d] + dilation[d] * (kernel[d] - 1) + 1,
                  after = std::max<int64_t>(0, whole - n - before);
    Sizes sizes = shape(x), line{1, 1, 1, 1}, steps{1, 1};
    sizes[2 + d] = line[2 + d] = before + n + after;
    steps[d] = stride[d];
    if (kernel[d] > 64) fail("a window of that size is not taken");
    if (before + after > 0) x = add("pad", {x}, {dim, before, after}, {}, sizes);
    if (max && before + after > 0) {
      std::vector<float> border(static_cast<size_t>(line[2 + d]), -1e30F);
      std::fill_n(border.begin() + before, n, 0.0F);
      x = binary("add", x, literal(Tensor::from(border, Shape(line))));
    }
    std::vector<float> counts(static_cast<size_t>(count), 0.0F);
    Sizes windows;
    for (int64_t t = 0; t < kernel[d]; ++t) {
      const int64_t begin = t * dilation[d];
      windows.push_back(
          every_nth(joined(x, dim, {{begin, begin + (count - 1) * stride[d] + 1}}), steps));
      for (int64_t i = 0; i < count; ++i)
        if (const int64_t at = begin + i * stride[d] - before;
            borders_count ? at < n + pads[2 + d] : at >= 0 && at < n)
          counts[static_cast<size_t>(i)] += 1;
    }
    sizes = shape(windows[0]);
    sizes.push_back(1);
    line[2 + d] = count;
    if (max) {
      for (int64_t& w : windows) w = reshaped(w, sizes);
      sizes[4] = kernel[d];
      x = largest(add("cat", windows, {4}, {}, sizes), {4}, false);
      continue;
    }
    x = windows[0];
    for (size_t t = 1; t < windows.size(); ++t) x = binary("add", x, windows[t]);
    x = binary("div", x, literal(Tensor::from(counts, Shape(line))));
  }
  return x;
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
  const Sizes dilation = sides("dilations", {1, 1});
  if (dilation.size() != 2 || dilation[0] < 1 || dilation[1] < 1)
    fail("dilations must be positive");
  const Sizes pads = pads_of(in, kernel, stride, dilation);
  const int64_t ceil_mode = attribute("ceil_mode", int64_t{0});
  Sizes out = in;
  bool composed = dilation != Sizes{1, 1};
  for (size_t d = 0; d < 2; ++d) {
    composed |= pads[d] != pads[2 + d] || 2 * pads[d] > kernel[d];
    const int64_t room = in[2 + d] + pads[d] + pads[2 + d] - dilation[d] * (kernel[d] - 1) - 1 +
                         (ceil_mode ? stride[d] - 1 : 0);
    out[2 + d] = room < 0 ? 0 : room / stride[d] + 1;
    // PyTorch's rule: the last window begins inside the image or its padding before.
    if (ceil_mode && (out[2 + d] - 1) * stride[d] >= in[2 + d] + pads[d]) --out[2 + d];
  }
  if (composed) return give_image(composed_pool(max, x, kernel, stride, dilation, pads, out)), true;
  Sizes ints{kernel[0], kernel[1], stride[0], stride[1], pads[0], pads[1], ceil_mode};
  if (!max) ints.push_back(attribute("count_include_pad", int64_t{0}));
  give_image(add(max ? "max_pool" : "avg_pool", {x}, ints, {}, out));
  return true;
}

}  // namespace mtcki::onnx
