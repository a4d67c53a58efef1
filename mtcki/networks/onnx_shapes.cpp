// Operators that move values and compute nothing.
#include <algorithm>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/index.h"

namespace mtcki::onnx {

namespace {

constexpr size_t kMostRuns = 1024;  // parts of a dimension that are put together

}  // namespace

void Builder::reshape(int64_t x, Sizes sizes) {
  const Sizes& in = shape(x);
  int64_t all = 1, known = 1;
  size_t open = sizes.size();
  for (const int64_t s : in) all *= s;
  if (sizes.empty() || sizes.size() > static_cast<size_t>(Shape::kMaxRank))
    fail(str(sizes.size(), " dimensions"));
  // Files that were written for one number of images say it where N is meant.
  if (declared_batch_ > 0 && sizes[0] == declared_batch_) sizes[0] = kBatch;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && i < in.size()) sizes[i] = in[i];
    if (sizes[i] == -1 && open == sizes.size()) {
      open = i;
    } else if (sizes[i] < 1 || !data::checked_multiply(known, sizes[i], &known)) {
      fail(str("a size of ", sizes[i]));
    }
  }
  if (open < sizes.size() && known > 0 && all % known == 0) sizes[open] = all / known, known = all;
  if (known != all)
    fail(str("the sizes that the file gives do not fit images of ", shapes[0][2], "x", shapes[0][3],
             "; it was written for ones of another size (data.pixels, data.size)"));
  if (sizes[0] != kBatch) fail("the number of images would not stay the first dimension");
  give(reshaped(x, sizes));
}

int64_t Builder::reshaped(int64_t x, const Sizes& sizes) {
  if (sizes == shape(x)) return x;
  if (sizes[0] != kBatch || shape(x)[0] != kBatch) fail("a constant in another shape");
  Sizes ints = sizes;
  ints[0] = -1;
  return add("reshape", {x}, ints, {}, sizes);
}

int64_t Builder::permuted(int64_t x, const Sizes& order) {
  Sizes out;
  for (const int64_t d : order) out.push_back(shape(x)[static_cast<size_t>(d)]);
  return std::is_sorted(order.begin(), order.end()) ? x : add("permute", {x}, order, {}, out);
}

// Parts [begin, end) of dimension d, one behind the other.
int64_t Builder::joined(int64_t x, int64_t d, const Runs& runs) {
  const auto u = static_cast<size_t>(d);
  Sizes out = shape(x), part = out, parts;
  const int64_t n = std::exchange(out[u], 0);
  if (runs.size() > kMostRuns) fail("too many parts");
  for (size_t i = 0; i < runs.size();) {
    auto [begin, end] = runs[i++];
    for (; i < runs.size() && runs[i].first == end; ++i) end = runs[i].second;
    part[u] = end - begin;
    out[u] += part[u];
    parts.push_back(begin == 0 && end == n ? x : add("narrow", {x}, {d, begin, end}, {}, part));
  }
  return parts.size() == 1 ? parts[0] : add("cat", parts, {d}, {}, out);
}

// With the pixels at the border again, or those behind it in a mirror.
int64_t Builder::continued(int64_t x, int64_t d, int64_t before, int64_t after, bool mirrored) {
  const int64_t n = shape(x)[static_cast<size_t>(d)], most = int64_t{kMostRuns} / 2 - 1;
  if (std::max(before, after) > (mirrored ? std::min(n - 1, most) : most)) fail("too much padding");
  Runs runs;
  const auto take = [&](int64_t at) { runs.emplace_back(at, at + 1); };
  for (int64_t i = before; i > 0; --i) take(mirrored ? i : 0);
  runs.emplace_back(0, n);
  for (int64_t i = 1; i <= after; ++i) take(n - 1 - (mirrored ? i : 0));
  return joined(x, d, runs);
}

