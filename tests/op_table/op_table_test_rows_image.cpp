// Pooling, upsampling, augmentation.
#include <algorithm>
#include <cmath>

#include "tests/op_table/op_table.h"

namespace mtcki::op_table {

namespace {

using In = const std::vector<Variable>&;
using Ref = const std::vector<Tensor>&;
using Window = std::function<double(const std::vector<double>& inside, int64_t taps)>;

int64_t pooled(int64_t size, int64_t k, int64_t s, int64_t p, bool ceil_mode) {
  int64_t out = (size + 2 * p - k + (ceil_mode ? s - 1 : 0)) / s + 1;
  if (ceil_mode && (out - 1) * s >= size + p) --out;  // no window starts in the right padding
  return out;
}

Shape pooled_shape(const Shape& x, const Pool2dOptions& o) {
  return {x[0], x[1], pooled(x[2], o.kernel[0], o.stride[0], o.padding[0], o.ceil_mode),
          pooled(x[3], o.kernel[1], o.stride[1], o.padding[1], o.ceil_mode)};
}

// f over the values of each window; taps: those in the padding count too, those beyond it do not.
Tensor over_windows(const Tensor& x, const Pool2dOptions& o, const Window& f) {
  return fill(pooled_shape(x.shape(), o), [&](const Index& i) {
    std::vector<double> inside;
    int64_t taps = 0;
    for (int64_t r = 0; r < o.kernel[0]; ++r)
      for (int64_t s = 0; s < o.kernel[1]; ++s) {
        const int64_t h = i[2] * o.stride[0] - o.padding[0] + r;
        const int64_t w = i[3] * o.stride[1] - o.padding[1] + s;
        if (h >= x.size(2) + o.padding[0] || w >= x.size(3) + o.padding[1]) continue;
        ++taps;
        if (h >= 0 && h < x.size(2) && w >= 0 && w < x.size(3))
          inside.push_back(at(x, {i[0], i[1], h, w}));
      }
    return f(inside, taps);
  });
}

Row pool_row(const std::string& name, bool maximum) {
  Row row;
  row.function = name;
  struct Sample {
    const char* name;
    Shape shape;
    Pool2dOptions o;
  };
  Pool2dOptions ceil(3, 2, 0), exclude(3, 2, 1), uneven;
  ceil.ceil_mode = true;
  exclude.count_include_pad = false;
  exclude.ceil_mode = true;
  uneven.kernel = {3, 2};
  uneven.stride = {2, 1};
  uneven.padding = {1, 0};
  for (const Sample& s : std::vector<Sample>{{"2x2", {1, kC, 4, 4}, Pool2dOptions(2)},
                                             {"3x3 overlapping", {1, kC, 5, 5}, {3, 2, 1}},
                                             {"ceil", {1, 3, 6, 8}, ceil},
                                             {"exclude padding", {1, 3, 6, 7}, exclude},
                                             {"uneven", {2, 3, 5, 4}, uneven}}) {
    Case c;
    c.name = s.name;
    c.inputs = {distinct(s.shape)};
    c.run = [maximum, o = s.o](In in) {
      return maximum ? max_pool2d(in[0], o) : avg_pool2d(in[0], o);
    };
    c.reference = [maximum, o = s.o](Ref in) {
      return over_windows(in[0], o, [&](const std::vector<double>& v, int64_t taps) {
        if (maximum) return *std::max_element(v.begin(), v.end());
        double total = 0;
        for (double x : v) total += x;
        return total /
               static_cast<double>(o.count_include_pad ? taps : static_cast<int64_t>(v.size()));
      });
    };
    c.flops = count(s.shape);
    row.cases.push_back(c);
  }
  const auto run = [maximum](const Variable& x, const Pool2dOptions& o) {
    maximum ? max_pool2d(x, o) : avg_pool2d(x, o);
  };
  row.errors = {{[run] {
                   run(Tensor::zeros({2, 3}), Pool2dOptions(2));
                 },
                 {name + ": ", "rank 4", "[2, 3] f32 cpu"}},
                {[run] {
                   run(Tensor::zeros({1, 1, 2, 2}), Pool2dOptions(3));
                 },
                 {name + ": ", "kernel 3 is larger than the padded input 2"}},
                {[run] {
                   run(Tensor::zeros({1, 1, 4, 4}), {2, 2, 2});
                 },
                 {name + ": ", "padding 2 exceeds half of kernel 2"}}};
  row.timed = [maximum](int64_t n) {
    return Timed{{noise(activations(n))}, [maximum](In in) {
                   return maximum ? max_pool2d(in[0], Pool2dOptions(2))
                                  : avg_pool2d(in[0], Pool2dOptions(2));
                 }};
  };
  return row;
}

double bin_mean(const Tensor& x, const Index& i, int64_t oh, int64_t ow) {
  double total = 0;
  const int64_t h0 = i[2] * x.size(2) / oh, h1 = ((i[2] + 1) * x.size(2) + oh - 1) / oh;
  const int64_t w0 = i[3] * x.size(3) / ow, w1 = ((i[3] + 1) * x.size(3) + ow - 1) / ow;
  for (int64_t h = h0; h < h1; ++h)
    for (int64_t w = w0; w < w1; ++w) total += at(x, {i[0], i[1], h, w});
  return total / static_cast<double>((h1 - h0) * (w1 - w0));
}

Row adaptive_row() {
  Row row;
  row.function = "adaptive_avg_pool2d";
  for (const auto& [shape, oh, ow] : {std::tuple<Shape, int64_t, int64_t>{{2, kC, 4, 6}, 2, 3},
                                      {{2, 3, 7, 5}, 3, 2},
                                      {{1, kC, 3, 3}, 1, 1},
                                      {{1, 2, 2, 3}, 4, 5}}) {
    Case c;
    c.name = str(shape, " to ", oh, "x", ow);
    c.inputs = {noise(shape)};
    c.run = [h = oh, w = ow](In in) { return adaptive_avg_pool2d(in[0], h, w); };
    c.reference = [h = oh, w = ow](Ref in) {
      return fill({in[0].size(0), in[0].size(1), h, w},
                  [&](const Index& i) { return bin_mean(in[0], i, h, w); });
    };
    c.flops = count(shape);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   adaptive_avg_pool2d(Tensor::zeros({1, 2, 3, 3}), 0, 1);
                 },
                 {"adaptive_avg_pool2d: ", "asked for 0 x 1", "[1, 2, 3, 3] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n))}, [](In in) { return adaptive_avg_pool2d(in[0], 4, 4); }};
  };
  return row;
}

Row global_row() {
  Row row;
  row.function = "global_avg_pool";
  for (const Shape& shape : {Shape{3, kC, 3, 5}, Shape{2, 3, 4, 4}, Shape{2, kC, 1, 1}}) {
    Case c;
    c.name = shape.to_string();
    c.inputs = {noise(shape)};
    c.run = [](In in) { return global_avg_pool(in[0]); };
    c.reference = [](Ref in) {
      return fill({in[0].size(0), in[0].size(1)}, [&](const Index& i) {
        return bin_mean(in[0], {i[0], i[1], 0, 0}, 1, 1);
      });
    };
    c.flops = count(shape);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   global_avg_pool(Tensor::zeros({2, 3, 0, 4}));
                 },
                 {"global_avg_pool: ", "empty", "[2, 3, 0, 4] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n))}, [](In in) { return global_avg_pool(in[0]); }};
  };
  return row;
}

Row upsample_row() {
  Row row;
  row.function = "upsample_nearest2d";
  for (const auto& [shape, oh, ow] : {std::tuple<Shape, int64_t, int64_t>{{2, kC, 3, 4}, 6, 8},
                                      {{2, 3, 5, 4}, 7, 9},
                                      {{1, kC, 6, 6}, 4, 3}}) {
    Case c;
    c.name = str(shape, " to ", oh, "x", ow);
    c.inputs = {noise(shape)};
    c.run = [h = oh, w = ow](In in) { return upsample_nearest2d(in[0], h, w); };
    c.reference = [h = oh, w = ow](Ref in) {
      return fill({in[0].size(0), in[0].size(1), h, w}, [&](const Index& i) {
        return at(in[0], {i[0], i[1], i[2] * in[0].size(2) / h, i[3] * in[0].size(3) / w});
      });
    };
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   upsample_nearest2d(Tensor::zeros({1, 2, 3, 3}), 6, 0);
                 },
                 {"upsample_nearest2d: ", "asked for 6 x 0", "[1, 2, 3, 3] f32 cpu"}}};
  row.timed = [](int64_t n) {
    return Timed{{noise(activations(n))}, [](In in) { return upsample_nearest2d(in[0], 32, 32); }};
  };
  return row;
}

