// Operators that move values and compute nothing.
#include <algorithm>
#include <functional>
#include <numeric>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"
#include "tensor/ops/index.h"

namespace mtcki::onnx {

namespace {

constexpr size_t kMostRuns = 1024;  // parts of a dimension that are put together

// How many there are of the dimensions before d.
int64_t before(const Sizes& sizes, int64_t d) {
  return std::accumulate(sizes.begin(), sizes.begin() + d, int64_t{1}, std::multiplies<>());
}

}  // namespace

void Builder::reshape(int64_t x, Sizes sizes) {
  const Sizes in = shape(x);
  const int64_t from = batch_dim(in);
  int64_t all = 1, known = 1;
  size_t open = sizes.size();
  if (sizes.empty() || sizes.size() > static_cast<size_t>(Shape::kMaxRank))
    fail(str(sizes.size(), " dimensions"));
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0 && i < in.size()) sizes[i] = in[i];
    if (sizes[i] == -1 && open == sizes.size()) {
      open = i;
    } else if (sizes[i] < 1 || !data::checked_multiply(known, sizes[i], &known)) {
      fail(str("a size of ", sizes[i]));
    }
  }
  // Files that were written for one number of images say it where N is meant.
  const bool fixed = from >= 0 && declared_batch_ > 0 && known % kBatch != 0;
  for (const int64_t s : in) all *= fixed && s % kBatch == 0 ? s / kBatch * declared_batch_ : s;
  if (open < sizes.size() && all % known == 0) sizes[open] = all / known, known = all;
  if (known != all)
    fail(str(
        "the sizes that the file gives do not fit images of ", shapes[0][2], "x", shapes[0][3],
        "; it was written for ones of another size (data.pixels, data.size), or for a number of "
        "images that it does not say: export it for one, or for any number"));
  // No number moves, so that N is behind as many as before: as a dimension of its own, else the
  // outer part of one with others behind it, else wherever it can be.
  if (fixed) {
    const int64_t ahead = before(in, from) * inner_[static_cast<size_t>(x)];
    int64_t to = -1, best = 0;
    for (int64_t d = 0; d < std::ssize(sizes); ++d) {
      const int64_t outer = before(sizes, d), size = sizes[static_cast<size_t>(d)];
      if (ahead % outer != 0 || size % (ahead / outer * declared_batch_) != 0) continue;
      const bool is_outer = ahead == outer, is_last = d + 1 == std::ssize(sizes);
      const int64_t rank = is_outer && size == declared_batch_ ? 3 : is_outer && !is_last ? 2 : 1;
      if (rank > best) best = rank, to = d;
    }
    if (to < 0) fail("would put the images behind something else");
    sizes[static_cast<size_t>(to)] *= kBatch;
    sizes[static_cast<size_t>(to)] /= declared_batch_;
  }
  give(reshaped(x, sizes));
}

// The same numbers in as many, of which none moves.
int64_t Builder::reshaped(int64_t x, const Sizes& sizes) {
  const Sizes in = shape(x);
  if (sizes == in) return x;
  Sizes ints = sizes;
  int64_t inner = 1;
  if (const int64_t from = batch_dim(in); from >= 0) {
    const int64_t to = batch_dim(sizes), ahead = before(in, from) * inner_[static_cast<size_t>(x)];
    if (to < 0 || ahead % before(sizes, to) != 0)
      fail("would put the images behind something else");
    inner = ahead / before(sizes, to);
    if (sizes[static_cast<size_t>(to)] % (inner * kBatch) != 0)
      fail("would put the images behind something else");
    ints[static_cast<size_t>(to)] = -1;
  }
  const int64_t y = add("reshape", {x}, ints, {}, sizes);
  inner_.back() = inner;
  return y;
}

