// Matrix products and convolutions.
#include <algorithm>
#include <cmath>

#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

using In = const std::vector<Variable>&;
using Ref = const std::vector<Tensor>&;

double bias_at(const Tensor& bias, int64_t k) { return bias.defined() ? at(bias, {k}) : 0.0; }

Row matmul_row() {
  Row row;
  row.function = "matmul";
  row.products = true;
  for (const auto& [a, b] : {std::pair<Shape, Shape>{{3, 4}, {4, 5}},
                             {{33, 40}, {40, 17}},
                             {{1, 9}, {9, 1}},
                             {{2, 3, 4}, {2, 4, 5}}}) {
    Case c;
    c.name = str(a, " x ", b);
    c.inputs = {noise(a, 1), noise(b, 2)};
    c.run = [](In in) { return matmul(in[0], in[1]); };
    c.reference = [](Ref in) {
      const bool batch = in[0].rank() == 3;
      const int64_t n = in[1].size(-1), inner = in[0].size(-1);
      Shape shape = in[0].shape();
      shape.set(shape.rank() - 1, n);
      return fill(shape, [&](const Index& i) {
        double total = 0;
        for (int64_t k = 0; k < inner; ++k)
          total += batch ? at(in[0], {i[0], i[1], k}) * at(in[1], {i[0], k, i[2]})
                         : at(in[0], {i[0], k}) * at(in[1], {k, i[1]});
        return total;
      });
    };
    c.flops = 2 * count(a) * static_cast<double>(b[-1]);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   matmul(Tensor::zeros({2, 3}), Tensor::zeros({4, 5}));
                 },
                 {"matmul: ", "2x3", "4x5", "[2, 3] f32 cpu", "[4, 5] f32 cpu"}},
                {[] {
                   matmul(Tensor::zeros({2}), Tensor::zeros({2, 2}));
                 },
                 {"matmul: ", "rank 2", "[2] f32 cpu"}}};
  row.timed = [run = row.cases[0].run](int64_t) {
    return Timed{{noise({512, 512}, 1), noise({512, 512}, 2)}, run};
  };
  return row;
}

Row linear_row() {
  Row row;
  row.function = "linear";
  row.products = true;
  for (const bool with_bias : {true, false})
    for (const int64_t n : {1, 30}) {
      Case c;
      c.name = str(n, " rows", with_bias ? ", bias" : "");
      c.inputs = {noise({n, 20}, 1), noise({7, 20}, 2), with_bias ? noise({7}, 3) : Tensor()};
      c.run = [](In in) { return linear(in[0], in[1], in[2]); };
      c.reference = [n](Ref in) {
        return fill({n, 7}, [&](const Index& i) {
          double total = bias_at(in[2], i[1]);
          for (int64_t k = 0; k < 20; ++k) total += at(in[0], {i[0], k}) * at(in[1], {i[1], k});
          return total;
        });
      };
      c.flops = 2.0 * static_cast<double>(n) * 20 * 7;
      row.cases.push_back(c);
    }
  row.errors = {{[] {
                   linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 5}), {});
                 },
                 {"linear: ", "weight expects 5 features, input has 3", "[4, 5] f32 cpu"}},
                {[] {
                   linear(Tensor::zeros({2, 3}), Tensor::zeros({4, 3}), Tensor::zeros({5}));
                 },
                 {"linear: ", "bias needs shape [4]", "[5] f32 cpu"}}};
  row.weights = {1, 2};
  row.timed = [run = row.cases[0].run](int64_t n) {
    return Timed{{noise(features(n), 1), noise({10, 512}, 2), noise({10}, 3)}, run};
  };
  return row;
}

struct ConvShape {
  const char* name;
  Shape x, w;
  bool bias;
  Conv2dOptions o;
  bool residual = false;  // once more with one
};