// ---------------------------------------------------------------------------------- augmentation
const std::vector<bool> kFlip{false, true, true};
Tensor flips() {
  Tensor t = Tensor::empty({3}, DType::boolean);
  for (size_t i = 0; i < 3; ++i) t.data<bool>()[i] = kFlip[i];
  return t;
}
double inside(const Tensor& x, int64_t n, int64_t c, int64_t h, int64_t w) {
  return h < 0 || w < 0 || h >= x.size(2) || w >= x.size(3) ? 0.0 : at(x, {n, c, h, w});
}

Row pad_crop_row() {
  Row row;
  row.function = "pad_crop_flip";
  const std::vector<int32_t> offsets{0, 4, 3, 1, 2, 2};
  for (const bool random : {true, false}) {
    Case c;
    c.name = random ? "offsets and flips" : "centre";
    c.inputs = {noise({3, kC, 5, 6})};
    const Tensor offset = random ? Tensor::from(offsets, {3, 2}) : Tensor();
    const Tensor flip = random ? flips() : Tensor();
    c.run = [offset, flip](In in) {
      return pad_crop_flip(in[0], 2, constant(offset, in[0]), constant(flip, in[0]));
    };
    c.reference = [offsets, random](Ref in) {
      return fill(in[0].shape(), [&](const Index& i) {
        const size_t n = static_cast<size_t>(i[0]);
        const int64_t dy = random ? offsets[2 * n] : 2, dx = random ? offsets[2 * n + 1] : 2;
        const int64_t j = random && kFlip[n] ? 5 - i[3] : i[3];
        return inside(in[0], i[0], i[1], i[2] + dy - 2, j + dx - 2);
      });
    };
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   const Tensor offset = Tensor::from<int32_t>({0, 5}, {1, 2});
                   pad_crop_flip(Tensor::zeros({1, 3, 4, 4}), 2, offset, {});
                 },
                 {"pad_crop_flip: ", "offset 5 of image 0 is outside 0..4", "[1, 2] i32 cpu"}},
                {[] {
                   pad_crop_flip(Tensor::zeros({2, 3, 4, 4}), 2, {}, flips());
                 },
                 {"pad_crop_flip: ", "flip needs one entry per image", "[3] bool cpu"}}};
  row.timed = [](int64_t n) {
    const Tensor offset = Tensor::full({n, 2}, 3, DType::i32),
                 flip = Tensor::zeros({n}, DType::boolean);
    return Timed{{noise(images(n))}, [=](In in) {
                   return pad_crop_flip(in[0], 4, constant(offset, in[0]), constant(flip, in[0]));
                 }};
  };
  return row;
}

