#include "data/sets/synth10.h"

#include <algorithm>
#include <cmath>

#include "data/sets/rows.h"
#include "tensor/parallel.h"
#include "tensor/rng.h"

namespace mtcki::data {

namespace {

constexpr double kPi = 3.14159265358979323846;
const char* const kNames[] = {"disc",    "square", "triangle", "ring",     "cross",
                              "stripes", "checks", "star",     "gradient", "dots"};

double fraction(double v) { return v - std::floor(v); }

// Membership in [0,1] of the point (x, y), in units of the shape's radius, rotated already.
double coverage(int64_t label, double x, double y, double soft) {
  const double r = std::hypot(x, y);
  const auto edge = [soft](double signed_distance) {
    return std::clamp(0.5 - signed_distance / soft, 0.0, 1.0);
  };
  switch (label) {
    case 0:
      return edge(r - 1.0);
    case 1:
      return edge(std::max(std::fabs(x), std::fabs(y)) - 0.85);
    case 2: {
      const double a = 0.5 * std::sqrt(3.0);
      return edge(std::max({-y - 0.55, a * x + 0.5 * y - 0.55, -a * x + 0.5 * y - 0.55}));
    }
    case 3:
      return edge(std::fabs(r - 0.8) - 0.22);
    case 4:
      return edge(std::max(std::min(std::fabs(x), std::fabs(y)) - 0.25, r - 1.15));
    case 5:
      return edge((std::fabs(fraction(x * 1.1) - 0.5) - 0.25) / 1.1);
    case 6: {
      const bool u = fraction(x * 0.8) < 0.5, v = fraction(y * 0.8) < 0.5;
      return u == v ? 1.0 : 0.0;
    }
    case 7: {
      const double angle = std::atan2(y, x) * 5 / (2 * kPi);
      return edge(r - (0.45 + 0.75 * std::pow(std::fabs(fraction(angle) - 0.5) * 2, 1.3)));
    }
    case 8:
      return std::clamp(0.5 + 0.38 * x, 0.0, 1.0);
    default: {
      const double u = fraction(x * 0.85) - 0.5, v = fraction(y * 0.85) - 0.5;
      return edge((std::hypot(u, v) - 0.3) / 0.85);
    }
  }
}

}  // namespace

ImageSet make_synth10(const std::string& split, int64_t count, uint64_t seed, int64_t channels) {
  const bool test = split == "test";
  if (count <= 0) count = test ? 2000 : 10000;
  const int64_t side = channels == 1 ? 28 : 32;
  const Rng rng{seed, rng_stream(test ? "synth10/test" : "synth10/train"), 0};
  ImageSet set;
  set.images = Tensor::empty({count, channels, side, side}, DType::u8);
  set.labels = Tensor::empty({count}, DType::i64);
  set.class_names.assign(std::begin(kNames), std::end(kNames));
  uint8_t* pixels = set.images.data<uint8_t>();
  int64_t* labels = set.labels.data<int64_t>();
  parallel_for(count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t label = i % 10;
      labels[i] = label;
      const Rng draw = rng.at(static_cast<uint64_t>(i));
      const auto u = [&draw](uint64_t k) { return draw.uniform(k); };
      const double scale = static_cast<double>(side) / 32;
      const double cx = side * 0.5 + (u(0) - 0.5) * 10 * scale;
      const double cy = side * 0.5 + (u(1) - 0.5) * 10 * scale;
      const double radius = (6.5 + 4.5 * u(2)) * scale;
      const double angle = label == 5 || label == 8 ? u(3) * 2 * kPi : (u(3) - 0.5) * 0.9;
      double front[3], back[3];
      for (int64_t c = 0; c < 3; ++c) {
        front[c] = 0.45 + 0.55 * u(4 + static_cast<uint64_t>(c));
        back[c] = 0.40 * u(7 + static_cast<uint64_t>(c));
      }
      if (u(10) < 0.3)  // dark on bright: the class is the shape, not the brightness
        for (int64_t c = 0; c < 3; ++c) std::swap(front[c], back[c]);
      const double noise = 0.02 + 0.08 * u(11);
      const double s = std::sin(angle), k = std::cos(angle);
      uint8_t* image = pixels + i * channels * side * side;
      for (int64_t y = 0; y < side; ++y)
        for (int64_t x = 0; x < side; ++x) {
          const double dx = (static_cast<double>(x) + 0.5 - cx) / radius;
          const double dy = (static_cast<double>(y) + 0.5 - cy) / radius;
          const double in = coverage(label, k * dx + s * dy, k * dy - s * dx, 1.2 / radius);
          const auto bits = draw.bits(static_cast<uint64_t>(64 + y * side + x));
          for (int64_t c = 0; c < channels; ++c) {
            // Sum of two uniforms: a triangular distribution, close enough to sensor noise.
            const uint32_t w = bits[static_cast<size_t>(c)];
            const double grain = ((w & 0xffff) + (w >> 16)) / 65536.0 - 1.0;
            const double v = back[c] + (front[c] - back[c]) * in + noise * grain;
            image[(c * side + y) * side + x] =
                static_cast<uint8_t>(std::clamp(v, 0.0, 1.0) * 255 + 0.5);
          }
        }
    }
  });
  return set;
}

DatasetRow synth10_row(bool grey) {
  DatasetRow row;
  if (grey) {
    row.info = {"synth10-gray", "synth10 in grey, 28x28", "none needed", 1, 28, 10,
                {{0.5}, {0.25}}};
  } else {
    row.info = {"synth10",
                "synth10: procedural shapes 32x32, 10 classes, made in memory",
                "none needed",
                3,
                32,
                10,
                {{0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}}};
  }
  row.info.procedural = true;
  row.folders = {row.info.name};
  row.load = [channels = row.info.channels](const std::string&, const DatasetSpec& spec) {
    return make_synth10(spec.split, spec.limit, spec.seed, channels);
  };
  return row;
}

}  // namespace mtcki::data