void Builder::pad() {
  int64_t x = activation(0);
  Sizes axes;
  for (size_t d = 0; d < shape(x).size(); ++d) axes.push_back(static_cast<int64_t>(d));
  axes = integers("", 3, axes);
  const Sizes pads = integers("pads", 1, {});
  const double value = has(2) ? number(2) : attribute("value", 0.0);
  const std::string mode = attribute("mode", "constant");
  if (mode != "constant" && mode != "reflect" && mode != "edge")
    fail("mode \"" + mode.substr(0, 40) + "\" is not taken");
  if (pads.size() != 2 * axes.size()) fail("lists of different lengths");
  Sizes sizes = shape(x);
  sizes[0] = 1;
  const auto filled = [&](double v) { return expanded(Tensor::full({}, v), sizes); };
  Tensor border;  // the value there, 0 inside
  if (value != 0 && mode == "constant") border = filled(0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t d = axis(axes[i], sizes.size());
    int64_t& size = sizes[static_cast<size_t>(d)];
    int64_t before = std::max(pads[i], -size), after = std::max(pads[axes.size() + i], -size);
    if (before == 0 && after == 0) continue;
    if (d == 0) fail("pads the images");
    if (before < 0 || after < 0) {  // cuts off
      if (mode != "constant") fail("negative padding");
      const int64_t begin = std::max(int64_t{0}, -before), end = size + std::min(int64_t{0}, after);
      x = joined(x, d, {{begin, end}});
      if (border.defined()) border = narrow(border, static_cast<int>(d), begin, end);
      size = end - begin;
      before = std::max(int64_t{0}, before), after = std::max(int64_t{0}, after);
    }
    Sizes out = shape(x);
    out[static_cast<size_t>(d)] += before + after;
    x = mode == "constant" ? add("pad", {x}, {d, before, after}, {}, out)
                           : continued(x, d, before, after, mode == "reflect");
    if (!border.defined()) continue;
    const int64_t whole = size + before + after;
    std::vector<Tensor> parts{border};
    if ((size = before) > 0) parts.insert(parts.begin(), filled(value));
    if ((size = after) > 0) parts.push_back(filled(value));
    size = whole;
    border = cat(parts, static_cast<int>(d));
  }
  give(border.defined() ? binary("add", x, literal(border)) : x);
}

void Builder::slice() {
  int64_t x = activation(0);
  const Sizes in = shape(x), starts = integers("starts", 1, {}), ends = integers("ends", 2, {});
  Sizes axes, steps = integers("steps", 4, Sizes(starts.size(), 1));
  for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  axes = integers("axes", 3, axes);
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
    fail("lists of different lengths");
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t d = axis(axes[i], in.size()), n = shape(x)[static_cast<size_t>(d)],
                  step = std::clamp(steps[i], -n - 1, n + 1), low = step < 0 ? -1 : 0;
    const auto place = [&](int64_t at) {
      return std::clamp(at < 0 ? std::max(at, -n - 1) + n : at, low, n + low);
    };
    const int64_t begin = place(starts[i]), end = place(ends[i]);
    const bool pixels = in.size() == 4 && d >= 2 && step > 1;
    if (step == 0) fail("a step of 0");
    if (begin == 0 && end == n && step == 1) continue;
    if (d == 0) fail("a part of the images");
    Runs runs;
    if (step == 1 || pixels) {
      if (begin < end) runs.emplace_back(begin, end);
    } else {
      for (int64_t at = begin; (end - at) * step > 0 && runs.size() <= kMostRuns; at += step)
        runs.emplace_back(at, at + 1);
    }
    x = joined(x, d, runs);
    if (pixels) x = every_nth(x, {d == 2 ? step : 1, d == 3 ? step : 1});
  }
  give(x);
}

// Positions of a dimension; x[:, 0], with which torchvision's GoogLeNet and Inception turn images of
// its usual normalisation into theirs, is without it then.
void Builder::gather() {
  const int64_t x = activation(0);
  const Tensor& index = constant(1);
  Sizes out = shape(x);
  const int64_t d = axis(attribute("axis", int64_t{0}), out.size());
  if (d == 0 || index.dtype() != DType::i64 || index.rank() > 1)
    fail("only positions of a dimension behind the images are taken");
  Runs runs;
  for (const int64_t i : index.to_vector<int64_t>()) {
    const int64_t at = axis(i, static_cast<size_t>(out[static_cast<size_t>(d)]));
    runs.emplace_back(at, at + 1);
  }
  const int64_t y = joined(x, d, runs);
  if (index.rank() == 1) return give(y);
  out.erase(out.begin() + d);
  reshape(y, out);
}

// Split into outputs, or SplitToSequence into one value.
void Builder::split() {
  const bool sequence = node_->op == "SplitToSequence";
  const int64_t x = activation(0);
  const Sizes in = shape(x);
  const int64_t d = axis(attribute("axis", int64_t{0}), in.size());
  const int64_t n = in[static_cast<size_t>(d)];
  Sizes sizes = integers("split", 1, {});
  const auto outputs = static_cast<int64_t>(node_->outputs.size());
  if (attribute("keepdims", int64_t{1}) == 0 && sizes.empty()) fail("drops the dimension");
  const bool even = sizes.empty() || (sequence && sizes.size() == 1 && constant(1).rank() == 0);
  if (even) {
    const int64_t count = attribute("num_outputs", outputs);
    const int64_t part = !sizes.empty() ? sizes[0]
                         : sequence     ? 1
                                        : (n + count - 1) / std::max<int64_t>(1, count);
    if (part < 1 || n / part > 4096) fail("too many parts");
    sizes.clear();
    for (int64_t at = 0; at < n; at += part) sizes.push_back(std::min(part, n - at));
  }
  if (d == 0 || (!sequence && static_cast<int64_t>(sizes.size()) != outputs))
    fail("parts that do not fit");
  Sizes parts, out = in;
  int64_t at = 0;
  for (const int64_t size : sizes) {
    if (size < 1 || size > n - at) fail("parts that do not fit");
    out[static_cast<size_t>(d)] = size;
    parts.push_back(add("narrow", {x}, {d, at, at + size}, {}, out));
    at += size;
  }
  if (at != n) fail("parts that do not fit");
  if (sequence) {
    values_[node_->outputs[0]] = {-1, {}, parts};
  } else {
    for (size_t i = 0; i < parts.size(); ++i) give(parts[i], i);
  }
}