Row resized_crop_row() {
  Row row;
  row.function = "resized_crop_flip";
  const std::vector<float> boxes{0, 0, 6, 7, 1, 2, 3, 4, 0.5f, 1.25f, 5, 3.5f};
  for (const auto& [oh, ow] : {std::pair<int64_t, int64_t>{6, 7}, {4, 9}}) {
    Case c;
    c.name = str("to ", oh, "x", ow);
    c.inputs = {noise({3, kC, 6, 7})};
    c.run = [boxes, h = oh, w = ow](In in) {
      return resized_crop_flip(in[0], constant(Tensor::from(boxes, {3, 4}), in[0]),
                               constant(flips(), in[0]), h, w);
    };
    c.reference = [boxes, h = oh, w = ow](Ref in) {
      const Tensor& x = in[0];
      const auto place = [](double at_out, double from, double size, int64_t out, int64_t limit) {
        const double s = from + (at_out + 0.5) * size / static_cast<double>(out) - 0.5;
        return std::clamp(s, 0.0, static_cast<double>(limit - 1));
      };
      return fill({3, kC, h, w}, [&](const Index& i) {
        const size_t n = static_cast<size_t>(i[0]);
        const int64_t j = kFlip[n] ? w - 1 - i[3] : i[3];
        const double sy = place(static_cast<double>(i[2]), boxes[4 * n], boxes[4 * n + 2], h, 6);
        const double sx = place(static_cast<double>(j), boxes[4 * n + 1], boxes[4 * n + 3], w, 7);
        const int64_t y0 = static_cast<int64_t>(sy), x0 = static_cast<int64_t>(sx);
        const double fy = sy - static_cast<double>(y0), fx = sx - static_cast<double>(x0);
        const auto v = [&](int64_t dy, int64_t dx) {
          return at(x, {i[0], i[1], std::min<int64_t>(y0 + dy, 5), std::min<int64_t>(x0 + dx, 6)});
        };
        return (1 - fy) * ((1 - fx) * v(0, 0) + fx * v(0, 1)) +
               fy * ((1 - fx) * v(1, 0) + fx * v(1, 1));
      });
    };
    c.flops = 8.0 * 3 * static_cast<double>(kC * oh * ow);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   resized_crop_flip(Tensor::zeros({2, 3, 4, 4}), Tensor::zeros({1, 4}), {}, 4, 4);
                 },
                 {"resized_crop_flip: ", "box needs shape [2, 4]", "[1, 4] f32 cpu"}}};
  row.timed = [](int64_t n) {
    const Tensor box =
        fill({n, 4}, [](const Index& i) { return i[1] < 2 ? 3.0 : 24.0; }).to(DType::f32);
    const Tensor flip = Tensor::zeros({n}, DType::boolean);
    return Timed{{noise(images(n))}, [=](In in) {
                   return resized_crop_flip(in[0], constant(box, in[0]), constant(flip, in[0]), 32,
                                            32);
                 }};
  };
  return row;
}

