// Resize and Upsample, nearest, linear and cubic, as the matrices that they are along height and width.
#include <algorithm>
#include <array>
#include <cmath>

#include "mtcki/networks/onnx_graph_builder.h"
#include "tensor/error.h"

namespace mtcki::onnx {

namespace {

constexpr int64_t kMostPixels = 4096;  // of a height or width

struct Coordinates {
  std::string mode, transformation, rounding;
  double cubic;
};

// Place of output pixel i among `in` pixels, in f32, as other readers compute it.
float place_of(const Coordinates& c, int64_t i, int64_t in, int64_t out, float scale) {
  const auto at = static_cast<float>(i);
  if (c.transformation == "asymmetric") return at / scale;
  if (c.transformation == "align_corners")
    return out == 1 ? 0 : at * static_cast<float>(in - 1) / static_cast<float>(out - 1);
  if (c.transformation == "pytorch_half_pixel" && out == 1) return 0;
  return (at + 0.5F) / scale - 0.5F;
}

float rounded(const std::string& how, float x) {
  if (how == "floor") return std::floor(x);
  if (how == "ceil") return std::ceil(x);
  return how == "round_prefer_floor" ? std::ceil(x - 0.5F) : std::floor(x + 0.5F);
}

// [out, in]: the weight of every input pixel in every output pixel; the border is repeated.
std::vector<float> matrix_of(const Coordinates& c, int64_t in, int64_t out, float scale) {
  std::vector<float> m(static_cast<size_t>(in * out), 0.0F);
  const auto add = [&](int64_t i, float place, float weight) {
    const auto j = static_cast<int64_t>(std::clamp(place, 0.0F, static_cast<float>(in - 1)));
    m[static_cast<size_t>(i * in + j)] += weight;
  };
  for (int64_t i = 0; i < out; ++i) {
    const float x = place_of(c, i, in, out, scale);
    if (c.mode == "nearest") {
      add(i, rounded(c.rounding, x), 1);
    } else if (c.mode == "cubic") {  // Keys 1981
      const float low = std::floor(x);
      for (int k = -1; k <= 2; ++k) {
        const double a = c.cubic, t = std::abs(double{x} - low - k);
        const double w = t <= 1 ? ((a + 2) * t - (a + 3)) * t * t + 1
                                : ((a * t - 5 * a) * t + 8 * a) * t - 4 * a;
        add(i, low + static_cast<float>(k), static_cast<float>(w));
      }
    } else {
      const float low = std::floor(x);
      add(i, low, 1 - (x - low));
      add(i, low + 1, x - low);
    }
  }
  return m;
}

// Whether output pixel i is input pixel floor(i in / out), which an op of its own does.
bool is_nearest(const std::vector<float>& m, int64_t in, int64_t out) {
  for (int64_t i = 0; i < out; ++i)
    if (m[static_cast<size_t>(i * in + i * in / out)] != 1) return false;
  return true;
}

}  // namespace

// The sizes of the result, and the scale of each dimension.
std::pair<Sizes, std::vector<float>> Builder::resized(const Sizes& in, size_t scales_at) {
  Sizes axes = integers("axes", 99, {0, 1, 2, 3}), out = in;
  for (int64_t& a : axes) a = axis(a, in.size());
  std::vector<float> scales(in.size(), 1.0F), given;
  if (has(3)) {
    Sizes sizes = integers("", 3, {});
    if (sizes.size() != axes.size()) fail("lists of different lengths");
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto d = static_cast<size_t>(axes[i]);
      out[d] = d == 0 && sizes[i] == declared_batch_ ? in[0] : sizes[i];
      scales[d] = static_cast<float>(out[d]) / static_cast<float>(in[d]);
    }
  } else {
    const auto* a = find_attribute("scales");
    given = a ? a->reals : constant(scales_at).to(DType::f32).to_vector<float>();
    if (given.size() != axes.size()) fail("lists of different lengths");
    for (size_t i = 0; i < axes.size(); ++i) {
      const auto d = static_cast<size_t>(axes[i]);
      if (!(given[i] > 0 && given[i] <= kMostPixels)) fail("a scale that is not taken");
      scales[d] = given[i];
      out[d] = static_cast<int64_t>(
          std::floor(static_cast<double>(given[i]) * static_cast<double>(in[d])));
    }
  }
  if (out[0] != in[0] || out[1] != in[1]) fail("only height and width are resized");
  if (std::max({in[2], in[3], out[2], out[3]}) > kMostPixels || out[2] < 1 || out[3] < 1)
    fail(str("from ", in[2], "x", in[3], " to ", out[2], "x", out[3], " pixels is not taken"));
  return {out, scales};
}

void Builder::resize() {
  const bool old = node_->op == "Upsample" || node_->inputs.size() < 3;  // before opset 11
  int64_t x = activation(0);
  const Sizes in = shape(x);
  if (in.size() != 4) fail("only images are resized");
  const Coordinates c{
      attribute("mode", "nearest"),
      attribute("coordinate_transformation_mode", old ? "asymmetric" : "half_pixel"),
      attribute("nearest_mode", old ? "floor" : "round_prefer_floor"),
      attribute("cubic_coeff_a", -0.75)};
  const auto refuse_unless = [&](const std::string& value, const char* what,
                                 const std::vector<std::string>& known) {
    if (std::find(known.begin(), known.end(), value) == known.end())
      fail(str(what, " \"", value.substr(0, 40), "\" is not taken"));
  };
  refuse_unless(c.mode, "mode", {"nearest", "linear", "cubic"});
  refuse_unless(c.transformation, "coordinate_transformation_mode",
                {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"});
  refuse_unless(c.rounding, "nearest_mode",
                {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  refuse_unless(attribute("keep_aspect_ratio_policy", "stretch"), "keep_aspect_ratio_policy",
                {"stretch"});
  if (attribute("antialias", int64_t{0}) != 0) fail("antialias is not taken");
  if (attribute("exclude_outside", int64_t{0}) != 0 && c.mode == "cubic")
    fail("exclude_outside is not taken");  // linear weights outside go to the border either way
  find_attribute("extrapolation_value");   // of tf_crop_and_resize
  const auto [sizes, scales] = resized(in, old ? 1 : 2);
  const std::array<std::vector<float>, 2> m{matrix_of(c, in[2], sizes[2], scales[2]),
                                            matrix_of(c, in[3], sizes[3], scales[3])};
  if (is_nearest(m[0], in[2], sizes[2]) && is_nearest(m[1], in[3], sizes[3])) {
    if (sizes != in) x = add("upsample", {x}, {sizes[2], sizes[3]}, {}, sizes);
    return give(x);
  }
  Sizes out = in;
  for (const size_t d : {size_t{2}, size_t{3}}) {
    out[d] = sizes[d];
    if (in[d] == out[d] && is_nearest(m[d - 2], in[d], out[d])) continue;
    x = add_layer("resample", {x}, {static_cast<int64_t>(d), in[d], out[d]}, {}, out,
                  node_->outputs[0], {{"value", Tensor::from(m[d - 2], {out[d], in[d]})}});
  }
  give(x);
}

}  // namespace mtcki::onnx