Conv2dOptions options(std::array<int64_t, 2> stride, std::array<int64_t, 2> padding,
                      std::array<int64_t, 2> dilation = {1, 1}, int64_t groups = 1) {
  Conv2dOptions o;
  o.stride = stride;
  o.padding = padding;
  o.dilation = dilation;
  o.groups = groups;
  return o;
}

// Element `out` of x's convolution with w: the sum over taps, zero outside of x.
double conv_at(const Tensor& x, const Tensor& w, const Conv2dOptions& o, const Index& out) {
  const int64_t per_group = w.size(1), first = out[1] / (w.size(0) / o.groups) * per_group;
  double total = 0;
  for (int64_t c = 0; c < per_group; ++c)
    for (int64_t r = 0; r < w.size(2); ++r)
      for (int64_t s = 0; s < w.size(3); ++s) {
        const int64_t h = out[2] * o.stride[0] - o.padding[0] + r * o.dilation[0];
        const int64_t v = out[3] * o.stride[1] - o.padding[1] + s * o.dilation[1];
        if (h < 0 || h >= x.size(2) || v < 0 || v >= x.size(3)) continue;
        total += at(x, {out[0], first + c, h, v}) * at(w, {out[1], c, r, s});
      }
  return total;
}

Row conv_row() {
  Row row;
  row.function = "conv2d";
  row.products = true;
  row.weights = {1};
  row.tolerance = 2e-5;  // Winograd's transforms lose a digit
  for (const ConvShape& s : std::vector<ConvShape>{
           {"images", {2, 3, 7, 6}, {kC, 3, 3, 3}, true, {1, 1}},
           {"3x3", {2, kC, 6, 6}, {kC, kC, 3, 3}, false, {1, 1}, true},
           {"3x3 widening", {2, kC, 9, 7}, {2 * kC, kC, 3, 3}, true, {1, 1}},
           {"3x3 stride 2", {2, kC, 7, 6}, {kC, kC, 3, 3}, false, {2, 1}},
           {"1x1", {2, kC, 5, 5}, {2 * kC, kC, 1, 1}, false, {1, 0}, true},
           {"1x1 stride 2", {2, kC, 5, 4}, {kC, kC, 1, 1}, false, {2, 0}},
           {"to images", {2, kC, 5, 5}, {3, kC, 3, 3}, true, {1, 1}, true},
           {"5x5", {1, 2, 6, 6}, {3, 2, 5, 5}, true, {1, 2}},
           {"4x4 stride 2", {2, kC, 6, 6}, {kC, kC, 4, 4}, false, {2, 1}},
           {"no padding", {1, kC, 5, 5}, {kC, kC, 3, 3}, false, {1, 0}},
           {"one pixel", {3, kC, 1, 1}, {kC, kC, 3, 3}, false, {1, 1}},
           {"uneven", {2, 3, 6, 7}, {4, 3, 3, 2}, true, options({2, 1}, {0, 1})},
           {"dilated", {1, 3, 7, 7}, {2, 3, 3, 3}, true, options({1, 1}, {2, 2}, {2, 2})},
           {"groups", {2, 4, 5, 5}, {6, 2, 3, 3}, true, options({1, 1}, {1, 1}, {1, 1}, 2)},
           {"groups of blocks",
            {2, 2 * kC, 4, 5},
            {2 * kC, kC, 3, 3},
            true,
            options({2, 1}, {1, 1}, {1, 1}, 2)},
           {"depthwise stride 2",
            {2, kC, 6, 5},
            {kC, 1, 3, 3},
            true,
            options({2, 2}, {1, 1}, {1, 1}, kC),
            true},
           {"depthwise dilated",
            {1, 2 * kC, 7, 6},
            {2 * kC, 1, 5, 3},
            true,
            options({1, 1}, {4, 2}, {2, 2}, 2 * kC)},
           {"depthwise",
            {1, kC, 5, 5},
            {kC, 1, 3, 3},
            false,
            options({1, 1}, {1, 1}, {1, 1}, kC)}}) {
    Case c;
    c.name = s.name;
    c.inputs = {noise(s.x, 1), noise(s.w, 2), s.bias ? noise({s.w[0]}, 3) : Tensor()};
    c.run = [o = s.o](In in) { return conv2d(in[0], in[1], in[2], o); };
    Shape out{s.x[0], s.w[0], 0, 0};
    for (int d = 0; d < 2; ++d) {
      const size_t u = static_cast<size_t>(d);
      const int64_t span = s.o.dilation[u] * (s.w[2 + d] - 1) + 1;
      out.set(2 + d, (s.x[2 + d] + 2 * s.o.padding[u] - span) / s.o.stride[u] + 1);
    }
    c.reference = [o = s.o, out](Ref in) {
      return fill(
          out, [&](const Index& i) { return bias_at(in[2], i[1]) + conv_at(in[0], in[1], o, i); });
    };
    c.flops = 2 * count(out) * static_cast<double>(s.w[1] * s.w[2] * s.w[3]);
    row.cases.push_back(c);
    if (s.residual) {
      c.name += " plus residual";
      c.inputs.push_back(noise(out, 4));
      c.run = [o = s.o](In in) { return conv2d(in[0], in[1], in[2], o, in[3]); };
      c.reference = [o = s.o, out](Ref in) {
        return fill(out, [&](const Index& i) {
          return bias_at(in[2], i[1]) + conv_at(in[0], in[1], o, i) + at(in[3], i);
        });
      };
      row.cases.push_back(c);
    }
  }
  const Variable x(Tensor::zeros({2, 3, 5, 5}));
  row.errors = {{[x] {
                   conv2d(x, Tensor::zeros({8, 4, 3, 3}), {});
                 },
                 {"conv2d: ", "weight expects 4 input channels, input has 3",
                  "[2, 3, 5, 5] f32 cpu", "[8, 4, 3, 3] f32 cpu"}},
                {[x] {
                   conv2d(x, Tensor::zeros({8, 3, 7, 7}), {});
                 },
                 {"conv2d: ", "kernel 7x7 is larger than the padded input 5x5"}},
                {[x] {
                   conv2d(x, Tensor::zeros({8, 3, 3, 3}), Tensor::zeros({4}));
                 },
                 {"conv2d: ", "bias needs shape [8]"}},
                {[x] {
                   conv2d(x, Tensor::zeros({8, 3, 3, 3}, DType::f64), {});
                 },
                 {"conv2d: ", "f64", "f32"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n), 1), noise({64, 64, 3, 3}, 2)}, [](In in) {
                   return conv2d(in[0], in[1], {}, {1, 1});
                 }};
  };
  return row;
}