Row normalize_channels_row() {
  Row row;
  row.function = "normalize_channels";
  for (const Shape& shape : {Shape{2, kC, 3, 4}, Shape{3, 3, 2, 2}}) {
    const Tensor mean = noise({shape[1]}, 5), std = positive({shape[1]}, 6);
    Case c;
    c.name = shape.to_string();
    c.inputs = {noise(shape)};
    c.run = [mean, std](In in) {
      const DType dtype = in[0].data().dtype();
      return normalize_channels(in[0], constant(mean.to(dtype), in[0]),
                                constant(std.to(dtype), in[0]));
    };
    c.reference = [mean, std](Ref in) {
      return fill(in[0].shape(), [&](const Index& i) {
        return (at(in[0], i) - at(mean, {i[1]})) / at(std, {i[1]});
      });
    };
    c.flops = 2 * count(shape);
    row.cases.push_back(c);
  }
  row.errors = {{[] {
                   const Tensor four = Tensor::full({4}, 1.0);
                   normalize_channels(Tensor::zeros({2, 3, 4, 4}), four, four);
                 },
                 {"normalize_channels: ", "needs shape [3]", "[4] f32 cpu"}}};
  row.timed = [](int64_t n) {
    const Tensor mean = Tensor::full({3}, 0.5), std = Tensor::full({3}, 0.25);
    return Timed{{noise(images(n))}, [=](In in) {
                   return normalize_channels(in[0], constant(mean, in[0]), constant(std, in[0]));
                 }};
  };
  return row;
}

}  // namespace

std::vector<Row> image_rows() {
  return {pool_row("max_pool2d", true),
          pool_row("avg_pool2d", false),
          adaptive_row(),
          global_row(),
          upsample_row(),
          pad_crop_row(),
          resized_crop_row(),
          normalize_channels_row()};
}

}  // namespace mtcki::op_table