// DepthToSpace and back: b x b numbers of a pixel as pixels.
void Builder::blocks(bool to_space) {
  const int64_t x = activation(0), b = attribute("blocksize", int64_t{0});
  const Sizes in = shape(x);
  const bool columns = attribute("mode", "DCR") == "CRD";
  if (in.size() != 4 || batch_dim(in) > 0 || b < 1 || b > in[to_space ? 1 : 2] ||
      (to_space ? in[1] % (b * b) : in[2] % b + in[3] % b) != 0)
    fail(str("blocks of ", b, " do not fit"));
  const int64_t n = in[0], c = in[1], h = in[2], w = in[3], few = c / (b * b);
  if (!to_space) {
    const int64_t y = permuted(reshaped(x, {n, c, h / b, b, w / b, b}), {0, 3, 5, 1, 2, 4});
    return give(reshaped(y, {n, c * b * b, h / b, w / b}));
  }
  const int64_t y = columns ? permuted(reshaped(x, {n, few, b, b, h, w}), {0, 1, 4, 2, 5, 3})
                            : permuted(reshaped(x, {n, b, b, few, h, w}), {0, 3, 4, 1, 5, 2});
  give(reshaped(y, {n, few, h * b, w * b}));
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
  const int64_t b = batch_dim(sizes);
  if (b >= 0) sizes[static_cast<size_t>(b)] = 1;
  const auto filled = [&](double v) { return expanded(Tensor::full({}, v), sizes); };
  Tensor border;  // the value there, 0 inside
  if (value != 0 && mode == "constant") border = filled(0);
  for (size_t i = 0; i < axes.size(); ++i) {
    const int64_t d = axis(axes[i], sizes.size());
    int64_t& size = sizes[static_cast<size_t>(d)];
    int64_t before = std::max(pads[i], -size), after = std::max(pads[axes.size() + i], -size);
    if (before == 0 && after == 0) continue;
    if (d == b) fail("pads the images");
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
    const bool pixels = in.size() == 4 && d >= 2 && step > 1 && batch_dim(in) <= 0;
    if (step == 0) fail("a step of 0");
    if (begin == 0 && end == n && step == 1) continue;
    if (d == batch_dim(in)) fail("a part of the images");
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
// its usual normalisation into theirs, is without it then. GatherND: of the leading ones, as one.
void Builder::gather() {
  int64_t x = activation(0), d = 0;
  const Tensor& index = constant(1);
  Sizes out = shape(x), chosen(index.shape().begin(), index.shape().end());
  Runs runs;
  if (index.dtype() != DType::i64) fail("positions that are no integers");
  if (node_->op == "GatherND") {
    const Sizes at = leading_places(index, out);
    const auto depth = static_cast<size_t>(chosen.back());
    chosen.pop_back();
    Sizes rows{before(out, static_cast<int64_t>(depth))};
    rows.insert(rows.end(), out.begin() + static_cast<int64_t>(depth), out.end());
    if (rows[0] % kBatch == 0) fail("picks from the images");
    x = reshaped(x, out = rows);
    for (const int64_t i : at) runs.emplace_back(i, i + 1);
  } else {
    d = axis(attribute("axis", int64_t{0}), out.size());
    if (d == batch_dim(out)) fail("picks from the images");
    for (const int64_t i : index.to_vector<int64_t>()) {
      const int64_t at = axis(i, static_cast<size_t>(out[static_cast<size_t>(d)]));
      runs.emplace_back(at, at + 1);
    }
  }
  const int64_t y = joined(x, d, runs);
  out.erase(out.begin() + d);
  out.insert(out.begin() + d, chosen.begin(), chosen.end());
  give(reshaped(y, out));
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
  const bool drops = attribute("keepdims", int64_t{1}) == 0 && sizes.empty();
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
  if (d == batch_dim(in) || (!sequence && static_cast<int64_t>(sizes.size()) != outputs))
    fail("parts that do not fit");
  Sizes parts, out = in;
  int64_t at = 0;
  for (const int64_t size : sizes) {
    if (size < 1 || size > n - at) fail("parts that do not fit");
    out[static_cast<size_t>(d)] = size;
    parts.push_back(add("narrow", {x}, {d, at, at + size}, {}, out));
    if (drops) {
      Sizes less = out;
      less.erase(less.begin() + d);
      parts.back() = reshaped(parts.back(), less);
    }
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
  Sizes sizes = integers("", 1, {}), in = shape(x);
  const auto d = batch_dim(in) + std::ssize(sizes) - std::ssize(in);  // where N is in the result
  if (batch_dim(in) >= 0 && d >= 0)
    if (int64_t& n = sizes[static_cast<size_t>(d)]; n % kBatch == 0 || n == declared_batch_) n = 1;
  sizes = broadcast(in, sizes);
  in.insert(in.begin(), sizes.size() - in.size(), 1);
  give(spread(reshaped(x, in), sizes));
}

void Builder::concat() {
  Sizes in, out;
  for (size_t i = 0; i < node_->inputs.size(); ++i) in.push_back(activation(i));
  if (in.empty()) fail("no inputs");
  for (const int64_t x : in)
    if (out.empty() || batch_dim(shape(x)) >= 0) out = shape(x);
  const auto d = static_cast<size_t>(axis(attribute("axis", int64_t{0}), out.size()));
  const int64_t b = batch_dim(out);
  if (b == static_cast<int64_t>(d)) fail("images after one another");
  out[d] = 0;
  for (int64_t& x : in) {
    Sizes one = shape(x);
    if (b >= 0 && batch_dim(one) < 0 && one.size() == out.size() &&
        one[static_cast<size_t>(b)] == 1) {
      one[static_cast<size_t>(b)] = out[static_cast<size_t>(b)];
      x = spread(x, one);
    }
    if (one.size() != out.size()) fail("sizes that do not fit");
    out[d] += one[d];
    one[d] = out[d];
    if (one != out) fail("sizes that do not fit");
  }
  give(in.size() == 1 ? in[0] : add("cat", in, {static_cast<int64_t>(d)}, {}, out));
}

// Of its dimensions.
bool Builder::reordering(const std::string& op) {
  if (op == "Flatten") {
    const int64_t x = activation(0), d = attribute("axis", int64_t{1});
    const Sizes in = shape(x);
    Sizes out{1, 1};
    for (int64_t i = 0; i < std::ssize(in); ++i)
      out[i < (d < 0 ? d + std::ssize(in) : d) ? size_t{0} : size_t{1}] *=
          in[static_cast<size_t>(i)];
    give(reshaped(x, out));
  } else if (op == "DepthToSpace" || op == "SpaceToDepth") {
    blocks(op == "DepthToSpace");
  } else if (op == "Squeeze" || op == "Unsqueeze") {
    const int64_t x = activation(0);
    Sizes out = shape(x), axes = integers("axes", 1, {});
    const size_t rank = out.size() + (op == "Unsqueeze" ? axes.size() : 0);
    if (axes.empty() && op == "Squeeze")
      for (size_t d = 0; d < rank; ++d)
        if (out[d] == 1) axes.push_back(static_cast<int64_t>(d));
    for (int64_t& a : axes) a = axis(a, rank);
    std::sort(axes.begin(), axes.end());
    for (size_t i = 0; i < axes.size(); ++i) {
      const int64_t a = op == "Squeeze" ? axes[axes.size() - 1 - i] : axes[i];
      if (a > static_cast<int64_t>(out.size())) fail("axes that do not fit");
      if (op == "Squeeze" && out[static_cast<size_t>(a)] != 1) fail("a dimension that is not 1");
      if (op == "Squeeze") out.erase(out.begin() + a);
      if (op == "Unsqueeze") out.insert(out.begin() + a, 1);
    }
    give(reshaped(x, out));
  } else if (op == "Transpose") {
    const int64_t x = activation(0);
    Sizes sorted, order;
    for (int64_t d = 0; d < std::ssize(shape(x)); ++d) sorted.push_back(d);
    order = integers("perm", 99, {sorted.rbegin(), sorted.rend()});
    if (!std::is_permutation(order.begin(), order.end(), sorted.begin(), sorted.end()))
      fail("no order of the dimensions");
    give(permuted(x, order));
  } else if (op == "Tile") {
    int64_t x = activation(0);
    Sizes times = integers("", 1, {});
    if (times.size() != shape(x).size()) fail("lists of different lengths");
    for (size_t d = 0; d < times.size(); ++d) {
      const int64_t n = shape(x)[d];
      if (batch_dim(shape(x)) < 0 && times[d] % kBatch == 0) times[d] /= kBatch;  // of one image
      if (times[d] != 1 && n % kBatch == 0) fail("images after one another");
      if (times[d] != 1)
        x = joined(
            x, static_cast<int64_t>(d),
            Runs(static_cast<size_t>(std::clamp<int64_t>(times[d], 0, kMostRuns + 1)), {0, n}));
    }
    give(x);
  } else if (op == "CumSum") {
    const int64_t x = activation(0);
    Sizes order;
    for (int64_t d = 0; d < std::ssize(shape(x)); ++d) order.push_back(d);
    const auto d = static_cast<size_t>(axis(static_cast<int64_t>(number(1)), order.size()));
    std::swap(order[d], order.back());
    if (shape(x)[d] % kBatch == 0) fail("sums over the images");
    give(permuted(product(permuted(x, order), literal(summing(shape(x)[d]))), order));
  } else {
    return false;
  }
  return true;
}

bool Builder::rearrangement(const std::string& op) {
  if (op == "Identity" || op == "Dropout" || op == "Cast" || op == "CastLike") {
    // What computes in other widths computes in ours; rounding to integers is another function.
    const int64_t to = attribute("to", int64_t{1}), x = activation(0);
    if (to != 1 && to != 9 && to != 10 && to != 11 && to != 16) fail("turns values into integers");
    if (to != 9) return give(x), true;
    const int64_t zero = literal(Tensor::zeros({1}));
    give(binary("add", binary("greater", x, zero), binary("greater", zero, x)));
  } else if (op == "Split" || op == "SplitToSequence") {
    split();
  } else if (op == "SequenceAt") {
    const Sizes parts = input(0).parts;
    const Sizes at = integers("", 1, {});
    if (at.size() != 1 || parts.empty()) fail("one position in a sequence is needed");
    give(parts[static_cast<size_t>(axis(at[0], parts.size()))]);
  } else if (op == "Concat") {
    concat();
  } else if (op == "Slice") {
    slice();
  } else if (op == "Gather" || op == "GatherND") {
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
  } else if (op == "Expand") {
    expand();
  } else {
    return false;
  }
  return true;
}

}  // namespace mtcki::onnx