// relu of the batch norm of x over its own batch.
Tensor normalised(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  const size_t channels = static_cast<size_t>(x.size(1));
  const double n = static_cast<double>(x.numel() / x.size(1));
  std::vector<double> mean(channels), var(channels);
  const auto channel = [](const Index& i) { return static_cast<size_t>(i[1]); };
  for_each_index(x.shape(), [&](const Index& i) { mean[channel(i)] += at(x, i) / n; });
  for_each_index(x.shape(), [&](const Index& i) {
    const double d = at(x, i) - mean[channel(i)];
    var[channel(i)] += d * d / n;
  });
  return fill(x.shape(), [&](const Index& i) {
    const double x_hat = (at(x, i) - mean[channel(i)]) / std::sqrt(var[channel(i)] + eps);
    return std::max(0.0, x_hat * at(weight, {i[1]}) + at(bias, {i[1]}));
  });
}

Row bn_conv_row() {
  constexpr double kEps = 1e-3;
  Row row;
  row.function = "bn_conv2d";
  row.event = "conv2d";
  row.products = true;
  row.weights = {1, 2, 3, 4};
  row.tolerance = 2e-5;
  row.bf16_tolerance = 0.1;  // the gradient is a difference of values rounded to 8 bits
  for (const ConvShape& s : std::vector<ConvShape>{
           {"3x3", {2, kC, 6, 6}, {kC, kC, 3, 3}, false, {1, 1}, true},
           {"3x3 widening", {2, kC, 9, 7}, {2 * kC, kC, 3, 3}, true, {1, 1}},
           {"3x3 stride 2", {2, 2 * kC, 8, 6}, {kC, 2 * kC, 3, 3}, false, {2, 1}},
           {"1x1", {2, kC, 5, 5}, {kC, kC, 1, 1}, true, {1, 0}, true},
           {"depthwise", {2, kC, 6, 6}, {kC, 1, 3, 3}, true, options({2, 2}, {1, 1}, {1, 1}, kC)},
           {"from images", {2, 3, 5, 5}, {4, 3, 3, 3}, false, {1, 1}}}) {
    const int64_t channels = s.x[1];
    const int64_t stride = s.o.stride[0], pad = s.o.padding[0];
    const auto size = [&](int64_t n) { return (n + 2 * pad - s.w[2]) / stride + 1; };
    const Shape out{s.x[0], s.w[0], size(s.x[2]), size(s.x[3])};
    Case c;
    c.name = s.name;
    c.inputs = {noise(s.x, 1),
                away_from_zero({channels}, 2),
                noise({channels}, 3),
                noise(s.w, 4),
                s.bias ? noise({s.w[0]}, 5) : Tensor(),
                s.residual ? noise(out, 6) : Tensor()};
    c.run = [o = s.o, channels](In in) {
      const DType dtype = in[0].data().dtype();
      const Tensor mean = constant(noise({channels}, 7).to(dtype), in[0]).clone(),
                   var = constant(positive({channels}, 8).to(dtype), in[0]).clone();
      return bn_conv2d(in[0], in[1], in[2], mean, var, 0.1, kEps, in[3], in[4], o, in[5]);
    };
    c.reference = [o = s.o, out](Ref in) {
      const Tensor a = normalised(in[0], in[1], in[2], kEps);
      return fill(out, [&](const Index& i) {
        return bias_at(in[4], i[1]) + conv_at(a, in[3], o, i) +
               (in[5].defined() ? at(in[5], i) : 0.0);
      });
    };
    c.flops = 2 * count(out) * static_cast<double>(s.w[1] * s.w[2] * s.w[3]);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   const Variable x(Tensor::zeros({2, 3, 5, 5})), c(Tensor::zeros({3}));
                   bn_conv2d(x, Variable(Tensor::zeros({4})), c, {}, {}, 0.1, kEps,
                             Tensor::zeros({8, 3, 3, 3}), {});
                 },
                 {"batch_norm_apply: ", "weight needs shape [3]", "[2, 3, 5, 5] f32 cpu"}},
                {[] {
                   const Variable x(Tensor::zeros({1, 3, 1, 1})), c(Tensor::zeros({3}));
                   bn_conv2d(x, c, c, {}, {}, 0.1, kEps, Tensor::zeros({8, 3, 1, 1}), {});
                 },
                 {"batch_norm_statistics: ", "more than one value", "eval mode"}}};
  row.timed = [](int64_t n) {
    const Tensor mean = Tensor::full({64}, 0.25), var = Tensor::full({64}, 4.0);  // written
    return Timed{
        {noise(activations(n), 1), positive({64}, 2), noise({64}, 3), noise({64, 64, 3, 3}, 4)},
        [=](In in) {
          return bn_conv2d(in[0], in[1], in[2], constant(mean, in[0]), constant(var, in[0]), 0.1,
                           kEps, in[3], {}, {1, 1});
        }};
  };
  return row;
}