void Builder::expand() {
  const int64_t x = activation(0);
  Sizes sizes = integers("", 1, {});
  if (!sizes.empty() && sizes.size() == shape(x).size() &&
      (sizes[0] == kBatch || sizes[0] == declared_batch_))
    sizes[0] = 1;
  if (broadcast(shape(x), sizes) == shape(x)) return give(x);
  give(binary("add", x, literal(expanded(Tensor::full({}, 0.0), sizes))));
}

bool Builder::rearrangement(const std::string& op) {
  if (op == "Identity" || op == "Dropout" || op == "Cast" || op == "CastLike") {
    // What computes in other widths computes in ours; rounding to integers is another function.
    if (const int64_t to = attribute("to", int64_t{1}); to != 1 && to != 10 && to != 11 && to != 16)
      fail("turns values into integers");
    give(activation(0));
  } else if (op == "Split" || op == "SplitToSequence") {
    split();
  } else if (op == "SequenceAt") {
    const Sizes parts = input(0).parts;
    const Sizes at = integers("", 1, {});
    if (at.size() != 1 || parts.empty()) fail("one position in a sequence is needed");
    give(parts[static_cast<size_t>(axis(at[0], parts.size()))]);
  } else if (op == "Concat") {
    Sizes in;
    for (size_t i = 0; i < node_->inputs.size(); ++i) in.push_back(activation(i));
    if (in.empty()) fail("no inputs");
    Sizes out = shape(in[0]);
    const auto d = static_cast<size_t>(axis(attribute("axis", int64_t{0}), out.size()));
    if (d == 0) fail("images after one another");
    for (size_t i = 1; i < in.size(); ++i) {
      Sizes other = shape(in[i]);
      if (other.size() != out.size()) fail("sizes that do not fit");
      out[d] += std::exchange(other[d], out[d]);
      Sizes same = out;
      same[d] = other[d] = 0;
      if (other != same) fail("sizes that do not fit");
    }
    give(in.size() == 1 ? in[0] : add("cat", in, {static_cast<int64_t>(d)}, {}, out));
  } else if (op == "Slice") {
    slice();
  } else if (op == "Gather") {
    gather();
  } else if (op == "Pad") {
    pad();
  } else if (op == "Resize" || op == "Upsample") {
    resize();
  } else if (op == "Reshape") {
    const Sizes sizes = integers("", 1, {});
    if (attribute("allowzero", int64_t{0}) != 0 && std::count(sizes.begin(), sizes.end(), 0) > 0)
      fail("a result without elements");
    reshape(activation(0), sizes);
  } else if (op == "Flatten") {
    if (attribute("axis", int64_t{1}) != 1) fail("only axis 1 is taken");
    reshape(activation(0), {kBatch, -1});
  } else if (op == "Squeeze" || op == "Unsqueeze") {
    const int64_t x = activation(0);
    Sizes out = shape(x), axes = integers("axes", 1, {});
    const size_t rank = out.size() + (op == "Unsqueeze" ? axes.size() : 0);
    for (int64_t& a : axes) a = axis(a, rank);
    std::sort(axes.begin(), axes.end());
    if (axes.empty()) fail("no axes");
    for (size_t i = 0; i < axes.size(); ++i) {
      const int64_t a = op == "Squeeze" ? axes[axes.size() - 1 - i] : axes[i];
      if (a > static_cast<int64_t>(out.size())) fail("axes that do not fit");
      if (op == "Squeeze" && out[static_cast<size_t>(a)] != 1) fail("a dimension that is not 1");
      if (op == "Squeeze") out.erase(out.begin() + a);
      if (op == "Unsqueeze") out.insert(out.begin() + a, 1);
    }
    reshape(x, out);
  } else if (op == "Transpose") {
    const int64_t x = activation(0);
    const Sizes in = shape(x), order = integers("perm", 99, {});
    Sizes sorted = order;
    std::sort(sorted.begin(), sorted.end());
    for (size_t i = 0; i < sorted.size(); ++i)
      if (sorted[i] != static_cast<int64_t>(i)) fail("no order of the dimensions");
    if (order.size() != in.size() || order[0] != 0)
      fail("the images must stay the first dimension");
    give(permuted(x, order));
  } else if (op == "Expand") {
    expand();
  } else {
    return false;
  }
  return true;
}

}  // namespace mtcki::onnx