Row conv_transpose_row() {
  Row row;
  row.function = "conv_transpose2d";
  row.products = true;
  row.weights = {1};
  row.tolerance = 2e-5;
  struct Sample {
    const char* name;
    Shape x, w;
    bool bias;
    Conv2dOptions o;
    int64_t extra;  // output_padding
  };
  for (const Sample& s : std::vector<Sample>{
           {"4x4 stride 2", {2, kC, 3, 4}, {kC, kC, 4, 4}, false, {2, 1}, 0},
           {"to images", {2, kC, 4, 4}, {kC, 3, 4, 4}, true, {2, 1}, 0},
           {"from a vector", {3, 5, 1, 1}, {5, kC, 4, 4}, false, {1, 0}, 0},
           {"3x3", {2, kC, 4, 4}, {kC, kC, 3, 3}, true, {1, 1}, 0},
           {"output padding", {2, 3, 4, 3}, {3, 4, 3, 3}, true, {2, 1}, 1},
           {"groups", {1, 4, 3, 3}, {4, 3, 3, 3}, true, options({2, 2}, {1, 1}, {1, 1}, 2), 0}}) {
    ConvTranspose2dOptions o;
    static_cast<Conv2dOptions&>(o) = s.o;
    o.output_padding = {s.extra, s.extra};
    const Shape out{s.x[0], s.w[1] * o.groups,
                    (s.x[2] - 1) * o.stride[0] - 2 * o.padding[0] + s.w[2] + s.extra,
                    (s.x[3] - 1) * o.stride[1] - 2 * o.padding[1] + s.w[3] + s.extra};
    Case c;
    c.name = s.name;
    c.inputs = {noise(s.x, 1), noise(s.w, 2), s.bias ? noise({out[1]}, 3) : Tensor()};
    c.run = [o](In in) { return conv_transpose2d(in[0], in[1], in[2], o); };
    // Every input pixel adds its value times the kernel to the window that starts at its place.
    c.reference = [o, out](Ref in) {
      const Tensor &x = in[0], &w = in[1];
      Tensor y = fill(out, [&](const Index& i) { return bias_at(in[2], i[1]); });
      const int64_t group_in = x.size(1) / o.groups, group_out = w.size(1);
      for_each_index(x.shape(), [&](const Index& i) {
        for_each_index({group_out, w.size(2), w.size(3)}, [&](const Index& k) {
          const int64_t h = i[2] * o.stride[0] - o.padding[0] + k[1];
          const int64_t v = i[3] * o.stride[1] - o.padding[1] + k[2];
          if (h < 0 || h >= out[2] || v < 0 || v >= out[3]) return;
          const int64_t channel = i[1] / group_in * group_out + k[0];
          y.data<double>()[((i[0] * out[1] + channel) * out[2] + h) * out[3] + v] +=
              at(x, i) * at(w, {i[1], k[0], k[1], k[2]});
        });
      });
      return y;
    };
    c.flops = 2 * count(s.x) * static_cast<double>(s.w[1] * s.w[2] * s.w[3]);
    row.cases.push_back(c);
  }
  row.errors = {
      {[] {
         conv_transpose2d(Tensor::zeros({2, 3, 5, 5}), Tensor::zeros({4, 8, 3, 3}), {});
       },
       {"conv_transpose2d: ", "weight expects 4 input channels, input has 3",
        "[2, 3, 5, 5] f32 cpu", "[4, 8, 3, 3] f32 cpu"}},
      {[] {
         ConvTranspose2dOptions o(2, 1);
         o.output_padding = {2, 2};
         conv_transpose2d(Tensor::zeros({2, 3, 5, 5}), Tensor::zeros({3, 8, 3, 3}), {}, o);
       },
       {"conv_transpose2d: ", "output_padding", "below the stride 2, got 2"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n), 1), noise({64, 32, 4, 4}, 2)}, [](In in) {
                   return conv_transpose2d(in[0], in[1], {}, {2, 1});
                 }};
  };
  return row;
}

}  // namespace

std::vector<Row> product_rows() {
  return {matmul_row(), linear_row(), conv_row(), bn_conv_row(), conv_transpose_row()};
}

}  // namespace mtcki::op_table
